"""Contextual clustering against a slow oracle, its limit cases, its gradients, and its memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.model import clustering
from clic_jax.model.clustering import ClusterMixer, adaptive_pool, cluster, mean_pool


def naive_cluster(
    features,
    values,
    centers,
    center_values,
    alpha,
    beta,
    similarity="cosine",
    assignment="hard",
    normalization="points",
    places=None,
):
    """The definition, one batch item, head, centre and point at a time, in float64."""
    b, n, e, d = features.shape
    m = centers.shape[1]
    out = np.zeros((b, n, e, d))
    for i in range(b):
        for h in range(e):
            shares, kept = np.zeros((m, n)), np.zeros((m, n))
            sims = [
                [
                    1 / (1 + np.exp(-(beta + alpha * likeness(centers[i, k, h], features[i, p, h], similarity))))
                    for k in range(m)
                ]
                for p in range(n)
            ]
            best = [row.index(max(row)) for row in sims]  # the first of equals
            chosen = {"hard": best, "one": [max(range(m), key=best.count)] * n, "grid": places}.get(assignment)
            for p in range(n):
                for k in range(m):
                    shares[k, p] = float(k == chosen[p]) if chosen is not None else sims[p][k] / sum(sims[p])
                    kept[k, p] = sims[p][k] * shares[k, p]
            for k in range(m):
                total = center_values[i, k, h] + sum(kept[k, p] * values[i, p, h] for p in range(n))
                divisor = 1 + sum(shares[k] if normalization == "points" else kept[k])
                for p in range(n):
                    out[i, p, h] += kept[k, p] * total / divisor
    return out


def likeness(c, f, similarity):
    if similarity == "euclidean":
        return -np.sqrt(np.mean((c - f) ** 2))
    return float(c @ f) / (max(np.sqrt(c @ c), 1e-12) * max(np.sqrt(f @ f), 1e-12))


def problem(seed, b, n, m, e, d):
    """(features, values, centers, center_values) of random float64 entries that float32 holds exactly."""
    rng = np.random.default_rng(seed)
    shapes = [(b, n, e, d)] * 2 + [(b, m, e, d)] * 2
    return [rng.normal(size=s).astype(np.float32).astype(np.float64) for s in shapes]


def run(arrays, alpha, beta, **how):
    function = jax.jit(functools.partial(cluster, **how))
    return np.asarray(function(*[jnp.float32(a) for a in arrays], jnp.float32(alpha), jnp.float32(beta)))


@pytest.mark.parametrize(
    "seed, sizes, alpha, beta",
    [
        (0, (1, 1, 1, 1, 1), 1.0, 0.0),
        (1, (2, 16, 4, 3, 8), 1.0, 0.0),
        (2, (1, 33, 5, 2, 3), 3.0, -0.7),
        (3, (3, 7, 2, 1, 5), -1.25, 0.4),
        (4, (1, 20, 4, 2, 6), -0.1, 2.0),
        (5, (2, 3, 9, 2, 2), 0.5, -3.0),  # more centres than points: most are empty
    ],
)
def test_cluster_equals_its_definition(seed, sizes, alpha, beta):
    arrays = problem(seed, *sizes)
    np.testing.assert_allclose(run(arrays, alpha, beta), naive_cluster(*arrays, alpha, beta), atol=2e-6, rtol=1e-5)


ABLATED = [
    dict(similarity="euclidean"),
    dict(assignment="soft"),
    dict(normalization="similarity"),
    dict(similarity="euclidean", assignment="soft", normalization="similarity"),
]


@pytest.mark.parametrize("how", ABLATED, ids=str)
def test_ablations_equal_their_definitions(how):
    for seed, sizes, alpha, beta in ((1, (2, 16, 4, 3, 8), 1.0, 0.0), (3, (3, 7, 2, 1, 5), -1.25, 0.4)):
        arrays = problem(seed, *sizes)
        expected = naive_cluster(*arrays, alpha, beta, **how)
        np.testing.assert_allclose(run(arrays, alpha, beta, **how), expected, atol=2e-6, rtol=1e-5)
        assert np.abs(run(arrays, alpha, beta) - expected).max() > 1e-3


def test_one_centre_is_the_same_hard_and_soft():
    arrays = problem(2, 1, 33, 1, 2, 3)
    hard, soft = (run(arrays, 3.0, -0.7, assignment=name) for name in ("hard", "soft"))
    np.testing.assert_allclose(hard, soft, atol=1e-6)


def test_similarities_of_one_are_points():
    """Open gates: each member's similarity is 1, and both normalisations divide by the same."""
    arrays = problem(2, 1, 33, 4, 2, 3)
    points, similarity = (run(arrays, 0.0, 40.0, normalization=name) for name in ("points", "similarity"))
    np.testing.assert_allclose(points, similarity, atol=1e-6)


