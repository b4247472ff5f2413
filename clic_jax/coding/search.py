"""Better latents for one picture than g_a gives, searched for before they are coded: a slower encoder, smaller files.

A trained g_a gives good latents for photographs in general; for the one at hand there are better ones. All that a file
holds is y rounded, so the search moves the values that are rounded: in each step the cost, rate + lmbda * distortion,
and its slope are taken at the rounded latents, and each value moves a share of the way to where a parabola of known
curvature through that slope is lowest. That average of many steps' opinions is then rounded anew, to the nearest step
or the one below where that is worth its bits. A curvature below the true one at first, and small shares at the end, let
latents that depend on each other change together, then settle: annealing without chance. z stays as it is.

Deviates from the paper, which has no such search; the idea of one is Yang et al. 2020, "Improving inference for neural
image compression", whose stochastic Gumbel annealing took fifteen times as many steps for less (docs/results.md).
Decoders do not change and need not know.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax.model.checkerboard import split
from clic_jax.model.clic import CLIC
from clic_jax.model.context import gaussian_scale
from clic_jax.model.entropy import bits, logit_likelihood, nearest_or_cheaper, y_bits
from clic_jax.model.schedule import code_slices, slices

# Bits that one squared step of error is worth, in all channels and at all rates of a trained model: 6 / ln 2 = 8.7 by
# the theory of fine steps, 11 to 12 as measured with clic-compact.
CURVATURE = 12.0
START = 5.5  # the curvature that the first step takes instead; it grows geometrically
SHARES = 0.3, 0.05  # of the way, in the first step and the last; geometrically as well


def search(model: CLIC, params, y, z, x, weight, lmbda, steps: Iterable, count: int):
    """y_hat float32, of shape and unit of y, of the cheapest rounded latents that the search has seen.

    Args:
      y, z: [1, H/16, W/16, M] in quantisation steps, where the search starts, and rounded z [1, H/64, W/64, N].
      x: uint8 [1, H, W, 3]; sides are multiples of 64.
      weight: float32 [H, W], 1 where the error of a pixel counts and 0 where it does not (padding).
      lmbda: float32 [1].
      steps: an iterable of `count` items, one of which is taken before each step, to show progress.
    The same on every call on one machine; the last bits, and by chance a symbol, differ from one machine to the next.
    """
    state = y, y, np.float32(np.inf)
    for i, _ in enumerate(steps):
        done = i / max(count - 1, 1)
        curvature = np.float32(START * (CURVATURE / START) ** done)
        share = np.float32(SHARES[0] * (SHARES[1] / SHARES[0]) ** done)
        state = _step(model, params, state, z, x, weight, lmbda, curvature, share)
    return state[1]


@functools.partial(jax.jit, static_argnums=0)
def _step(model, params, state, z, x, weight, lmbda, curvature, share):
    """(y, best y_hat so far, its cost) after one step."""
    y, best, least = state
    x, z_hat = x.astype(jnp.float32) / 255, z + params["prior"]["median"]

    def cost(moved):
        return model.apply({"params": params}, y, moved, z_hat, x, weight, lmbda, method=_cost)

    (found, y_hat), slope = jax.value_and_grad(cost, has_aux=True)(jnp.zeros_like(y))
    wanted = y_hat - slope / (2 * curvature)
    return y + share * (wanted - y), jnp.where(found < least, y_hat, best), jnp.minimum(found, least)


def _cost(model: CLIC, y, moved, z_hat, x, weight, lmbda):
    """(bits and lmbda * squared error of y rounded, y_hat); `moved`: what is added to y_hat after rounding.

    The slope by `moved` leaves out how a symbol's own bits grow with it, which rounding looks after.
    """
    c = model.config
    logits = model.prior(z_hat)[1]
    features, feature = model.hyper_features(z_hat)
    log_gain, log_inverse = model.gains(lmbda)
    gain_of = slices(log_gain, c.groups) if c.variable_rate else [0.0] * len(c.groups)
    halves, moves = ([split(s) for s in slices(v, c.groups)] for v in (y, moved))
    spent = [bits(logit_likelihood(logits, z_hat)).sum()]

    def code(k, colour, mean, raw):
        scale, fixed = gaussian_scale(c, raw, gain_of[k]), jax.lax.stop_gradient(mean)
        residual = halves[k][colour] - fixed
        q = jax.lax.stop_gradient(nearest_or_cheaper(c.density, residual, scale, CURVATURE))
        # y_hat stays where it is when the mean moves: the symbol moves against it
        spent.append(y_bits(c.density, q + fixed, mean, scale).sum())
        return q + fixed + moves[k][colour]

    y_hat = jnp.concatenate(code_slices(model.context, features, code), -1)
    error = jnp.square(model.synthesise(y_hat, feature, log_inverse) - x).mean(-1)
    return sum(spent) + lmbda[0] * 255**2 * (weight * error).sum(), y_hat
