"""The networks that predict y from what is decoded (paper Sec. 3.4), for the order of `clic_jax.model.schedule`."""

import jax.numpy as jnp
from flax import linen as nn

from clic_jax.config import ModelConfig
from clic_jax.model.checkerboard import merge, split
from clic_jax.model.layers import Conv, activation, sow_range
from clic_jax.model.quantize import lower_bound
from clic_jax.model.schedule import seen_slices
from clic_jax.scales import SCALE_MAX, SCALE_MIN


class ConvStack(nn.Module):
    """Convolutions (width, kernel) with the activation between them; `checkerboard` masks their taps."""

    layers: tuple[tuple[int, int], ...]
    act: str
    checkerboard: bool = False

    @nn.compact
    def __call__(self, x):
        for i, (width, kernel) in enumerate(self.layers):
            x = Conv(width, kernel, checkerboard=self.checkerboard, name=f"conv{i}")(x)
            x = activation(self.act)(x) if i + 1 < len(self.layers) else x
            sow_range(self, i, x)
        return x


class ContextModel(nn.Module):
    """The networks of every slice k: channel context, spatial context, and the 1x1 network that ends in (mean, scale).

    float32 whatever the compute type of the transforms. (The reference's cc_transforms, context_prediction and
    ParamAggregation; the last is shared by both checkerboard steps.)
    """

    config: ModelConfig

    def setup(self):
        c = self.config
        act = c.activation
        self.channel = [
            ConvStack(tuple((width or 2 * g, k) for width, k in c.channel_layers), act) for g in c.groups[1:]
        ]
        self.spatial = [ConvStack(tuple((int(r * g), 5) for r in c.spatial_ratios), act, True) for g in c.groups]
        self.parameters = [ConvStack(tuple((w, 1) for w in (*c.parameter_widths, 2 * g)), act) for g in c.groups]

    def support(self, k: int, decoded: list, features):
        """What slice k may see everywhere: earlier slices' y_hat [B, h, w, g] through a network, and hyper features."""
        if k == 0:
            return features
        seen = jnp.concatenate(seen_slices(self.config, decoded), -1)
        return jnp.concatenate([self.channel[k - 1](seen), features], -1)

    def neighbours(self, k: int, anchors):
        """Spatial context of slice k's non-anchors [B, h, w/2, C] from its decoded anchors [B, h, w/2, g]."""
        return split(self.spatial[k](merge(anchors, jnp.zeros_like(anchors))))[1]

    def distribution(self, k: int, neighbours, support):
        """(mean, raw scale), each [B, h, w/2, g], for one colour of slice k; `neighbours` None stands for zeros."""
        if neighbours is None:
            width = int(self.config.spatial_ratios[-1] * self.config.groups[k])
            neighbours = jnp.zeros((*support.shape[:-1], width), support.dtype)
        mean, scale = jnp.split(self.parameters[k](jnp.concatenate([neighbours, support], -1)), 2, axis=-1)
        return mean, scale


def gaussian_scale(config: ModelConfig, raw, log_gain=0.0):
    """The Gaussian's scale in quantisation steps from the network's raw output (log_gain: [B, 1, 1, g] or 0).

    Published form: the raw value itself. With `log_scale`: exp(raw + log_gain), so that one network serves all rates.
    """
    if not config.log_scale:
        return raw
    low, high = jnp.log(SCALE_MIN), jnp.log(SCALE_MAX)
    return jnp.exp(-lower_bound(-lower_bound(raw + log_gain, low), -high))
