"""Initial values of parameters. NumPy draws them, where it can: XLA compiles a program for every parameter.

`mini` has 735, and took 68 s to draw on one core; by NumPy 14, nearly all of them for what Flax then computes of
parameters alone, and 1.3 in the same process again. The values are the same on every platform.
"""

import jax
import jax.numpy as jnp
import numpy as np


def uniform(bound: float):
    """Initialiser U(-bound, bound)."""

    def draw(key, shape, dtype=jnp.float32):
        if isinstance(key, jax.core.Tracer):  # whoever traces asks for shapes, or bears what it costs
            return jax.random.uniform(key, shape, dtype, -bound, bound)
        return jnp.asarray(_generator(key).uniform(-bound, bound, shape), dtype)

    return draw


def fan_in_uniform(fan_in: int):
    """Initialiser U(-1/sqrt(fan_in), 1/sqrt(fan_in)), for kernels and biases alike (the published model's)."""
    return uniform(fan_in**-0.5)


def normal(deviation: float):
    """Initialiser N(0, deviation)."""

    def draw(key, shape, dtype=jnp.float32):
        if isinstance(key, jax.core.Tracer):
            return deviation * jax.random.normal(key, shape, dtype)
        return jnp.asarray(_generator(key).normal(0, deviation, shape), dtype)

    return draw


def _generator(key) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.asarray(jax.random.key_data(key)).ravel().tolist()))
