"""Convolutions and per-pixel layers shared by every part of the codec; all arrays are [B, H, W, C].

Layouts and padding follow the published model (symmetric zero padding, also for stride 2, where XLA's SAME is not), the
formulations are the ones that are quick in XLA: 1x1 convolutions as matrix products, depthwise ones as shifted sums.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from clic_jax.model.arrange import depth_to_space
from clic_jax.model.checkerboard import TAPS
from clic_jax.model.initial import fan_in_uniform, normal
from clic_jax.model.products import correlate, in_type, precision


def activation(name: str):
    """The nonlinearity called `name`: exact erf "gelu", or "leaky_relu" with slope 0.1."""
    return {"gelu": lambda x: nn.gelu(x, approximate=False), "leaky_relu": lambda x: nn.leaky_relu(x, 0.1)}[name]


class Conv(nn.Module):
    """Convolution with bias, zero padding kernel // 2 all round: [B, H, W, C] -> [B, H / stride, W / stride, features].

    `checkerboard=True` keeps only the taps at odd distance from the centre (12 of 25 for a 5x5 kernel), inside the
    graph, so that dead taps have no gradient (deviates: the published code zeroes the weights in place).
    """

    features: int
    kernel: int = 3
    stride: int = 1
    checkerboard: bool = False
    use_bias: bool = True
    kernel_init: Any = None
    bias_init: Any = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        k, c = self.kernel, x.shape[-1]
        init = fan_in_uniform(k * k * c)
        shape = (c, self.features) if k == 1 else (k, k, c, self.features)
        kernel = self.param("kernel", self.kernel_init or init, shape)
        if self.checkerboard:
            kernel = kernel * TAPS[..., None, None].astype(kernel.dtype)
        x = in_type(x, self.dtype)
        x = correlate(x, kernel.astype(x.dtype), self.stride, self.dtype)
        if self.use_bias:
            x = x + self.param("bias", self.bias_init or init, (self.features,)).astype(x.dtype)
        return x


def Dense(features: int, *, scale: float | None = None, **kwargs) -> Conv:
    """Per-pixel linear layer. `scale`: kernel N(0, scale) and zero bias instead of the fan-in start."""
    if scale is not None:
        kwargs |= dict(kernel_init=normal(scale), bias_init=nn.initializers.zeros)
    return Conv(features, kernel=1, **kwargs)


class Depthwise(nn.Module):
    """Depthwise 3x3 convolution with bias: nine shifted products (a CPU's grouped convolutions are 20 times slower)."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        x = in_type(x, self.dtype)
        kernel = self.param("kernel", fan_in_uniform(9), (3, 3, x.shape[-1])).astype(x.dtype)
        bias = self.param("bias", fan_in_uniform(9), (x.shape[-1],)).astype(x.dtype)
        return bias + depthwise3x3(x, kernel)


@jax.custom_vjp
@jax.jit  # a named call, so that `experiments.complexity` can find it in a jaxpr; XLA inlines it
def depthwise3x3(x, kernel):
    """Depthwise correlation of [B, H, W, C] with kernel [3, 3, C], zero padding 1."""
    h, w = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(kernel[i, j] * x[:, i : i + h, j : j + w] for i in range(3) for j in range(3))


def _depthwise_forward(x, kernel):
    return depthwise3x3(x, kernel), (x, kernel)


def _depthwise_backward(residuals, g):
    x, kernel = residuals
    # a barrier: XLA would fuse, and so repeat, whatever made x and g into each of the nine shifted products
    x, g = lax.optimization_barrier((x, g))
    b, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    ones = jnp.ones((b * h * w,), g.dtype)  # sums over pixels as matrix products: several times quicker on a CPU
    shifted = [(padded[:, i : i + h, j : j + w] * g).reshape(-1, c) for i in range(3) for j in range(3)]
    taps = [jnp.matmul(ones, part, precision=lax.Precision.HIGHEST) for part in shifted]
    return depthwise3x3(g, kernel[::-1, ::-1]), jnp.stack(taps).reshape(3, 3, c).astype(kernel.dtype)


depthwise3x3.defvjp(_depthwise_forward, _depthwise_backward)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel: population variance, eps 1e-6, float32 whatever the compute type."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        full = x.astype(jnp.float32)
        centred = full - full.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)  # two passes: a constant pixel must give exactly zero
        return (centred * lax.rsqrt(variance + 1e-6) * scale + bias).astype(x.dtype)


class TokenMLP(nn.Module):
    """Per-pixel MLP, C -> int(ratio * C) -> C (the paper's TokenMLP; starts from N(0, 0.02), biases from zero)."""

    ratio: float
    act: str = "gelu"
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        hidden = Dense(int(x.shape[-1] * self.ratio), scale=0.02, dtype=self.dtype, name="fc1")(x)
        return Dense(x.shape[-1], scale=0.02, dtype=self.dtype, name="fc2")(activation(self.act)(hidden))


class PatchMerge(nn.Module):
    """Halves the resolution: per-pixel MLP, 2x2 pixels joined, norm, 1x1 to `features` (the reference's MergingProj).

    The joined channels are block-major, blocks in the order (row 0, col 0), (1, 0), (0, 1), (1, 1). With `linear` the
    MLP and the norm are left out, so that the layer can start as a principal-component transform.
    """

    features: int
    mlp_ratio: float = 2.66
    act: str = "gelu"
    linear: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        if not self.linear:
            x = TokenMLP(self.mlp_ratio, self.act, self.dtype, name="mlp")(x)
        x = jnp.concatenate([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], axis=-1)
        if not self.linear:
            x = ChannelNorm(name="norm")(x)
        return Dense(self.features, dtype=self.dtype, name="reduction")(x)


class PatchSplit(nn.Module):
    """Doubles the resolution: 1x1 or 3x3 convolution to 4 * features, depth to space (UnshuffleProj and subpel)."""

    features: int
    kernel: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        return depth_to_space(Conv(4 * self.features, kernel=self.kernel, dtype=self.dtype, name="expand")(x))


class Deconv(nn.Module):
    """Transposed convolution with bias, output exactly `stride` times the input; kernel [k, k, C, features].

    The kernel is stored as a convolution over the zero-dilated input wants it: that of PyTorch, flipped, in and out
    swapped.
    """

    features: int
    kernel: int = 5
    stride: int = 2
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        k, s, c = self.kernel, self.stride, x.shape[-1]
        init = fan_in_uniform(k * k * self.features)  # the published start counts the output channels
        x = in_type(x, self.dtype)
        kernel = self.param("kernel", init, (k, k, c, self.features)).astype(x.dtype)
        before = k - 1 - k // 2
        pads = ((before, s - 1 + k - 1 - before),) * 2  # output_padding = stride - 1 goes to the far side
        dims, exact = ("NHWC", "HWIO", "NHWC"), precision(self.dtype)
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), pads, lhs_dilation=(s, s), dimension_numbers=dims, precision=exact
        )
        return x + self.param("bias", init, (self.features,)).astype(x.dtype)


def sow_range(module: nn.Module, i: int, x) -> None:
    """Leaves the largest |x| of each channel as `range{i}` for a caller who makes "intermediates" mutable.

    It is what the integer networks are scaled by. Of several calls the largest stays.
    """
    if module.is_mutable_collection("intermediates"):  # otherwise the program should be the same as without
        largest = jnp.abs(x).max(tuple(range(x.ndim - 1)))
        module.sow("intermediates", f"range{i}", largest, reduce_fn=jnp.maximum, init_fn=lambda: jnp.float32(0))
