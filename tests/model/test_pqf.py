"""GuidedPQF's least squares: the best correction in the span of the maps, harmless when the span is degenerate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.model import pqf

SHAPE = (2, 6, 8, 3)  # B, h, w, C


def problem(seed, maps=2, scale=1.0):
    """(basis [B, h, w, C, A], residual of rounding [B, h, w, C])."""
    rng = np.random.default_rng(seed)
    basis = scale * (rng.normal(size=(*SHAPE, maps)) + rng.normal(size=maps))
    return basis.astype(np.float32), rng.uniform(-0.5, 0.5, SHAPE).astype(np.float32)


@jax.jit
def solve(basis, residual):
    """(coefficients, correction)."""
    maps = pqf.orthonormal(basis)
    coefficients = pqf.fit(maps, residual)
    return coefficients, pqf.apply(maps, coefficients)


def energy(x):
    return np.square(np.asarray(x, np.float64)).sum((1, 2))


@pytest.mark.parametrize("maps, scale", [(1, 1.0), (2, 1e-2), (2, 1.0), (2, 1e3), (3, 1.0)])
def test_correction_is_the_least_squares_one(maps, scale):
    """By NumPy's solver, and by its property: what is left is orthogonal to every raw map."""
    basis, residual = problem(0, maps, scale)
    _, correction = solve(basis, residual)
    for b in range(2):
        for c in range(3):
            columns, target = basis[b, ..., c, :].reshape(-1, maps), residual[b, ..., c].ravel()
            expected = columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
            np.testing.assert_allclose(np.ravel(correction[b, ..., c]), expected, atol=2e-5)
            left = target - np.ravel(correction[b, ..., c])
            cosines = left @ columns / np.linalg.norm(columns, axis=0) / np.linalg.norm(left)
            assert np.abs(cosines).max() < 1e-5


def test_maps_are_orthonormal():
    maps = np.asarray(pqf.orthonormal(problem(1, 3)[0]))
    gram = np.einsum("bhwci,bhwcj->bcij", maps, maps) / (6 * 8)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(3), gram.shape), atol=1e-5)


def degenerate(kind):
    basis, residual = problem(2)
    if kind == "zero":
        basis[:] = 0
    elif kind == "one zero":
        basis[..., 0] = 0
    elif kind == "tiny":
        basis *= 1e-25
    elif kind == "huge":
        basis *= 1e12
    elif kind == "constant":
        basis[:] = 1
    elif kind == "duplicate":
        basis[..., 1] = basis[..., 0]
    elif kind == "multiple":
        basis[..., 1] = -37 * basis[..., 0]
    else:
        basis[..., 1] = basis[..., 0] + float(kind) * basis[..., 1]
    return basis, residual


@pytest.mark.parametrize(
    "kind",
    ["zero", "one zero", "tiny", "huge", "constant", "duplicate", "multiple", "1e-2", "1e-3", "1e-4", "1e-5", "1e-7"],
)
def test_degenerate_maps(kind):
    """Vanishing, dependent and nearly dependent maps: bounded coefficients, no added energy, finite gradients."""
    basis, residual = degenerate(kind)
    coefficients, correction = solve(basis, residual)
    assert np.abs(coefficients).max() <= 0.5 + 1e-6
    assert (energy(residual - correction) <= energy(residual) * (1 + 1e-5)).all()
    if kind in ("one zero", "duplicate", "multiple"):  # what the independent map alone can do is still done
        alone = solve(basis[..., 1:], residual)[1]
        np.testing.assert_allclose(energy(residual - correction), energy(residual - alone), rtol=1e-4)

    def left(basis, residual):
        return jnp.square(residual - solve(basis, residual)[1]).sum()

    grads = jax.jit(jax.grad(left, (0, 1)))(basis, residual)
    assert all(np.isfinite(g).all() for g in grads)


def test_coefficients_of_rounding_errors_stay_within_a_half():
    """The worst case: residuals of +-1/2 with the sign of a map, for flat, smooth and spiky maps."""
    rng = np.random.default_rng(3)
    basis = np.sign(rng.normal(size=(*SHAPE, 2))) * np.abs(rng.normal(size=(*SHAPE, 2))) ** np.float64([0, 6])
    basis[..., 0][:, :, :, 1] = 3.7  # a constant map
    for target in range(2):
        coefficients, _ = solve(np.float32(basis), np.float32(0.5 * np.sign(basis[..., target])))
        assert np.abs(coefficients).max() <= 0.5 + 1e-6
        if target == 0:
            np.testing.assert_allclose(np.abs(coefficients[..., 0]), 0.5, atol=1e-5)  # the bound is met: it is tight
