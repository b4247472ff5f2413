"""Probabilities are probabilities, bits are finite with useful gradients, and the tails keep their precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import laplace, norm

from clic_jax.model import entropy

DENSITIES = ("gaussian", "mixed")


def exact(density, y, mean, scale):
    """SciPy's probability of the bin, taken on the side where float64 keeps its digits."""
    near, far = np.abs(y - mean) - 0.5, np.abs(y - mean) + 0.5
    gaussian = norm.sf(near, scale=scale) - norm.sf(far, scale=scale)
    b = scale / np.sqrt(2)
    return gaussian if density == "gaussian" else (gaussian + laplace.sf(near, scale=b) - laplace.sf(far, scale=b)) / 2


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("scale", [0.11, 0.5, 3.0, 50.0, 256.0])
@pytest.mark.parametrize("mean", [0.0, 0.3, -7.5])
def test_bins_sum_to_one(density, mean, scale):
    y = np.arange(-3000, 3001, dtype=np.float32)
    total = np.asarray(entropy.y_likelihood(density, y, np.float32(mean), np.float32(scale)), np.float64).sum()
    np.testing.assert_allclose(total, 1, atol=1e-4)


@pytest.mark.parametrize("density", DENSITIES)
def test_likelihood_equals_scipy_far_into_both_tails(density):
    y = np.float32([-40, -9, -3.2, -0.5, 0, 0.4, 2, 17, 60])
    y, mean, scale = np.meshgrid(y, np.float32([-1.3, 0, 0.25]), np.float32([0.11, 0.3, 1, 4.5, 30]))
    expected = exact(density, y.astype(np.float64), mean, scale)
    np.testing.assert_allclose(entropy.y_likelihood(density, y, mean, scale), expected, rtol=3e-4, atol=1e-30)
    assert (expected < 1e-15).any()  # the tails are there


@pytest.mark.parametrize("density", DENSITIES)
def test_bits_of_y_are_finite_everywhere(density):
    """|y| to 1e5, scales beyond both ends: at most 29.9 bits, finite gradients."""
    scales = np.float32([-5, 0, 1e-9, 0.11, 1, 256, 1e6])
    y, scale = np.meshgrid(np.float32([-1e5, -300, -0.5, 0, 0.5, 1, 5, 1e5]), scales)
    mean = np.float32(0.2)
    bits = functools.partial(entropy.y_bits, density)
    values = np.asarray(bits(y, mean, scale))
    assert np.isfinite(values).all() and values.min() >= 0 and values.max() <= 29.9
    grads = jax.jit(jax.grad(lambda *a: bits(*a).sum(), (0, 1, 2)))(y, mean, scale)
    assert all(np.isfinite(g).all() for g in grads)
    np.testing.assert_array_equal(values[0], values[3])  # scales below 0.11 count as 0.11


@pytest.mark.parametrize("density", DENSITIES)
def test_gradients_of_bits_equal_differences(density):
    at = np.float64([[0.0, 2.0, -3.0, 1.0], [0.4, -1.0, -2.2, 1.1], [0.5, 2.0, 0.7, 9.0]])
    grads = jax.grad(lambda *a: entropy.y_bits(density, *a).sum(), (0, 1, 2))(*jnp.float32(at))
    for i in range(3):
        after, before = ([v + (i == j) * t for j, v in enumerate(at)] for t in (1e-6, -1e-6))
        slope = (np.log2(exact(density, *before)) - np.log2(exact(density, *after))) / 2e-6
        np.testing.assert_allclose(grads[i], slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("density", DENSITIES)
def test_scale_below_its_floor_learns_only_to_grow(density):
    """A symbol that the floor's density cannot explain pulls the scale up; one that it can leaves it alone."""
    grad = jax.grad(functools.partial(entropy.y_bits, density), 2)
    assert grad(1.0, 0.3, 0.05) < 0
    assert grad(0.0, 0.0, 0.05) == 0


def test_mixture_costs_a_gaussian_little_and_saves_outliers_much():
    """Expected extra bits on Gaussian symbols; what a symbol of 6 deviations costs less."""
    y = np.arange(-60, 61, dtype=np.float32)
    p = exact("gaussian", np.float64(y), 0, 4.0)
    gaussian, mixed = (np.asarray(entropy.y_bits(density, y, 0.0, 4.0)) for density in DENSITIES)
    assert 0 < p @ (mixed - gaussian) < 0.03
    assert gaussian[60 + 24] - mixed[60 + 24] > 10


def test_bits_floor():
    """Impossible symbols cost log2(1e9) bits and still pull their likelihood up; sure ones are free."""
    costs = entropy.bits(np.float32([1, 0.25, 1e-9, 1e-20, 0]))
    np.testing.assert_allclose(costs, [0, 2, 29.8974, 29.8974, 29.8974], atol=1e-4)
    np.testing.assert_allclose(jax.grad(entropy.bits)(0.0), -1e9 / np.log(2), rtol=1e-5)
    assert jax.grad(lambda p: -entropy.bits(p))(0.0) == 0


@pytest.fixture(scope="module", params=["start", "trained"])
def prior(request):
    """(params, jitted likelihood at [n, 1, 1, C] points, jitted logits) of 4 channels, at the start and far from it."""
    model = entropy.FactorizedPrior()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1, 1, 4)))["params"]
    if request.param == "trained":
        rng = np.random.default_rng(0)
        spread = {"matrix": 0.3, "bias": 1.0, "factor": 3.0, "median": 0.4}
        params = {k: p + np.float32(spread[k.rstrip("01234")] * rng.normal(size=p.shape)) for k, p in params.items()}

    def logits(v):
        return model.apply({"params": params}, v)[1](v)

    def likelihood(v):
        return entropy.logit_likelihood(model.apply({"params": params}, v)[1], v)

    return params, jax.jit(likelihood), jax.jit(logits)


