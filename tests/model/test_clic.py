"""The whole codec on a model of a few thousand parameters: rates, gains, and who sends gradients to whom."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.model import pqf
from clic_jax.model.checkerboard import split
from clic_jax.model.clic import CLIC, init_params
from clic_jax.model.context import gaussian_scale
from clic_jax.model.schedule import code_slices, slices
from clic_jax.model.transforms import Synthesis
from tests.micro import MICRO
from tests.model.test_entropy import exact

VARIABLE = MICRO.model
LEAN = dataclasses.replace(VARIABLE, depths=(0, 0), parameter_widths=(), activation="leaky_relu")  # for gradients
FIXED = dataclasses.replace(LEAN, lmbdas=(0.013,), log_scale=False)


def random_params(config):
    """Parameters as after some training, without compiling `init`: every one random, kernels scaled by their fan-in."""
    rng = np.random.default_rng(0)
    x, lmbda = jnp.zeros((1, 64, 64, 3)), jnp.ones((1,))
    shapes = jax.eval_shape(CLIC(config).init, jax.random.key(0), x, lmbda)["params"]

    def fill(path, shape):
        value = rng.normal(size=shape.shape)
        if path[-1].key == "kernel":
            value /= np.prod(shape.shape[:-1]) ** 0.5
        elif path[-1].key.startswith("log_"):
            sign = -1 if "inverse" in path[-1].key else 1
            value = 0.2 * value + sign * 0.5 * np.log(np.array(config.lmbdas) / config.reference_lmbda)[:, None]
        else:
            start = 1 if path[-1].key in ("scale", "alpha") else -1 if path[-1].key.startswith("matrix") else 0
            value = start + 0.1 * value
        return np.float32(value)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@functools.cache
def params_of(config):
    """Random parameters with a large latent, so that symbols are not all zero, and the prior's grid on the integers."""
    params = random_params(config)
    params["g_a"]["merge0"]["reduction"]["kernel"] *= 8
    params["prior"]["median"][:] = 0
    return params


@functools.cache
def compiled(config):
    return jax.jit(lambda params, x, lmbda, key=None: CLIC(config).apply({"params": params}, x, lmbda, key=key))


