"""The border between reals and integers: straight-through rounding, additive noise, a bound that gradients cross."""

import jax
import jax.numpy as jnp
from jax import lax


def round_ste(x):
    """Rounds half to even; the gradient is that of the identity."""
    return x + lax.stop_gradient(jnp.round(x) - x)


def uniform_noise(key, shape):
    """U(-0.5, 0.5): what rounding is replaced with where the rate must be differentiable (Balle et al. 2017)."""
    return jax.random.uniform(key, shape, jnp.float32, -0.5, 0.5)


@jax.custom_vjp
def lower_bound(x, bound):
    """max(x, bound), whose gradient also passes below the bound when a descent step would raise x."""
    return jnp.maximum(x, bound)


def _forward(x, bound):
    return lower_bound(x, bound), (x, bound)


def _backward(residuals, g):
    x, bound = residuals
    return jnp.where((x >= bound) | (g < 0), g, 0.0), None


lower_bound.defvjp(_forward, _backward)
