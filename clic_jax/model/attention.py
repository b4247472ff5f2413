"""Local attention (paper Sec. 3.3): a spatial gate after the clustering, a channel gate after the MLP of each block.

And what the paper's ablations put in the place of either, or of the clustering: a separable convolution, and attention
among the pixels of a window.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from clic_jax.model.initial import normal
from clic_jax.model.layers import Conv, Dense, Depthwise, activation
from clic_jax.model.products import precision


class SpatialGate(nn.Module):
    """t = PW(DW(x)); out = t * sigmoid(conv7x7([max_c t, mean_c t])). [B, h, w, C] -> [B, h, w, C]."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        t = Dense(x.shape[-1], dtype=self.dtype, name="pointwise")(Depthwise(self.dtype, name="depthwise")(x))
        pooled = jnp.stack([t.max(-1), t.mean(-1)], axis=-1)
        return t * jax.nn.sigmoid(Conv(1, kernel=7, dtype=self.dtype, name="gate")(pooled))


class ChannelGate(nn.Module):
    """t = PW(DW(x)); out = t * sigmoid(L2(act(L1(mean_hw t)))). [B, h, w, C] -> [B, h, w, C].

    L1 squeezes to C // reduction channels; neither has biases. (The reference's SEAttention.)
    """

    reduction: int = 16
    act: str = "gelu"
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        t = Dense(c, dtype=self.dtype, name="pointwise")(Depthwise(self.dtype, name="depthwise")(x))
        g = Dense(c // self.reduction, use_bias=False, dtype=self.dtype, name="squeeze")(t.mean((1, 2), keepdims=True))
        g = Dense(c, use_bias=False, dtype=self.dtype, name="excite")(activation(self.act)(g))
        return t * jax.nn.sigmoid(g)


class SeparableConv(nn.Module):
    """PW(DW(x)), 3x3: what either gate weighs (our reading of "attention -> conv"). [B, h, w, C] -> the same shape."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        return Dense(x.shape[-1], dtype=self.dtype, name="pointwise")(Depthwise(self.dtype, name="depthwise")(x))


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows of side x side pixels. [B, h, w, C] -> the same shape, no residual.

    Logits are q k / sqrt(D) and a learned bias for each head and offset between two pixels; softmax in float32. A map
    that windows do not divide is filled up with zeros, which nobody attends to.
    Source: Liu et al. 2021 (Swin), without the shift, as the convolutions after it link the windows (our reading of
    "clustering -> W-MHSA", with as many heads as the clustering has).
    """

    heads: int
    head_dim: int = 32
    side: int = 8
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        b, h, w, c = x.shape
        e, d, s, exact = self.heads, self.head_dim, self.side, precision(self.dtype)
        rows, columns = -(-h // s), -(-w // s)

        def windows(x):
            x = jnp.pad(x, ((0, 0), (0, rows * s - h), (0, columns * s - w), (0, 0)))
            x = x.reshape(x.shape[0], rows, s, columns, s, -1).swapaxes(2, 3)
            return x.reshape(x.shape[0], rows * columns, s * s, -1)

        q, k, v = jnp.split(windows(Dense(3 * e * d, dtype=self.dtype, name="qkv")(x)), 3, axis=-1)
        q, k, v = (t.reshape(b, rows * columns, s * s, e, d) for t in (q, k, v))
        bias = self.param("relative_bias", normal(0.02), ((2 * s - 1) ** 2, e))
        logits = jnp.einsum("bwqed,bwked->bweqk", q, k, precision=exact).astype(jnp.float32) * d**-0.5
        logits = logits + bias[_offsets(s)].transpose(2, 0, 1)
        there = windows(jnp.ones((1, h, w, 1), bool))[..., 0]  # [1, windows, keys]
        weights = jax.nn.softmax(jnp.where(there[:, :, None, None], logits, -jnp.inf), axis=-1).astype(v.dtype)
        x = jnp.einsum("bweqk,bwked->bwqed", weights, v, precision=exact)
        x = x.reshape(b, rows, columns, s, s, e * d).swapaxes(2, 3).reshape(b, rows * s, columns * s, e * d)
        return Dense(c, dtype=self.dtype, name="proj")(x[:, :h, :w])


def _offsets(side: int) -> np.ndarray:
    """int [side^2, side^2]: which of the (2 side - 1)^2 offsets lies between two pixels of a window."""
    row, column = np.indices((side, side)).reshape(2, -1)
    down, right = (line[:, None] - line + side - 1 for line in (row, column))
    return down * (2 * side - 1) + right