def images(n=2, h=64, w=128):
    rng = np.random.default_rng(1)
    return np.kron(rng.random((n, h // 4, w // 4, 3)), np.ones((1, 4, 4, 1))).astype(np.float32)


LMBDAS = np.float32([0.0025, 0.04])


@pytest.fixture(scope="module")
def output():
    """The variable-rate model on two images at two rates, rounded."""
    return jax.device_get(compiled(VARIABLE)(params_of(VARIABLE), images(), LMBDAS))


# gains


def gains(config, lmbda):
    tables = {k: v for k, v in params_of(config).items() if k.startswith("log_")}
    out = CLIC(config).apply({"params": tables}, jnp.float32(lmbda), method="gains")
    return [np.asarray(g)[:, 0, 0] for g in out]


def test_gains_at_the_anchors_are_the_rows():
    params = params_of(VARIABLE)
    for ours, name in zip(gains(VARIABLE, VARIABLE.lmbdas), ("log_gain", "log_inverse_gain")):
        np.testing.assert_allclose(ours, params[name], atol=2e-6)


def test_gains_between_and_beyond_the_anchors():
    """Linear in log lmbda between two anchors (so monotone), constant beyond the ends."""
    low, high = VARIABLE.lmbdas[2:4]
    share = np.linspace(0, 1, 9)
    rows = params_of(VARIABLE)["log_gain"][2:4]
    between = gains(VARIABLE, low ** (1 - share) * high**share)[0]
    np.testing.assert_allclose(between, (1 - share[:, None]) * rows[0] + share[:, None] * rows[1], atol=1e-5)
    steps = np.diff(between, axis=0) * np.sign(rows[1] - rows[0])
    assert (steps > 0).all()
    beyond = gains(VARIABLE, [1e-6, 10.0])[0]
    np.testing.assert_allclose(beyond, params_of(VARIABLE)["log_gain"][[0, -1]], atol=2e-6)


def test_gains_start_as_the_square_root_of_lmbda():
    """Steps shrink with sqrt(lmbda), both tables cancel, and the middle of the range has gain 1."""
    x, lmbda = jnp.zeros((1, 64, 64, 3)), jnp.ones((1,))
    shapes = jax.eval_shape(CLIC(VARIABLE).init, jax.random.key(0), x, lmbda)["params"]
    assert shapes["log_gain"].shape == shapes["log_inverse_gain"].shape == (6, VARIABLE.latent_channels)
    model = CLIC(VARIABLE)
    start = model.init(jax.random.key(0), jnp.ones((1,)), method="gains")["params"]
    expected = 0.5 * np.log(np.array(VARIABLE.lmbdas) / np.sqrt(VARIABLE.lmbdas[0] * VARIABLE.lmbdas[-1]))
    np.testing.assert_allclose(start["log_gain"], np.repeat(expected[:, None], VARIABLE.latent_channels, 1), atol=1e-6)
    np.testing.assert_array_equal(start["log_gain"], -start["log_inverse_gain"])
    middle = model.apply({"params": start}, jnp.float32([VARIABLE.reference_lmbda]), method="gains")
    np.testing.assert_allclose(middle, 0, atol=1e-5)


def test_fixed_rate_ignores_lmbda():
    assert not any(name.startswith("log_") for name in params_of(FIXED))
    run = compiled(FIXED)
    outs = [run(params_of(FIXED), images(), lmbda) for lmbda in (LMBDAS, 100 * LMBDAS, None)]
    for other in outs[1:]:
        jax.tree.map(np.testing.assert_array_equal, outs[0], other)


# rates and images


def test_shapes_of_an_oblong_image(output):
    assert output.x_hat.shape == (2, 64, 128, 3)
    assert output.tensors["y"].shape == (2, 4, 8, 24) and output.tensors["z"].shape == (2, 1, 2, 8)
    assert output.bits_y.shape == output.bits_z.shape == output.pqf_residual.shape == (2,)


def test_noise_is_for_rates_only(output):
    """With a key the image and the decoded values stay; bits change, differently with every key, but not wildly.

    Those of y change only where y is rounded to the nearest: `rdoq` counts the symbols themselves, for gradients too.
    """
    run, params = compiled(VARIABLE), params_of(VARIABLE)
    noisy = [run(params, images(), LMBDAS, jax.random.key(seed)) for seed in (0, 1)]
    for other in noisy:
        np.testing.assert_allclose(other.x_hat, output.x_hat, atol=1e-5)
        for name in ("y_hat", "z_hat", "y_hat_corrected"):
            np.testing.assert_allclose(other.tensors[name], output.tensors[name], atol=1e-5)
    nearest = compiled(dataclasses.replace(VARIABLE, rdoq=0.0))
    rounded = [nearest(params, images(), LMBDAS, *key) for key in ((), (jax.random.key(0),), (jax.random.key(1),))]
    for name, outputs in (("bits_z", (output, *noisy)), ("bits_y", rounded)):
        plain, first, second = (getattr(o, name) for o in outputs)
        assert (first != second).all() and (first != plain).all()
        np.testing.assert_allclose(first, plain, rtol=0.5)
    np.testing.assert_allclose(noisy[0].bits_y, output.bits_y, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, noisy[1], run(params, images(), LMBDAS, jax.random.key(1)))


def test_bits_are_those_of_the_values_shown(output):
    """Recomputed with SciPy from the tensors: y_hat is mean + y's nearest integer or the next one towards 0."""
    t, total = output.tensors, 0
    assert np.abs(np.round(t["y_hat"])).max() > 2  # the test sees real symbols
    for k, (value, y_hat) in enumerate(zip(slices(t["y"], VARIABLE.groups), slices(t["y_hat"], VARIABLE.groups))):
        for colour, (v, decoded) in enumerate(zip(split(value), split(y_hat))):
            mean, scale = (np.asarray(t[name][2 * k + colour], np.float64) for name in ("means", "scales"))
            symbols = np.asarray(decoded, np.float64) - mean
            nearest = np.round(np.asarray(v, np.float64) - mean)
            candidates = np.stack([nearest, nearest - np.sign(nearest)])
            assert (np.abs(symbols - candidates).min(0) < 1e-4).all()
            p = exact(VARIABLE.density, np.round(symbols), 0, scale)
            total += -np.log2(np.maximum(p, 1e-9)).sum((1, 2, 3))
    np.testing.assert_allclose(output.bits_y, total, rtol=1e-4)
    np.testing.assert_allclose(output.bits_z, -np.log2(np.maximum(t["z_likelihood"], 1e-9)).sum((1, 2, 3)), rtol=1e-5)
    assert np.abs(t["z_hat"] - t["z"]).max() <= 0.5 and not (t["z_hat"] % 1).any()


def test_the_decoder_needs_symbols_alone(output):
    """The small methods, given z_hat, lmbda and y's symbols, give the image; the coefficients give the filtered one."""
    t = output.tensors
    symbols = [
        [np.round(half - t["means"][2 * k + colour]) for colour, half in enumerate(split(s))]
        for k, s in enumerate(slices(t["y_hat"], VARIABLE.groups))
    ]

    @jax.jit
    def decode(params, z_hat, symbols, lmbda, coefficients):
        model = CLIC(VARIABLE).bind({"params": params})
        features, feature = model.hyper_features(z_hat)
        log_gain, log_inverse = model.gains(lmbda)
        scales = []

        def code(k, colour, mean, raw):
            scales.append(gaussian_scale(VARIABLE, raw, slices(log_gain, VARIABLE.groups)[k]))
            return symbols[k][colour] + mean

        decoded = code_slices(model.context, features, code)
        y_hat = jnp.concatenate(decoded, -1)
        n = VARIABLE.groups[0]  # pqf_slices is 1
        correction = pqf.apply(pqf.orthonormal(model.basis[0](decoded[0])), coefficients)
        corrected = jnp.concatenate([y_hat[..., :n] + correction, y_hat[..., n:]], -1)
        return model.synthesise(y_hat, feature, log_inverse), scales, corrected

    x_hat, scales, corrected = decode(params_of(VARIABLE), t["z_hat"], symbols, LMBDAS, t["coefficients"])
    np.testing.assert_allclose(x_hat, output.x_hat, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), scales, t["scales"])
    np.testing.assert_allclose(corrected, t["y_hat_corrected"], atol=1e-4)


def test_pqf_share_is_that_of_the_filtered_slices(output):
    """What is left of the error's energy in the first slice; the other slice is not touched."""
    t, n = output.tensors, VARIABLE.groups[0]
    before, after = (np.square(t["y"] - t[name])[..., :n].sum((1, 2, 3)) for name in ("y_hat", "y_hat_corrected"))
    np.testing.assert_allclose(output.pqf_residual, after / before, rtol=1e-4)
    assert (output.pqf_residual < 1).all()
    np.testing.assert_array_equal(t["y_hat_corrected"][..., n:], t["y_hat"][..., n:])


def test_batch_items_are_independent(output):
    """A batch of two at two rates is two batches of one."""
    for i in range(2):
        one = compiled(VARIABLE)(params_of(VARIABLE), images()[i : i + 1], LMBDAS[i : i + 1])
        for name in ("bits_y", "bits_z", "pqf_residual", "x_hat"):
            np.testing.assert_allclose(getattr(one, name)[0], getattr(output, name)[i], rtol=1e-4, atol=1e-5)


def test_gains_scale_the_latent_and_are_undone():
    """One image at two rates: y is g_a's output times the gain, g_s is given y_hat times the inverse gain."""
    params = params_of(VARIABLE)
    twice = compiled(VARIABLE)(params, images(1).repeat(2, 0), LMBDAS)
    log_gain, log_inverse = gains(VARIABLE, LMBDAS)
    y = np.asarray(twice.tensors["y"])
    np.testing.assert_allclose(y[1], y[0] * np.exp(log_gain[1] - log_gain[0]), rtol=1e-4, atol=1e-5)
    inputs = np.concatenate([twice.tensors["y_hat"] * np.exp(log_inverse)[:, None, None], twice.tensors["feature"]], -1)
    x_hat = jax.jit(Synthesis(VARIABLE).apply)({"params": params["g_s"]}, inputs)
    np.testing.assert_allclose(x_hat, twice.x_hat, atol=1e-4)


# gradients


@functools.cache
def gradients(pqf_mode):
    """Gradients of distortion + rate + the filter's share, on a texture and on black, under a form of PQF."""
    config = dataclasses.replace(LEAN, pqf=pqf_mode)
    params = dict(params_of(LEAN))
    if pqf_mode == "none":
        del params["basis_0"]

    @jax.jit
    @jax.grad
    def grad(params, x):
        out = CLIC(config).apply({"params": params}, x, LMBDAS, key=jax.random.key(0))
        distortion = 1000 * jnp.square(out.x_hat - x).mean()
        return distortion + 1e-3 * (out.bits_y + out.bits_z).mean() + out.pqf_residual.mean()

    x = images(2, 64, 64)
    return jax.device_get(grad(params, x)), jax.device_get(grad(params, 0 * x))


def test_auxiliary_pqf_sends_nothing_into_the_codec():
    """Every gradient but the basis networks' is that of a codec without the filter; theirs are not zero."""
    auxiliary, none = gradients("auxiliary")[0], gradients("none")[0]
    basis = auxiliary["basis_0"]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(basis))
    for path, expected in jax.tree_util.tree_leaves_with_path(none):
        ours = auxiliary
        for key in path:
            ours = ours[key.key]
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max(), err_msg=str(path))
    assert set(auxiliary) - set(none) == {"basis_0"}


def test_joint_pqf_sends_gradients_into_the_codec():
    joint, none = gradients("joint")[0], gradients("none")[0]
    assert np.abs(joint["basis_0"]["net"]["conv0"]["kernel"]).max() > 0
    stem = [g["g_a"]["stem"]["conv"]["kernel"] for g in (joint, none)]
    assert np.abs(stem[0] - stem[1]).max() > 1e-3 * np.abs(stem[1]).max()


def test_gradients_are_finite_and_reach_everything():
    """Every parameter learns from a texture (but the median, which only carries the authors'); black gives no NaN."""
    texture, black = gradients("auxiliary")
    for path, leaf in jax.tree_util.tree_leaves_with_path(texture):
        assert np.isfinite(leaf).all(), path
        assert path[-1].key == "median" or np.abs(leaf).max() > 0, path
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(black))


def test_initial_parameters_are_those_of_flax():
    """Drawn without the graph, they are what Flax's own `init` draws step by step."""
    whole = CLIC(LEAN).init(jax.random.key(5), jnp.zeros((1, 64, 64, 3)), jnp.ones((1,)))["params"]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), init_params(LEAN, 5), whole)
    shapes = jax.eval_shape(lambda: init_params(LEAN))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, whole)
