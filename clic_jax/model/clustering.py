"""Contextual clustering (paper Sec. 3.2): pixels are grouped by their likeness to four centres, and mix in each group.

Each head proposes 2x2 centres from the pooled feature map, moved by a small MLP; a pixel belongs to its most similar
centre (hard assignment, no gradient through the choice); a centre gathers its pixels' values, weighted by similarity,
and hands the sum back to them with the same weight. Two matrix products per head: nothing of size centres x pixels x
channels exists. What the paper's ablations change in this are fields of `ModelConfig`, from `centers` on.

Shapes: B batch, h w map, N = h * w pixels, E heads, M centres, D channels of a head.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from clic_jax.model.layers import Dense, activation


def cluster(
    features,
    values,
    centers,
    center_values,
    alpha,
    beta,
    similarity: str = "cosine",
    assignment: str = "hard",
    normalization: str = "points",
    places=None,
):
    """Aggregate and dispatch.

    sim[m, n] = sigmoid(beta + alpha * likeness(centers[m], features[n])), kept only for the best m of each pixel n;
    out[n] = sum_m sim[m, n] * (center_values[m] + sum_n' sim[m, n'] values[n']) / (1 + members of m).

    Args:
      features, values: [B, N, E, D].
      centers, center_values: [B, M, E, D].
      alpha, beta: scalars; a negative alpha assigns each pixel to its farthest centre.
      similarity: likeness is the "cosine", or less the "euclidean" distance, its square a mean over channels (our
        reading).
      assignment: "hard", or "soft": sim[m, n] is multiplied by sim[m, n] / sum_m' sim[m', n], which is also how much
        of a member of m the pixel is (our reading). For comparison, whatever they are like: "one", all pixels to the
        centre that is the best of most, head by head; "grid", to the centre of their place.
      places: [N], for "grid": the centre of each pixel's place.
      normalization: 1 + members of m ("points"), or 1 + sum_n sim[m, n] of what is kept ("similarity", as in Context
        Clusters, Ma et al. 2023; our reading of the paper's ablation).
    Returns: [B, N, E, D], in the type of `values`; similarities are computed in float32.
    Source: Zhang et al. 2024, Sec. 3.2. The member count and the choice of centre carry no gradient.
    """
    sim, best = assign(features, centers, alpha, beta, similarity)
    if assignment == "soft":
        member = sim / jnp.maximum(sim.sum(2, keepdims=True), 1e-30)
    else:
        if assignment == "one":
            best = jnp.argmax((best == jnp.arange(sim.shape[2])[:, None]).sum(-1, keepdims=True), 2, keepdims=True)
        elif assignment == "grid":
            best = places
        member = jnp.broadcast_to(best == jnp.arange(sim.shape[2])[:, None], sim.shape).astype(sim.dtype)
    kept = sim * member
    total = _einsum("bemn,bned->bemd", kept, values.astype(sim.dtype)) + center_values.swapaxes(1, 2)
    divisor = member if normalization == "points" else kept
    aggregate = total / (1.0 + divisor.sum(-1, keepdims=True))
    return _einsum("bemn,bemd->bned", kept, aggregate).astype(values.dtype)


def assign(features, centers, alpha, beta, similarity: str = "cosine"):
    """Similarity [B, E, M, N] of each point to each centre, in float32, and the index [B, E, 1, N] of the best.

    Of equals the first; arguments as for `cluster`.
    """
    likeness = _cosine(centers, features) if similarity == "cosine" else -_distance(centers, features)
    sim = jax.nn.sigmoid(beta + alpha * likeness)
    return sim, lax.stop_gradient(jnp.argmax(sim, axis=2, keepdims=True))


def grid(h: int, w: int, side: int):
    """[h * w]: in which of side x side equal parts of the map each position lies, in reading order."""
    return ((jnp.arange(h) * side // h)[:, None] * side + jnp.arange(w) * side // w).reshape(-1)


def assignments(intermediates) -> dict[str, jax.Array]:
    """What the mixers of a model have sown into the collection, [B, E, h, w], by the path of their block."""
    end = "/mixer/assignment/0"
    found = jax.tree.leaves_with_path(intermediates)
    named = ((jax.tree_util.keystr(path, simple=True, separator="/"), value) for path, value in found)
    return {name.removesuffix(end): value for name, value in named if name.endswith(end)}


def refine(points, centers, alpha, beta, similarity: str = "cosine", rounds: int = 3):
    """k-means: in each round a centre becomes the mean of itself and its members (our reading of "iterative offset").

    Args:
      points [B, N, 2E, D], centers [B, M, 2E, D]: features of all heads, then their values; features alone decide who
        is a member. Gradients pass through the means and not through the choices.
    Returns: the centres, float32.
    """
    points, centers, e = points.astype(jnp.float32), centers.astype(jnp.float32), points.shape[2] // 2
    for _ in range(rounds):
        _, best = assign(points[:, :, :e], centers[:, :, :e], alpha, beta, similarity)
        member = (best == jnp.arange(centers.shape[1])[:, None]).astype(jnp.float32)
        member = jnp.concatenate([member, member], 1)  # [B, 2E, M, N]
        total = _einsum("bemn,bned->bmed", member, points) + centers
        centers = total / (1.0 + member.sum(-1).swapaxes(1, 2)[..., None])
    return centers


# all digits whatever the compute type: a choice of centre rests on them, and four centres cost next to nothing
_einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


def _cosine(centers, features):
    return _einsum("bmed,bned->bemn", _unit(centers), _unit(features))


def _distance(centers, features):
    """Root of the mean squared difference over channels, [B, E, M, N]; its gradient is finite at zero."""
    centers, features = centers.astype(jnp.float32), features.astype(jnp.float32)
    squares = [jnp.square(x).sum(-1).swapaxes(1, 2) for x in (centers, features)]  # [B, E, M], [B, E, N]
    product = _einsum("bmed,bned->bemn", centers, features)
    mean = (squares[0][..., None] + squares[1][..., None, :] - 2 * product) / centers.shape[-1]
    return jnp.sqrt(jnp.maximum(mean, 1e-12))


def _unit(x):
    """x / max(|x|, 1e-12) over the last axis, with a finite gradient at zero."""
    x = x.astype(jnp.float32)
    return x * lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


def adaptive_pool(x, side: int, pool, reach: float = 0.0):
    """`pool` (jnp.max, jnp.mean) over side x side windows of any map, [B, H, W, C] -> [B, side, side, C].

    Window a of n pixels is floor(a n / side) ... ceil((a + 1) n / side) - 1: neighbours share what does not divide. It
    reaches further by `reach` of its own length at either end, as far as there are pixels.
    """

    def windows(x, axis):
        n = x.shape[axis]
        for a in range(side):
            begin, end = a * n // side, -(-(a + 1) * n // side)  # of integers alone, for n may be a symbol
            if reach:
                begin, end = math.floor((a - reach) * n / side), math.ceil((a + 1 + reach) * n / side)
                begin, end = max(begin, 0), min(end, n)
            yield lax.slice_in_dim(x, begin, end, axis=axis)

    return jnp.stack([jnp.stack([pool(cell, (1, 2)) for cell in windows(row, 2)], 1) for row in windows(x, 1)], 1)


def mean_pool(x, h: int, w: int):
    """Mean over equal cells, [B, H, W, C] -> [B, h, w, C]; H and W must be multiples of h and w."""
    b, height, width, c = x.shape
    return x.reshape(b, h, height // h, w, width // w, c).mean((2, 4))


class CenterOffset(nn.Module):
    """How far each head moves its centres: 4x4 mean pool, MLP D -> int(ratio * D) -> D, adaptive max pool to side^2.

    [B, h, w, E, D] -> [B, side, side, E, D]; one set of weights for all heads, for features and for values.
    """

    ratio: float
    act: str = "gelu"
    dtype: Any = None
    side: int = 2

    @nn.compact
    def __call__(self, x):
        b, h, w, e, d = x.shape
        x = mean_pool(x.reshape(b, h, w, e * d), h // 4, w // 4).reshape(b, h // 4, w // 4, e, d)
        x = activation(self.act)(Dense(int(d * self.ratio), scale=0.02, dtype=self.dtype, name="fc1")(x))
        x = Dense(d, scale=0.02, dtype=self.dtype, name="fc2")(x)
        k = self.side
        return adaptive_pool(x.reshape(b, h // 4, w // 4, e * d), k, jnp.max).reshape(b, k, k, e, d)


class ClusterMixer(nn.Module):
    """Token mixer of the cluster block (the reference's Grouper): [B, h, w, C] -> [B, h, w, C], no residual.

    h and w must be multiples of 4. Features and values come from one matrix product; the input's mean is added first,
    scaled per channel by `gap_scale` (1e-5 at the start). A caller who makes the collection "intermediates" mutable
    finds `assignment` [B, E, h, w] there: which of the centres, in reading order, each position is most like.
    The fields from `centers` on are those of `ModelConfig`, without `center_` and `similarity_` in their names.
    Raises: ValueError for a map whose sides are not multiples of 4.
    """

    heads: int
    head_dim: int = 32
    offset_ratio: float = 1.66
    act: str = "gelu"
    dtype: Any = None
    centers: int = 4
    windows: str = "disjoint"
    offset: str = "mlp"
    similarity: str = "cosine"
    assignment: str = "hard"
    normalization: str = "points"
    slope: float = 1.0

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
        side = math.isqrt(self.centers)
        centers = self._pooled(both.reshape(b, h, w, -1), side).reshape(b, side, side, 2 * e, d)
        if self.offset == "mlp":
            centers = centers + CenterOffset(self.offset_ratio, self.act, self.dtype, side, name="offset")(both)
        centers = centers.reshape(b, self.centers, 2 * e, d)
        points = both.reshape(b, h * w, 2 * e, d)
        alpha = self.param("alpha", nn.initializers.constant(self.slope), ())
        beta = self.param("beta", nn.initializers.zeros, ())
        if self.offset == "iterative":
            centers = refine(points, centers, alpha, beta, self.similarity)
        if self.is_mutable_collection("intermediates"):  # otherwise the program should be the same as without
            best = assign(points[:, :, :e], centers[:, :, :e], alpha, beta, self.similarity)[1]
            self.sow("intermediates", "assignment", best.reshape(b, e, h, w))
        how = self.similarity, self.assignment, self.normalization
        how = (*how, grid(h, w, side)) if self.assignment == "grid" else how
        x = cluster(points[:, :, :e], points[:, :, e:], centers[:, :, :e], centers[:, :, e:], alpha, beta, *how)
        return Dense(c, dtype=self.dtype, name="proj")(x.reshape(b, h, w, e * d))

    def _pooled(self, x, side: int):
        """[B, h, w, C] -> [B, side, side, C]; overlapping windows are twice as long, cut at the border: our reading."""
        if self.windows == "overlapping":
            return adaptive_pool(x, side, jnp.mean, reach=0.5)
        if x.shape[1] % side or x.shape[2] % side:
            return adaptive_pool(x, side, jnp.mean)
        return mean_pool(x, side, side)
