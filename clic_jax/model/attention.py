"""Local attention (paper Sec. 3.3): a spatial gate after the clustering, a channel gate after the MLP of each block."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from clic_jax.model.layers import Conv, Dense, Depthwise, activation


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
