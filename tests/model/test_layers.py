"""Convolutions and rearrangements against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d
from scipy.special import erf

from clic_jax.model import arrange, layers
from clic_jax.model.checkerboard import TAPS


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conv_by_definition(x, kernel, bias, stride):
    """Zero padding of kernel // 2 on all four sides, each output at stride times its index."""
    full = [
        [
            sum(correlate2d(item[..., c], kernel[:, :, c, f], mode="same") for c in range(x.shape[-1]))
            for f in range(kernel.shape[-1])
        ]
        for item in x
    ]
    return np.array(full).transpose(0, 2, 3, 1)[:, ::stride, ::stride] + bias


@pytest.mark.parametrize(
    "kernel, stride, size", [(1, 1, (4, 6)), (3, 1, (5, 4)), (3, 2, (8, 6)), (5, 2, (6, 10)), (7, 1, (4, 5))]
)
def test_conv(kernel, stride, size):
    x, bias = normal(0, 2, *size, 3), normal(1, 4)
    weights = normal(2, kernel, kernel, 3, 4)
    params = {"kernel": weights[0, 0] if kernel == 1 else weights, "bias": bias}
    out = layers.Conv(4, kernel, stride).apply({"params": params}, x)
    np.testing.assert_allclose(out, conv_by_definition(x, weights, bias, stride), atol=2e-5)


@pytest.mark.parametrize("kernel, stride", [(5, 2), (3, 2), (4, 2), (9, 4)])
def test_deconv(kernel, stride):
    """Each input pixel adds its flipped kernel around stride times its place; the output is stride times larger."""
    x, weights, bias = normal(0, 2, 3, 5, 2), normal(1, kernel, kernel, 2, 3), normal(2, 3)
    out = layers.Deconv(3, kernel, stride).apply({"params": {"kernel": weights, "bias": bias}}, x)
    expected = np.zeros((2, 3 * stride, 5 * stride, 3)) + bias
    for i in range(3):
        for j in range(5):
            for u in range(kernel):
                for v in range(kernel):
                    row, column = stride * i + u - kernel // 2, stride * j + v - kernel // 2
                    if 0 <= row < expected.shape[1] and 0 <= column < expected.shape[2]:
                        expected[:, row, column] += x[:, i, j] @ weights[kernel - 1 - u, kernel - 1 - v]
    np.testing.assert_allclose(out, expected, atol=2e-5)


@pytest.mark.parametrize("block", [2, 3])
def test_depth_to_space(block):
    x = normal(0, 2, 3, 4, 5 * block**2)
    out = np.asarray(layers.depth_to_space(x, block))
    assert out.shape == (2, 3 * block, 4 * block, 5)
    for c in range(5):
        for i in range(block):
            for j in range(block):
                np.testing.assert_array_equal(out[:, i::block, j::block, c], x[..., (c * block + i) * block + j])


def test_depthwise():
    x, kernel, bias = normal(0, 2, 5, 4, 3), normal(1, 3, 3, 3), normal(2, 3)
    out = layers.Depthwise().apply({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = [[correlate2d(item[..., c], kernel[..., c], mode="same") for c in range(3)] for item in x]
    np.testing.assert_allclose(out, np.array(expected).transpose(0, 2, 3, 1) + bias, atol=1e-5)


def test_checkerboard_conv():
    """Dead taps change nothing and learn nothing; live ones do both."""
    conv, x = layers.Conv(3, 5, checkerboard=True), normal(0, 1, 8, 8, 2)
    params = {"kernel": normal(1, 5, 5, 2, 3), "bias": normal(2, 3)}
    expected = conv_by_definition(x, params["kernel"] * TAPS[..., None, None], params["bias"], 1)
    np.testing.assert_allclose(conv.apply({"params": params}, x), expected, atol=2e-5)
    grad = np.asarray(jax.grad(lambda p: jnp.square(conv.apply({"params": p}, x)).sum())(params)["kernel"])
    np.testing.assert_array_equal(grad[~TAPS], 0)
    assert (np.abs(grad[TAPS]) > 0).all()


@pytest.mark.parametrize("h, w", [(4, 6), (6, 4), (1, 3)])
def test_positions(h, w):
    out = arrange.positions(h, w)
    assert out.shape == (h, w, 2) and out.dtype == np.float32
    for i in range(h):
        for j in range(w):
            np.testing.assert_allclose(out[i, j], (i / max(h - 1, 1) - 0.5, j / max(w - 1, 1) - 0.5), atol=1e-7)


def test_channel_norm_far_from_zero_and_on_constant_pixels():
    """A mean of 1000 must not eat the variance; a constant pixel is exactly zero before the affine part."""
    x = 1000 + normal(0, 2, 3, 3, 16)
    x[0, 0, 0] = 0.1
    params = {"scale": normal(1, 16), "bias": normal(2, 16)}
    norm = jax.jit(lambda x: layers.ChannelNorm().apply({"params": params}, x))
    full = x.astype(np.float64)
    expected = (full - full.mean(-1, keepdims=True)) / np.sqrt(full.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(norm(x), expected * params["scale"] + params["bias"], atol=3e-3)
    black = np.zeros_like(x)
    np.testing.assert_array_equal(norm(black), np.broadcast_to(params["bias"], x.shape))
    grad = jax.grad(lambda x: jnp.square(norm(x)).sum())(black)
    assert np.isfinite(grad).all()


def test_activations():
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    np.testing.assert_allclose(layers.activation("gelu")(x), x * (1 + erf(x / np.sqrt(2))) / 2, atol=1e-6)
    np.testing.assert_allclose(layers.activation("leaky_relu")(x), np.where(x > 0, x, 0.1 * x), atol=1e-6)


def test_compute_type_leaves_parameters_and_norms_in_float32():
    """bfloat16 is for products only: stored parameters keep float32, and a norm's statistics are float32 inside."""
    x = jnp.asarray(100 + normal(0, 1, 4, 4, 32), jnp.bfloat16)
    half = jnp.bfloat16
    for layer in (layers.Conv(3, dtype=half), layers.Conv(3, 1), layers.Depthwise(half), layers.Deconv(3, dtype=half)):
        out, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
        assert out.dtype == half
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    norm = layers.ChannelNorm()
    params = {"params": {"scale": np.ones(32, np.float32), "bias": np.zeros(32, np.float32)}}
    out = norm.apply(params, x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(np.float32), norm.apply(params, x.astype(jnp.float32)), atol=0.02)
