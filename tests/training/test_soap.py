"""SOAP against Adam where they must agree, and where it must win."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clic_jax.training.soap import SoapState, scale_by_soap, soap


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rotation(seed, n):
    return np.linalg.qr(normal(seed, n, n))[0]


def feed(transform, grads):
    """The updates for a tree of gradients whose leaves are stacked over steps, and the last state."""
    first = jax.tree.map(lambda g: g[0], grads)
    scan = jax.jit(lambda state, grads: jax.lax.scan(lambda s, g: transform.update(g, s)[::-1], state, grads))
    return scan(transform.init(first), grads)[::-1]


def descend(transform, steps):
    """Expected loss |A^T W B|^2 / 2 after steps on batches of 16; curvatures span 1e6, on axes that are not W's."""
    a, b = ((rotation(seed, n) * np.logspace(-1.5, 0, n)).astype(np.float32) for seed, n in ((0, 12), (1, 8)))
    w = jnp.asarray(normal(2, 12, 8))

    def step(carry, inputs):
        w, state = carry
        grad = jax.grad(lambda w: 0.5 * jnp.square(inputs @ a.T @ w @ b).sum() / len(inputs))(w)
        updates, state = transform.update(grad, state, w)
        return (optax.apply_updates(w, updates), state), None

    (w, _), _ = jax.jit(lambda c, x: jax.lax.scan(step, c, x))((w, transform.init(w)), normal(3, steps, 16, 12))
    return 0.5 * np.square(a.T @ w @ b).sum()


def test_beats_adam_on_an_ill_conditioned_quadratic():
    """Adam's diagonal scaling cannot see the curvature of rotated axes; SOAP's can. Same rate, decays and batches."""
    assert descend(soap(1e-2), 1000) < 0.3 * descend(optax.adam(1e-2, 0.95, 0.95), 1000)


def test_vectors_and_long_matrices_get_adam():
    """Leaves without a basis: vectors, scalars, and matrices longer than `longest` on both sides."""
    grads = {"bias": normal(0, 30, 7), "scalar": normal(1, 30), "long": normal(2, 30, 5, 6)}
    ours, _ = feed(scale_by_soap(0.9, 0.97, longest=4), grads)
    theirs, _ = feed(optax.scale_by_adam(0.9, 0.97, 1e-8), grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)


def test_one_long_side_leaves_one_basis():
    updates, state = feed(scale_by_soap(longest=6), {"w": normal(0, 12, 9, 5)})
    assert {n: q.shape for n, q in state.bases.items()} == {"5": (1, 5, 5)}
    assert updates["w"].shape == (12, 9, 5) and np.isfinite(updates["w"]).all()


def test_bases_stay_orthogonal_and_find_the_eigenvectors():
    """Gradients U diag(s) noise diag(t) V^T: the bases converge to U and V, columns in falling order of strength."""
    u, v = rotation(3, 6), rotation(4, 4)
    strengths = np.float32(2.0) ** -np.arange(6)
    grads = {"w": (u * strengths) @ normal(5, 600, 6, 4) @ (v * strengths[:4]).T}
    _, state = feed(scale_by_soap(0.95, 0.99, every=5), grads)
    for true, n in ((u, 6), (v, 4)):
        ours = state.bases[str(n)][0]
        np.testing.assert_allclose(ours.T @ ours, np.eye(n), atol=1e-5)
        assert np.abs(np.diag(ours.T @ true)).min() > 0.9


def test_update_is_adam_in_the_basis():
    """An update is Ql Adam(Ql^T G Qr) Qr^T: momentum in plain axes, second moment in turned ones."""
    grads, b1, b2 = normal(6, 5, 4, 4), 0.8, 0.9
    transform = scale_by_soap(b1, b2, every=100)  # one refresh, at the first step
    updates, state = feed(transform, {"w": grads})
    left, right = np.asarray(state.bases["4"], np.float64)
    assert np.abs(left - np.eye(4)).max() > 0.1
    turned = np.einsum("mi,tmn,nj->tij", left, grads, right)
    first = second = 0
    for t, g in enumerate(turned, 1):
        first, second = b1 * first + (1 - b1) * g, b2 * second + (1 - b2) * g**2
        expected = left @ (first / (1 - b1**t) / (np.sqrt(second / (1 - b2**t)) + 1e-8)) @ right.T
        np.testing.assert_allclose(updates["w"][t - 1], expected, rtol=1e-3, atol=1e-4)