def integers(n, median):
    return (np.arange(-n, n + 1, dtype=np.float32)[:, None, None, None] + median).astype(np.float32)


@pytest.mark.parametrize("density", DENSITIES)
def test_bits_with_noise_teach_the_scale_from_symbols(density):
    """With symbols: their bits, the scale's gradient of those bits, y's and the mean's of the noisy ones."""
    noisy, mean, scale, q = jnp.float32([0.8, -2.3, 0.1]), jnp.float32([0.1, 0.2, 0.3]), jnp.float32([0.3, 1, 4]), 1.0
    at = functools.partial(entropy.noisy_bits, density)
    np.testing.assert_allclose(at(noisy, mean, scale), -np.log2(exact(density, noisy, mean, scale)), rtol=1e-4)
    np.testing.assert_allclose(at(noisy, mean, scale, q), -np.log2(exact(density, q, 0, scale)), rtol=1e-4)

    def slope(kept, k):  # of the bits of `kept`, by central differences in argument k
        h = 1e-4 * (np.arange(3) == k)
        more, less = (-np.log2(exact(density, *(v + sign * d for v, d in zip(kept, h)))) for sign in (1, -1))
        return (more - less) / 2e-4

    found = jax.grad(lambda *args: at(*args, q).sum(), (0, 1, 2))(noisy, mean, scale)
    values = [np.asarray(v, np.float64) for v in (noisy, mean, scale)]
    for k, gradient in enumerate(found):
        expected = slope((q, 0.0, values[2]) if k == 2 else values, k)
        np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("density", DENSITIES)
def test_nearest_or_cheaper_minimises_the_cost(density):
    """Against a loop over the two candidates with SciPy's bits; without a price on errors it rounds to the nearest."""
    rng, energy = np.random.default_rng(0), 20.0
    residual = np.float32(rng.laplace(scale=2, size=400))
    scale = np.float32(np.exp(rng.uniform(np.log(0.12), np.log(8), 400)))
    found, changed = np.asarray(entropy.nearest_or_cheaper(density, residual, scale, energy)), 0
    for r, s, q in zip(residual.astype(np.float64), scale.astype(np.float64), found):
        nearest = np.round(r)
        costs = {}
        for candidate in (nearest, nearest - np.sign(nearest)):
            bits = -np.log2(max(exact(density, candidate, 0.0, s), entropy.LIKELIHOOD_MIN))
            costs[candidate] = bits + energy * (r - candidate) ** 2
        assert costs[q] <= min(costs.values()) + 1e-3
        changed += q != nearest
    assert 20 < changed < 200
    np.testing.assert_array_equal(entropy.nearest_or_cheaper(density, residual, scale, 0.0), np.round(residual))


def test_factorized_prior_sums_to_one(prior):
    params, likelihood, _ = prior
    for offset in (np.zeros(4, np.float32), params["median"]):
        p = np.asarray(likelihood(integers(600, offset)), np.float64)
        assert p.min() >= 0
        np.testing.assert_allclose(p.sum((0, 1, 2)), 1, atol=1e-4)


def test_factorized_prior_is_monotone(prior):
    """The cumulative rises whatever the parameters, in each channel."""
    _, _, logits = prior
    line = np.linspace(-80, 80, 801, dtype=np.float32)[:, None, None, None]
    values = np.asarray(logits(np.broadcast_to(line, (801, 1, 1, 4))))
    steps = np.diff(values, axis=0)
    assert (steps >= -1e-5 * np.abs(values[1:])).all()
    assert (values[-1] > 0).all() and (values[0] < 0).all()


def test_factorized_prior_keeps_precision_in_both_tails(prior):
    """Against float64 sigmoids of the same logits, down to 1e-9 on either side."""
    _, likelihood, logits = prior
    v = np.ascontiguousarray(np.broadcast_to(integers(120, 0), (241, 1, 1, 4)))
    lower, upper = (np.asarray(logits(v + d), np.float64) for d in (np.float32(-0.5), np.float32(0.5)))
    expected = np.where(upper + lower > 0, expit(-lower) - expit(-upper), expit(upper) - expit(lower))
    seen = expected > 1e-9
    assert (expected[seen & (v > 0)] < 1e-6).any() and (expected[seen & (v < 0)] < 1e-6).any()
    np.testing.assert_allclose(np.asarray(likelihood(v))[seen], expected[seen], rtol=2e-3)


def test_factorized_prior_rounds_about_the_median(prior):
    """z_hat lies on the grid of integers + median, straight-through; the median itself gets no gradient from it."""
    params, _, _ = prior
    z = np.random.default_rng(1).normal(scale=5, size=(1, 3, 3, 4)).astype(np.float32)
    z_hat = entropy.FactorizedPrior().apply({"params": params}, z)[0]
    np.testing.assert_allclose(z_hat, np.round(z - params["median"]) + params["median"], atol=1e-6)
    d_params, d_z = jax.grad(lambda p, z: entropy.FactorizedPrior().apply({"params": p}, z)[0].sum(), (0, 1))(params, z)
    np.testing.assert_array_equal(d_z, 1)
    np.testing.assert_allclose(d_params["median"], 0, atol=1e-6)