@pytest.mark.parametrize("assignment", ["one", "grid"])
def test_assignments_without_regard_to_likeness(assignment):
    """All points of a head in its largest cluster, or each where it is told to be."""
    arrays, places = problem(1, 2, 16, 4, 3, 8), np.random.default_rng(0).integers(0, 4, 16)
    how = dict(assignment=assignment, places=places)
    expected = naive_cluster(*arrays, 1.5, -0.3, **how)
    np.testing.assert_allclose(run(arrays, 1.5, -0.3, **how), expected, atol=2e-6, rtol=1e-5)
    assert np.abs(run(arrays, 1.5, -0.3) - expected).max() > 1e-2


def test_grid():
    """Each position in the part of the map that it lies in, in reading order; parts may differ by one."""
    np.testing.assert_array_equal(clustering.grid(4, 4, 2).reshape(4, 4), np.kron([[0, 1], [2, 3]], np.ones((2, 2))))
    places = np.asarray(clustering.grid(8, 4, 3)).reshape(8, 4)
    assert places[0].tolist() == [0, 0, 1, 2] and (places[:, 0] // 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("how", ABLATED, ids=str)
def test_gradients_of_ablations_equal_differences(how):
    """Along a random direction of all arguments at once."""
    arguments = [*problem(10, 1, 9, 3, 2, 5), 0.8, -0.2]
    rng = np.random.default_rng(11)
    direction = [rng.normal(size=np.shape(a)) for a in arguments]
    cotangent = rng.normal(size=arguments[0].shape)
    gradient = jax.grad(lambda a: jnp.sum(cluster(*a, **how) * jnp.float32(cotangent)))
    grads = jax.jit(gradient)([jnp.float32(a) for a in arguments])
    values = [
        (naive_cluster(*[a + t * d for a, d in zip(arguments, direction)], **how) * cotangent).sum()
        for t in (1e-6, -1e-6)
    ]
    found = sum(np.vdot(g, d) for g, d in zip(grads, direction))
    np.testing.assert_allclose(found, (values[0] - values[1]) / 2e-6, rtol=2e-3)


def test_refined_centres_are_those_of_k_means():
    """Point by point, three rounds: features decide, values follow."""
    b, n, m, e, d = 2, 12, 3, 2, 4
    features, values, centers, center_values = problem(20, b, n, m, e, d)
    points, expected = (np.concatenate(pair, 2) for pair in ((features, values), (centers, center_values)))
    found = clustering.refine(jnp.float32(points), jnp.float32(expected), 1.0, 0.0)
    for _ in range(3):
        before = expected.copy()
        for i in range(b):
            for h in range(e):
                near = [[likeness(before[i, k, h], points[i, p, h], "cosine") for k in range(m)] for p in range(n)]
                for k in range(m):
                    members = [p for p in range(n) if near[p].index(max(near[p])) == k]
                    for part in (h, e + h):
                        everyone = [before[i, k, part], *(points[i, p, part] for p in members)]
                        expected[i, k, part] = np.mean(everyone, 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("alpha", [1.5, -1.5])
def test_ties_go_to_the_first_centre(alpha):
    """Twin centres (0 = 2, 1 = 3) with different values: only 0 and 1 get members."""
    features, values, centers, center_values = problem(6, 2, 24, 4, 2, 4)
    centers[:, 2:] = centers[:, :2]
    out = run((features, values, centers, center_values), alpha, 0.3)
    full = naive_cluster(features, values, centers, center_values, alpha, 0.3)
    np.testing.assert_allclose(out, full, atol=2e-6, rtol=1e-5)
    without = naive_cluster(features, values, centers[:, :2], center_values[:, :2], alpha, 0.3)
    np.testing.assert_allclose(out, without, atol=2e-6, rtol=1e-5)


def test_permuted_points_permute_the_output():
    features, values, centers, center_values = problem(7, 1, 40, 4, 2, 8)
    order = np.random.default_rng(8).permutation(40)
    permuted = run((features[:, order], values[:, order], centers, center_values), 1.0, 0.0)
    np.testing.assert_allclose(permuted, run((features, values, centers, center_values), 1.0, 0.0)[:, order], atol=2e-6)


def test_one_centre_with_open_gates_is_a_mean():
    """One centre and similarity 1 give every point the mean of all values and the centre's own."""
    features, values, centers, center_values = problem(9, 2, 15, 1, 3, 4)
    mean = np.concatenate([values, center_values], 1).mean(1, keepdims=True)
    out = run((features, values, centers, center_values), 0.0, 40.0)
    np.testing.assert_allclose(out, mean.repeat(15, 1), atol=1e-6)


def test_gradients_equal_differences_of_the_definition():
    """Along a random direction of each argument: similarities carry gradient, choices and member counts none."""
    arguments = [*problem(10, 1, 9, 4, 2, 5), 0.8, -0.2]
    rng = np.random.default_rng(11)
    direction = [rng.normal(size=np.shape(a)) for a in arguments]
    cotangent = rng.normal(size=arguments[0].shape)
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(cluster(*a) * jnp.float32(cotangent))))
    grads = gradient([jnp.float32(a) for a in arguments])

    def along(i, t):  # one argument at a time, so that errors cannot cancel
        moved = [a + t * d if i == j else a for j, (a, d) in enumerate(zip(arguments, direction))]
        return (naive_cluster(*moved) * cotangent).sum()

    for i, (grad, d) in enumerate(zip(grads, direction)):
        expected = (along(i, 1e-6) - along(i, -1e-6)) / 2e-6
        np.testing.assert_allclose(np.vdot(grad, d), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("zero", [(0,), (2,), (0, 1, 2, 3)], ids=["features", "centers", "everything"])
def test_finite_at_zero_vectors(zero):
    """Empty checkerboard positions are exact zeros: their direction is undefined, value and gradient must not be."""
    arrays = problem(12, 1, 8, 4, 2, 4)
    for i in zero:
        arrays[i][:] = 0
    np.testing.assert_allclose(run(arrays, 1.0, 0.5), naive_cluster(*arrays, 1.0, 0.5), atol=1e-6)
    arguments = [*(jnp.float32(a) for a in arrays), jnp.float32(1), jnp.float32(0.5)]
    grads = jax.jit(jax.grad(lambda a: jnp.square(cluster(*a)).sum()))(arguments)
    assert all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("count, reach", [(2, 0.0), (3, 0.0), (2, 0.5), (4, 0.5), (1, 0.5)])
@pytest.mark.parametrize("side", range(1, 8))
def test_adaptive_pool(side, count, reach):
    """Window a of n pixels is floor((a - reach) n / count) ... ceil((a + 1 + reach) n / count) - 1, cut at the ends."""
    h, w = side, 8 - side
    x = np.random.default_rng(side).normal(size=(2, h, w, 3)).astype(np.float32)
    expected = np.full((2, count, count, 3), -np.inf, np.float32)
    for a in range(count):
        for b in range(count):
            for i in range(int(np.floor((a - reach) * h / count)), int(np.ceil((a + 1 + reach) * h / count))):
                for j in range(int(np.floor((b - reach) * w / count)), int(np.ceil((b + 1 + reach) * w / count))):
                    if 0 <= i < h and 0 <= j < w:
                        expected[:, a, b] = np.maximum(expected[:, a, b], x[:, i, j])
    np.testing.assert_array_equal(adaptive_pool(x, count, np.max, reach), expected)


def test_mean_pool_of_an_oblong():
    x = np.random.default_rng(0).normal(size=(2, 4, 9, 2)).astype(np.float32)
    expected = [[x[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].mean((1, 2)) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(mean_pool(jnp.asarray(x), 2, 3), np.array(expected).transpose(2, 0, 1, 3), atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (5, 5), (2, 4)])
def test_sides_that_are_not_multiples_of_4(shape):
    with pytest.raises(ValueError, match=f"multiples of 4, not {shape[0]}x{shape[1]}"):
        jax.eval_shape(ClusterMixer(2, 4).init, jax.random.key(0), jnp.zeros((1, *shape, 4)))
