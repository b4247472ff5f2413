"""Transforms: g_a (image to latent y), g_s (latent to image), h_a (y to hyper-latent z), h_s (z to side features)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from clic_jax.config import ModelConfig
from clic_jax.model import remat
from clic_jax.model.arrange import depth_to_space, positions, space_to_depth
from clic_jax.model.attention import ChannelGate, SeparableConv, SpatialGate, WindowAttention
from clic_jax.model.checkerboard import anchor_mask
from clic_jax.model.clustering import ClusterMixer
from clic_jax.model.layers import (
    ChannelNorm,
    Conv,
    Deconv,
    Dense,
    PatchMerge,
    PatchSplit,
    TokenMLP,
    activation,
    sow_range,
)
from clic_jax.model.products import in_type


class ClusterBlock(nn.Module):
    """x + SpatialGate(ClusterMixer(norm x)), then x + ChannelGate(MLP(norm x)). [B, h, w, C] -> the same shape.

    `config.mixer` and `config.attention` may put other layers in their places.
    """

    config: ModelConfig
    heads: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        c = self.config
        x = x + self._local("spatial")(self._mixer(x.shape[-1])(ChannelNorm(name="norm1")(x)))
        hidden = TokenMLP(c.mlp_ratio, c.activation, self.dtype, name="mlp")(ChannelNorm(name="norm2")(x))
        return x + self._local("channel")(hidden)

    def _mixer(self, channels: int):
        c = self.config
        if c.mixer == "conv":  # adds 21 % to the MACs of `paper`'s encoder and 29 % to its decoder's, as published 25 %
            return Conv(channels, 3, dtype=self.dtype, name="mixer")
        if c.mixer == "window_attention":
            return WindowAttention(self.heads, c.head_dim, dtype=self.dtype, name="mixer")
        return ClusterMixer(
            self.heads,
            c.head_dim,
            c.offset_ratio,
            c.activation,
            self.dtype,
            c.centers,
            c.center_windows,
            c.center_offset,
            c.similarity,
            c.assignment,
            c.normalization,
            c.similarity_slope,
            name="mixer",
        )

    def _local(self, kind: str):
        c = self.config
        if c.attention == "none":
            return lambda x: x
        if c.attention == "conv":
            return SeparableConv(self.dtype, name=f"{kind}_conv")
        if kind == "spatial":
            return SpatialGate(self.dtype, name="spatial_gate")
        return ChannelGate(c.gate_reduction, c.activation, self.dtype, name="channel_gate")


class CheckerboardBlock(nn.Module):
    """The sum of two cluster blocks, one on the anchors (the rest zeroed) and one on the non-anchors.

    As published: each branch runs on the full zero-filled map and its output is not masked again, so the empty pixels
    take part in means, clusters and convolutions.
    """

    config: ModelConfig
    heads: int
    dtype: Any = None
    remat: bool = False  # of each branch, see Stage

    @nn.compact
    def __call__(self, x):
        h, w = x.shape[1:3]
        mask = jnp.tile(anchor_mask(2, 2)[..., None].astype(x.dtype), (h // 2, w // 2, 1))
        total = 0
        for name, kept in (("anchor", mask), ("non_anchor", 1 - mask)):
            branch = ClusterBlock(self.config, self.heads, self.dtype, name=name)
            total = total + (remat.block(branch, x * kept) if self.remat else branch(x * kept))
        return total


class ConvBlock(nn.Module):
    """x + conv3x3(act(conv3x3(x))): the cheap block of the small presets at fine resolutions."""

    config: ModelConfig
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        hidden = Conv(x.shape[-1], dtype=self.dtype, name="conv1")(x)
        return x + Conv(x.shape[-1], dtype=self.dtype, name="conv2")(activation(self.config.activation)(hidden))


class Stage(nn.Module):
    """The blocks of one resolution; odd cluster blocks are checkerboard blocks where the config says so."""

    config: ModelConfig
    index: int
    depth: int  # blocks
    dtype: Any = None
    remat: bool = False  # keep the input of each block only, and compute the rest anew in the backward pass

    @nn.compact
    def __call__(self, x):
        c = self.config
        for i in range(self.depth):
            name, heads, anew = f"block{i}", c.heads[self.index], self.remat
            if c.blocks[self.index] == "conv":
                block = ConvBlock(c, self.dtype, name=name)
            elif i % 2 and c.checkerboard_blocks:
                block, anew = CheckerboardBlock(c, heads, self.dtype, self.remat, name=name), False  # its branches are
            else:
                block = ClusterBlock(c, heads, self.dtype, name=name)
            x = remat.block(block, x) if anew else block(x)
        return x


class Analysis(nn.Module):
    """g_a: x [B, H, W, 3] in [0, 1] -> y [B, H/16, W/16, M] float32. H and W are multiples of 64."""

    config: ModelConfig
    dtype: Any = None
    remat: bool = False  # of the blocks, see Stage

    @nn.compact
    def __call__(self, x, where=None):
        c, picture = self.config, x
        if c.positions:
            where = positions(*x.shape[1:3]) if where is None else where  # given, where the size is not known yet
            x = jnp.concatenate([x, jnp.broadcast_to(where, (*x.shape[:3], 2)).astype(x.dtype)], axis=-1)
        x = PatchStem(c.widths[0], c.stem_kernel, c.stem_stride, self.dtype, name="stem")(x)
        for i, width in enumerate(c.widths):
            if i:
                merge = PatchMerge(width, c.mlp_ratio, c.activation, c.linear_path, self.dtype, name=f"merge{i - 1}")
                x = remat.block(merge, x) if self.remat else merge(x)
            x = Stage(c, i, c.depths[i], self.dtype, self.remat, name=f"stage{i}")(x)
        if c.detail_channels:
            detail = Dense(c.detail_channels, dtype=self.dtype, name="detail")
            x = jnp.concatenate([x, detail(space_to_depth(picture, 16))], -1)
        return x.astype(jnp.float32)


class PatchStem(nn.Module):
    """Strided first convolution of g_a; where kernel equals stride, a product over patches that do not overlap."""

    features: int
    kernel: int
    stride: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        if self.kernel != self.stride:
            return Conv(self.features, self.kernel, self.stride, dtype=self.dtype, name="conv")(x)
        return Conv(self.features, 1, dtype=self.dtype, name="conv")(space_to_depth(x, self.stride))


class Synthesis(nn.Module):
    """g_s: y_hat (and the latent feature) [B, H/16, W/16, C] -> x_hat [B, H, W, 3] float32, not clipped."""

    config: ModelConfig
    dtype: Any = None
    remat: bool = False  # of the blocks, see Stage

    @nn.compact
    def __call__(self, x):
        c = self.config
        x = in_type(x, self.dtype)
        detail = x[..., c.widths[-1] : c.latent_channels]
        if x.shape[-1] != c.synthesis_width:
            x = Conv(c.synthesis_width, 1, dtype=self.dtype, name="enter")(x)
        for i in reversed(range(len(c.widths))):
            x = Stage(c, i, c.depths_of_g_s[i], self.dtype, self.remat, name=f"stage{i}")(x)
            if i:
                x = PatchSplit(c.widths[i - 1], dtype=self.dtype, name=f"split{i - 1}")(x)
        if c.stem_kernel == c.stem_stride:
            x = depth_to_space(Conv(3 * c.stem_stride**2, 1, dtype=self.dtype, name="leave")(x), c.stem_stride)
        else:
            x = Deconv(3, c.stem_kernel, c.stem_stride, self.dtype, name="leave")(x)
        if c.detail_channels:
            x = x + depth_to_space(Dense(3 * 16**2, dtype=self.dtype, name="detail")(detail), 16)
        return x.astype(jnp.float32)


class HyperAnalysis(nn.Module):
    """h_a: y [B, h, w, M] -> z [B, h/4, w/4, N], 3x3 convolutions with the activation between them."""

    config: ModelConfig
    dtype: Any = None

    @nn.compact
    def __call__(self, y):
        act = activation(self.config.activation)
        for i, (width, stride) in enumerate(self.config.hyper_layers):
            y = Conv(width, 3, stride, dtype=self.dtype, name=f"conv{i}")(act(y) if i else y)
        return y.astype(jnp.float32)


class HyperSynthesis(nn.Module):
    """One hyper decoder: z_hat [B, h/4, w/4, N] -> [B, h, w, features] float32.

    3x3 convolutions of `hyper_decoder_layers`, in their sub-pixel form where the stride is 2; a width of 0 stands for
    `features`.
    """

    config: ModelConfig
    features: int

    @nn.compact
    def __call__(self, z_hat):
        act, x = activation(self.config.activation), z_hat
        for i, (width, stride) in enumerate(self.config.hyper_decoder_layers):
            layer = PatchSplit if stride == 2 else Conv
            x = layer(width or self.features, 3, name=f"conv{i}")(x)
            x = act(x) if i + 1 < len(self.config.hyper_decoder_layers) else x
            sow_range(self, i, x)
        return x
