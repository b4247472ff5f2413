"""Guided Post-Quantisation Filtering (paper Sec. 3.5): the encoder sends a few numbers that move y_hat back towards y.

A network turns the decoded y_hat into A basis maps for each channel; the encoder fits the residual y - y_hat in their
span, one least-squares problem an image and channel. The correction is added to **y_hat**: what the decoder has.

Without guidance ("plain") there is one map a channel, which is the correction as it is.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from clic_jax.config import ModelConfig
from clic_jax.model.context import ConvStack


class Basis(nn.Module):
    """Basis maps of one slice, y_hat [B, h, w, g] -> [B, h, w, g, A]."""

    config: ModelConfig
    group: int

    @nn.compact
    def __call__(self, y_hat):
        c, g = self.config, self.group
        count = 1 if c.pqf == "plain" else c.pqf_basis
        widths = (*(int(r * g) for r in c.pqf_ratios), count * g)
        maps = ConvStack(tuple((w, 3) for w in widths), c.activation, name="net")(y_hat)
        return maps.reshape(*y_hat.shape, count)


def orthonormal(basis):
    """Gram-Schmidt over the last axis of [B, h, w, C, A], each map to a mean square of 1 over the image.

    A vanishing or dependent map becomes (nearly) zero instead of noise: the fit is regularised. With unit maps and a
    residual of rounding, |residual| <= 0.5, every coefficient lies in [-0.5, 0.5] whatever the network does.
    """
    maps = []
    for a in range(basis.shape[-1]):
        r = basis[..., a]
        energy = jnp.square(r).mean((1, 2), keepdims=True)
        for q in maps:
            r = r - q * (q * r).mean((1, 2), keepdims=True)
        maps.append(r * lax.rsqrt(jnp.square(r).mean((1, 2), keepdims=True) + 1e-7 * energy + 1e-12))
    return jnp.stack(maps, -1)


def fit(maps, residual):
    """Least-squares coefficients [B, C, A] of residual [B, h, w, C] in the orthonormal maps [B, h, w, C, A]."""
    pixels = maps.shape[1] * maps.shape[2]
    return jnp.einsum("bhwca,bhwc->bca", maps, residual, precision=lax.Precision.HIGHEST) / pixels


def apply(maps, coefficients):
    """The correction [B, h, w, C] to add to y_hat."""
    return jnp.einsum("bhwca,bca->bhwc", maps, coefficients, precision=lax.Precision.HIGHEST)