def test_moments_follow_their_columns():
    """When directions change places in strength, columns of a basis and both moments follow, momentum with its sign."""
    covariances = {"3": np.diag(np.float32([1, 9, 4]))[None], "2": np.diag(np.float32([2, 5]))[None]}
    second = np.arange(6, dtype=np.float32).reshape(3, 2)
    momentum = second - 2
    transform = scale_by_soap(1.0, 1.0, every=2)  # nothing new comes in: the second step only turns
    state = SoapState(jnp.int32(1), momentum, second, covariances, {"3": np.eye(3)[None], "2": np.eye(2)[None]})
    _, state = transform.update(jnp.zeros((3, 2)), state)
    left, right = state.bases["3"][0], state.bases["2"][0]
    np.testing.assert_allclose(np.abs(left), np.eye(3)[:, [1, 2, 0]], atol=1e-6)
    np.testing.assert_allclose(np.abs(right), np.eye(2)[:, [1, 0]], atol=1e-6)
    np.testing.assert_array_equal(state.second, second[[1, 2, 0]][:, [1, 0]])
    np.testing.assert_allclose(left @ state.momentum @ right.T, momentum, atol=1e-6)


def test_sides_of_one_length_are_stacked_and_stay_apart():
    """Three leaves with four sides of length 4 share a stack; each gets the update it would get alone."""
    grads = {"a": normal(0, 25, 4, 4), "b": normal(1, 25, 3, 4), "c": normal(2, 25, 2, 2, 4, 3)}
    together, state = feed(scale_by_soap(every=3), grads)
    assert {n: q.shape for n, q in state.bases.items()} == {"4": (4, 4, 4), "3": (2, 3, 3)}
    for name, g in grads.items():
        alone, _ = feed(scale_by_soap(every=3), {name: g})
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-3, atol=1e-4)


def test_kernels_share_their_bases_over_taps():
    """[1, 1, m, n] is [m, n]; a [k, k, in, out] kernel has one pair of bases, from covariances summed over its taps."""
    grads = normal(7, 12, 5, 4)
    flat, _ = feed(scale_by_soap(), {"w": grads})
    kernel, _ = feed(scale_by_soap(), {"w": grads[:, None, None]})
    np.testing.assert_allclose(kernel["w"][:, 0, 0], flat["w"], rtol=1e-4, atol=1e-5)
    taps = normal(8, 1, 3, 3, 5, 4)
    _, state = feed(scale_by_soap(b2=0.75), {"w": taps})
    matrices = taps[0].reshape(9, 5, 4)
    for n, expected in (("5", sum(g @ g.T for g in matrices)), ("4", sum(g.T @ g for g in matrices))):
        np.testing.assert_allclose(state.covariances[n][0], 0.25 * expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("platform, call", [("cuda", "cusolver_geqrf_ffi"), ("tpu", "Qr")])
def test_accelerators_factorise_all_sides_of_a_length_at_once(platform, call):
    """One call on the whole stack, outside of any loop; on a CPU one after the other."""
    transform, grads = scale_by_soap(), {"a": jnp.zeros((4, 4)), "b": jnp.zeros((3, 4, 4))}
    traced = jax.jit(transform.update).trace(grads, jax.eval_shape(transform.init, grads))
    (there,) = re.findall(rf"@{call}\(.*", traced.lower(lowering_platforms=(platform,)).as_text())
    assert "tensor<4x4x4xf32>" in there
    (here,) = re.findall(r"@lapack_sgeqrf_ffi\(.*", traced.lower(lowering_platforms=("cpu",)).as_text())
    assert "tensor<4x4xf32>" in here


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e6])
def test_first_steps_are_finite(size):
    """No gradient, hardly any, and an enormous one; zero gradients move nothing."""
    updates, state = feed(scale_by_soap(every=2), {"w": size * normal(9, 5, 6, 6), "b": size * normal(10, 5, 6)})
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((updates, state)))
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(updates)) <= (20 if size else 0)
