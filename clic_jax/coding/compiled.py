"""The `Programs` of one model in JAX: all that coding a picture compiles.

Each is compiled at its first use for a shape and kept on disk by `clic_jax.runtime.use_cache`. What decides a symbol or
a table takes and gives integers (`clic_jax.coding.fixedpoint`); y and the picture are float32.
"""

import functools

import jax
import jax.numpy as jnp

from clic_jax import runtime
from clic_jax.coding.fixedpoint import Y_BITS, FixedContext, scale_index
from clic_jax.coding.programs import Programs
from clic_jax.coding.rounding import quantised
from clic_jax.coding.search import search
from clic_jax.coding.tables import VALUE_MAX, VALUE_MIN
from clic_jax.config import ModelConfig
from clic_jax.model import pqf
from clic_jax.model.checkerboard import merge, split
from clic_jax.model.clic import CLIC
from clic_jax.model.schedule import anchor_step, other_step, slices


@runtime.computing()
def programs(config: ModelConfig, params, exponents: dict, networks: type = FixedContext) -> Programs:
    """The programs of a model, compiled at the first use for a shape.

    Args:
      exponents: of `measured.measure`'s coding data.
      networks: `FixedContext`, or a class with its constructor and methods.
    """
    # uncommitted arrays: those that come from a checkpoint are bound to their device, and compile a second time
    model, params = CLIC(config), jax.device_put(jax.device_get(params))
    context = networks(config, jax.device_get(params), exponents)

    def filled(function):
        return functools.partial(function, model, params)

    return Programs(
        analyse=filled(_analyse),
        hyper=filled(_hyper),
        feature=filled(_feature),
        synthesise=filled(_synthesise),
        maps=filled(_maps),
        fitted=_fitted,
        corrected=_corrected,
        log_inverse_gain=filled(_log_inverse_gain),
        searched=filled(search),
        context=context,
        steps=(*(jax.jit(functools.partial(s, context), static_argnums=0) for s in (anchor_step, other_step)), _merge),
        features=jax.jit(context.features),
        quantise=functools.partial(_quantise, config),
        table_index=_table_index,
        dequantise=_dequantise,
        joined=_joined,
        put=jax.device_put,  # jnp.asarray would compile a program for each shape
        get=jax.device_get,
        computing=runtime.computing,
        about=lambda: f"jax {jax.__version__}, {jax.default_backend()}",
        compile_picture=functools.cache(filled(_compile_picture)),  # or each decode would lower both again
    )


@functools.partial(jax.jit, static_argnums=0)
def _analyse(model, params, x, lmbda):
    return model.apply({"params": params}, x.astype(jnp.float32) / 255, lmbda, method=CLIC.analyse)[0]


@functools.partial(jax.jit, static_argnums=0)
def _hyper(model, params, y, z):
    if z is None:
        z = model.apply({"params": params}, y, method=CLIC.hyper_analyse)
        z = jnp.round(z - params["prior"]["median"])
    return [split(s) for s in slices(y, model.config.groups)], jnp.clip(z, VALUE_MIN, VALUE_MAX).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def _feature(model, params, z):
    z_hat = z + params["prior"]["median"]
    return model.apply({"params": params}, z_hat, method=CLIC.hyper_features)[1]


@functools.partial(jax.jit, static_argnums=0)
def _synthesise(model, params, y_hat, feature, lmbda):
    _, log_inverse = model.apply({"params": params}, lmbda, method=CLIC.gains)
    x_hat = model.apply({"params": params}, y_hat, feature, log_inverse, method=CLIC.synthesise)
    return jnp.clip(x_hat * 255, 0, 255)


@functools.partial(jax.jit, static_argnums=0)
def _log_inverse_gain(model, params, lmbda):
    return model.apply({"params": params}, lmbda, method=CLIC.gains)[1]


@functools.partial(jax.jit, static_argnums=0)
def _maps(model, params, y_hat):
    return model.apply({"params": params}, y_hat, method=CLIC.basis_maps)


def _compile_picture(model, params, z_shape, h, w):
    c = model.config

    def latent(channels):
        return jax.ShapeDtypeStruct((1, h, w, channels), jnp.float32)

    _feature.lower(model, params, jax.ShapeDtypeStruct(z_shape, jnp.int32)).compile()
    inputs = latent(c.latent_channels), latent(c.feature_channels) if c.feature_channels else None
    _synthesise.lower(model, params, *inputs, jax.ShapeDtypeStruct((1,), jnp.float32)).compile()


@functools.partial(jax.jit, static_argnums=0)
def _quantise(config, y, mean, raw, gain):
    index, residual = _table_index(raw, gain), y - mean.astype(jnp.float32) * 2.0**-Y_BITS
    q = quantised(residual, index, config.density, config.rdoq).astype(jnp.int32)
    return q, index, _dequantise(q, mean)


@jax.jit
def _table_index(raw, gain):
    return scale_index(raw, gain).astype(jnp.uint8)


@jax.jit
def _dequantise(q, mean):
    return (q << Y_BITS) + mean


_merge = jax.jit(merge)


@jax.jit
def _joined(decoded):
    return jnp.concatenate(decoded, -1).astype(jnp.float32) * 2.0**-Y_BITS


@jax.jit
def _fitted(maps, halves, y_hat):
    n = maps.shape[3]
    y = jnp.concatenate([merge(*pair) for pair in halves], -1)[..., :n]
    return pqf.fit(maps, y - y_hat[..., :n])


@jax.jit
def _corrected(y_hat, maps, coefficients):
    correction = pqf.apply(maps, coefficients)
    return y_hat + jnp.pad(correction, ((0, 0),) * 3 + ((0, y_hat.shape[-1] - correction.shape[-1]),))
