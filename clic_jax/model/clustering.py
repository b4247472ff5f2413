"""Contextual clustering (paper Sec. 3.2): pixels are grouped by their likeness to four centres, and mix in each group.

Each head proposes 2x2 centres from the pooled feature map, moved by a small MLP; a pixel belongs to its most similar
centre (hard assignment, no gradient through the choice); a centre gathers its pixels' values, weighted by similarity,
and hands the sum back to them with the same weight. Two matrix products per head: nothing of size centres x pixels x
channels exists.

Shapes: B batch, h w map, N = h * w pixels, E heads, M centres, D channels of a head.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from clic_jax.model.layers import Dense, activation


def cluster(features, values, centers, center_values, alpha, beta):
    """Hard-assignment aggregate and dispatch.

    sim[m, n] = sigmoid(beta + alpha * cos(centers[m], features[n])), kept only for the best m of each pixel n;
    out[n] = sum_m sim[m, n] * (center_values[m] + sum_n' sim[m, n'] values[n']) / (1 + members of m).

    Args:
      features, values: [B, N, E, D].
      centers, center_values: [B, M, E, D].
      alpha, beta: scalars; a negative alpha assigns each pixel to its farthest centre.
    Returns: [B, N, E, D], in the type of `values`; similarities are computed in float32.
    Source: Zhang et al. 2024, Sec. 3.2. The member count and the choice of centre carry no gradient.
    """
    sim, best = assign(features, centers, alpha, beta)
    member = (best == jnp.arange(sim.shape[2])[:, None]).astype(sim.dtype)  # [B, E, M, N]
    kept = sim * member
    total = _einsum("bemn,bned->bemd", kept, values.astype(sim.dtype)) + center_values.swapaxes(1, 2)
    aggregate = total / (1.0 + member.sum(-1, keepdims=True))
    return _einsum("bemn,bemd->bned", kept, aggregate).astype(values.dtype)


def assign(features, centers, alpha, beta):
    """Similarity [B, E, M, N] of each point to each centre, in float32, and the index [B, E, 1, N] of the best.

    Of equals the first; arguments as for `cluster`.
    """
    cosine = _einsum("bmed,bned->bemn", _unit(centers), _unit(features))
    sim = jax.nn.sigmoid(beta + alpha * cosine)
    return sim, lax.stop_gradient(jnp.argmax(sim, axis=2, keepdims=True))


# all digits whatever the compute type: a choice of centre rests on them, and four centres cost next to nothing
_einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


def _unit(x):
    """x / max(|x|, 1e-12) over the last axis, with a finite gradient at zero."""
    x = x.astype(jnp.float32)
    return x * lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


def max_pool_2x2(x):
    """Adaptive max pool to [B, 2, 2, C]; the two windows of an odd side share its middle, a side of 1 is repeated."""

    def halves(x, axis):
        n = x.shape[axis]
        return [lax.slice_in_dim(x, a * n // 2, -(-(a + 1) * n // 2), axis=axis) for a in (0, 1)]

    return jnp.stack([jnp.stack([cell.max((1, 2)) for cell in halves(row, 2)], 1) for row in halves(x, 1)], 1)


def mean_pool(x, h: int, w: int):
    """Mean over equal cells, [B, H, W, C] -> [B, h, w, C]; H and W must be multiples of h and w."""
    b, height, width, c = x.shape
    return x.reshape(b, h, height // h, w, width // w, c).mean((2, 4))


class CenterOffset(nn.Module):
    """How far each head moves its centres: 4x4 mean pool, MLP D -> int(ratio * D) -> D, adaptive max pool to 2x2.

    [B, h, w, E, D] -> [B, 2, 2, E, D]; one set of weights for all heads, for features and for values.
    """

    ratio: float
    act: str = "gelu"
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        b, h, w, e, d = x.shape
        x = mean_pool(x.reshape(b, h, w, e * d), h // 4, w // 4).reshape(b, h // 4, w // 4, e, d)
        x = activation(self.act)(Dense(int(d * self.ratio), scale=0.02, dtype=self.dtype, name="fc1")(x))
        x = Dense(d, scale=0.02, dtype=self.dtype, name="fc2")(x)
        return max_pool_2x2(x.reshape(b, h // 4, w // 4, e * d)).reshape(b, 2, 2, e, d)


class ClusterMixer(nn.Module):
    """Token mixer of the cluster block (the reference's Grouper): [B, h, w, C] -> [B, h, w, C], no residual.

    h and w must be multiples of 4. Features and values come from one matrix product; the input's mean is added first,
    scaled per channel by `gap_scale` (1e-5 at the start). A caller who makes the collection "intermediates" mutable
    finds `assignment` [B, E, h, w] there: which of the four centres, in reading order, each position belongs to.
    Raises: ValueError for a map whose sides are not multiples of 4.
    """

    heads: int
    head_dim: int = 32
    offset_ratio: float = 1.66
    act: str = "gelu"
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        b, h, w, c = x.shape
        e, d = self.heads, self.head_dim
        if h % 4 or w % 4:
            raise ValueError(
                f"clustering needs a map whose sides are multiples of 4, not {h}x{w}: pad the image to multiples of 64"
            )
        x = x + self.param("gap_scale", nn.initializers.constant(1e-5), (c,)).astype(x.dtype) * x.mean(
            (1, 2), keepdims=True
        )
        both = Dense(2 * e * d, dtype=self.dtype, name="fc")(x).reshape(b, h, w, 2 * e, d)  # features, then values
        centers = mean_pool(both.reshape(b, h, w, -1), 2, 2).reshape(b, 2, 2, 2 * e, d)
        centers = (centers + CenterOffset(self.offset_ratio, self.act, self.dtype, name="offset")(both)).reshape(
            b, 4, 2 * e, d
        )
        points = both.reshape(b, h * w, 2 * e, d)
        alpha = self.param("alpha", nn.initializers.ones, ())
        beta = self.param("beta", nn.initializers.zeros, ())
        if self.is_mutable_collection("intermediates"):  # otherwise the program should be the same as without
            best = assign(points[:, :, :e], centers[:, :, :e], alpha, beta)[1]
            self.sow("intermediates", "assignment", best.reshape(b, e, h, w))
        x = cluster(points[:, :, :e], points[:, :, e:], centers[:, :, :e], centers[:, :, e:], alpha, beta)
        return Dense(c, dtype=self.dtype, name="proj")(x.reshape(b, h, w, e * d))
