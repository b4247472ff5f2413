"""The latents of one picture improved by gradient descent before they are coded: a slower encoder, smaller files.

A trained g_a gives good latents for photographs in general; for the one at hand there are better ones. y and z start
where g_a and h_a put them and descend on rate + lmbda * distortion of this picture. In place of rounding, which has no
gradient, each value falls to one of its two neighbouring steps with odds that sharpen as the temperature falls
(stochastic Gumbel annealing, Yang et al. 2020, "Improving inference for neural image compression"; deviates from the
paper, which has no such search). Decoders do not change and need not know.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clic_jax.model.checkerboard import split
from clic_jax.model.clic import CLIC, slices
from clic_jax.model.context import code_slices, gaussian_scale
from clic_jax.model.entropy import bits, logit_likelihood, y_bits

RATE = 0.015  # of Adam, in quantisation steps; it falls to 0 linearly
HOT, COLD = 0.4, 0.2  # temperatures at the start and the end, between which they fall geometrically
EDGE = 1e-4  # a value this near to a step has its odds cut off


def refine(model: CLIC, params, y, z, x, weight, lmbda, steps: Iterable, count: int):
    """(y, z) float32 after the search.

    Args:
      y, z: [1, H/16, W/16, M] in quantisation steps and [1, H/64, W/64, N], where the search starts.
      x: uint8 [1, H, W, 3]; sides are multiples of 64.
      weight: float32 [H, W], 1 where the error of a pixel counts and 0 where it does not (padding).
      lmbda: float32 [1].
      steps: an iterable of `count` items, one of which is taken before each step, to show progress.
    The same on every call on one machine; the last bits, and by chance a symbol, differ from one machine to the next.
    """
    state = optax.scale_by_adam().init((y, z)), (y, z)
    for i, _ in enumerate(steps):
        temperature = np.float32(HOT * (COLD / HOT) ** (i / count))
        state = _step(model, params, state, x, weight, lmbda, temperature, np.float32(RATE * (1 - i / count)), i)
    return state[1]


@functools.partial(jax.jit, static_argnums=0)
def _step(model, params, state, x, weight, lmbda, temperature, rate, i):
    moments, latents = state
    x, key = x.astype(jnp.float32) / 255, jax.random.key(i)

    def cost(latents):
        arguments = (*latents, x, weight, lmbda, temperature, key)
        return model.apply({"params": params}, *arguments, method=_cost)

    updates, moments = optax.scale_by_adam().update(jax.grad(cost)(latents), moments)
    return moments, jax.tree.map(lambda v, u: v - rate * u, latents, updates)


def _cost(model: CLIC, y, z, x, weight, lmbda, temperature, key):
    """Bits and lmbda * squared error of latents that fall to steps at random."""
    c = model.config
    z_key, y_key = jax.random.split(key)
    z_hat = _fallen(z, temperature, z_key)
    logits = model.prior(z_hat)[1]
    features, feature = model.hyper_features(z_hat)
    log_gain, log_inverse = model.gains(lmbda)
    gain_of = slices(log_gain, c.groups) if c.variable_rate else [0.0] * len(c.groups)
    halves, spent = [split(s) for s in slices(y, c.groups)], [bits(logit_likelihood(logits, z_hat)).sum()]

    def code(k, colour, mean, raw):
        q = _fallen(halves[k][colour] - mean, temperature, jax.random.fold_in(y_key, 2 * k + colour))
        spent.append(y_bits(c.density, q, 0.0, gaussian_scale(c, raw, gain_of[k])).sum())
        return q + mean

    y_hat = jnp.concatenate(code_slices(model.context, features, code), -1)
    error = jnp.square(model.synthesise(y_hat, feature, log_inverse) - x).mean(-1)
    return sum(spent) + lmbda[0] * 255**2 * (weight * error).sum()


def _fallen(value, temperature, key):
    """`value` drawn towards the step below or above it; a step itself as the temperature goes to 0."""
    below = jax.lax.stop_gradient(jnp.floor(value))
    share = jnp.clip(value - below, EDGE, 1 - EDGE)
    odds = (jnp.arctanh(share) - jnp.arctanh(1 - share)) / temperature
    return below + jax.nn.sigmoid((odds + jax.random.logistic(key, value.shape)) / temperature)
