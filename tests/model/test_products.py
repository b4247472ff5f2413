"""Products and their gradients against slow loops, in every compute type."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from clic_jax.model import products


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


CASES = {
    "dense": ((2, 3, 4, 17), (17, 19), 1),
    "3x3": ((2, 5, 4, 16), (3, 3, 16, 18), 1),
    "5x5": ((1, 3, 6, 17), (5, 5, 17, 16), 1),
    "narrow": ((2, 5, 4, 2), (3, 3, 2, 16), 1),
    "strided": ((2, 6, 4, 16), (3, 3, 16, 16), 2),
}


def slow(x, kernel, g, stride):
    """(result, gradient by x, gradient by the kernel) of sum(g * result) in float64, a tap and a pixel at a time."""
    if kernel.ndim == 2:
        x, g, kernel = x.reshape(1, 1, -1, x.shape[-1]), g.reshape(1, 1, -1, g.shape[-1]), kernel[None, None]
    r, (_, h, w, _) = kernel.shape[0] // 2, g.shape
    padded = np.pad(np.float64(x), ((0, 0), (r, r), (r, r), (0, 0)))
    out, to_x, to_kernel = np.zeros(g.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for i, j in np.ndindex(kernel.shape[:2]):
        tap = np.float64(kernel[i, j])
        for row, column in np.ndindex(h, w):
            at = (slice(None), row * stride + i, column * stride + j)
            out[:, row, column] += padded[at] @ tap
            to_x[at] += g[:, row, column] @ tap.T
            to_kernel[i, j] += padded[at].T @ g[:, row, column]
    return out, to_x[:, r : to_x.shape[1] - r, r : to_x.shape[2] - r], to_kernel


def rounded(x):
    """x to bfloat16 and back."""
    return np.float32(x.astype(ml_dtypes.bfloat16))


@pytest.fixture(params=CASES)
def case(request):
    shape, kernel, stride = CASES[request.param]
    x, kernel = normal(0, *shape), normal(1, *kernel)
    out = jax.eval_shape(lambda x, k: products.correlate(x, k, stride, None), x, kernel)
    return request.param, x, kernel, normal(2, *out.shape), stride


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", [None, "tensorfloat32", "bfloat16_products"])
def test_correlate(case, dtype, jit):
    """Float32 to its digits; bfloat16_products to those digits of rounded factors, which differ from the full ones."""
    name, x, kernel, g, stride = case

    def both(x, kernel, g):
        out, back = jax.vjp(lambda x, k: products.correlate(x, k, stride, dtype), x, kernel)
        return out, *back(g)

    found = (jax.jit(both) if jit else both)(x, kernel, g)
    exact = slow(x, kernel, g, stride)
    in_bfloat16 = dtype == "bfloat16_products" and name in ("dense", "3x3", "5x5")
    expected = slow(*map(rounded, (x, kernel, g)), stride) if in_bfloat16 else exact
    for value, wanted, full in zip(found, expected, exact):
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, wanted.reshape(value.shape), rtol=1e-5, atol=1e-4)
        assert in_bfloat16 == (not np.allclose(value, full.reshape(value.shape), rtol=1e-5, atol=1e-3))


def test_bfloat16_arrays(case):
    """The compute type that is bfloat16 in memory too: its gradients are, and are right to its digits."""
    name, x, kernel, g, stride = case
    half = [jnp.asarray(a, jnp.bfloat16) for a in (x, kernel, g)]
    out, back = jax.vjp(lambda x, k: products.correlate(x, k, stride, jnp.bfloat16), *half[:2])
    for value, wanted in zip((out, *back(half[2])), slow(*map(rounded, (x, kernel, g)), stride)):
        assert value.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(value), wanted.reshape(value.shape), rtol=0.02, atol=0.3)


def test_a_slope_transposes_in_memory_on_a_cpu_alone(case):
    """What is compiled for a CPU copies x transposed, once, where that gains; for CUDA it stays one convolution."""
    name, x, kernel, g, stride = case

    def slope(x, kernel, g):
        return jax.vjp(lambda k: products.correlate(x, k, stride, None), kernel)[1](g)[0]

    def text(platform):
        return jax.jit(slope).trace(x, kernel, g).lower(lowering_platforms=(platform,)).as_text()

    gains = name in ("dense", "3x3", "5x5")
    assert ("optimization_barrier" in text("cpu")) == gains
    assert "optimization_barrier" not in text("cuda")
    assert text("cpu").count("stablehlo.convolution") == (0 if gains else 1)
