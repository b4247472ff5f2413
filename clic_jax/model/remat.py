"""Less memory for gradients: a block keeps its input alone, and computes its inside anew when its gradient is due.

This is `nn.remat`, made to work on a CPU as well: there XLA drops the barriers that `jax.checkpoint` sets between the
two computations, finds them equal, and keeps everything after all. A branch of a conditional it leaves alone.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


def block(module: nn.Module, x):
    """module(x), for a module that is bound, has parameters alone and maps one array to one array.

    Where a gradient is taken, its first value decides: if that is not finite, neither are those returned.
    """
    if module.is_initializing():
        return module(x)
    return _apply(module.clone(parent=None, name=None), module.variables["params"], x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(module, params, x):
    return module.apply({"params": params}, x)


def _forward(module, params, x):
    return _apply(module, params, x), (params, x)


def _backward(module, kept, g):
    def pull(kept, g):
        return jax.vjp(lambda *values: module.apply({"params": values[0]}, values[1]), *kept)[1](g)

    def spoiled(kept, g):
        return jax.tree.map(lambda v: jnp.full_like(v, jnp.nan), kept)

    def branch(kept, g):  # the condition is known when the step runs only, so that the branch stays one
        return lax.cond(jnp.isfinite(g[(0,) * g.ndim]), pull, spoiled, kept, g)

    def barrier(kept, g):  # a condition would cost an accelerator a round trip to its host
        return pull(*lax.optimization_barrier((kept, g)))

    return lax.platform_dependent(kept, g, cpu=branch, default=barrier)


_apply.defvjp(_forward, _backward)
