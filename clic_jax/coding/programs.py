"""The compiled functions of one model that coding a picture consists of; nothing else is compiled.

Each is compiled at its first use for a shape and kept on disk by `clic_jax.runtime.use_cache`. What decides a symbol or
a table takes and gives integers (`clic_jax.coding.fixedpoint`); y and the picture are float32.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from clic_jax.coding.fixedpoint import Y_BITS, FixedContext, scale_index
from clic_jax.coding.search import search
from clic_jax.coding.tables import VALUE_MAX, VALUE_MIN
from clic_jax.config import ModelConfig
from clic_jax.model import pqf
from clic_jax.model.checkerboard import merge, split
from clic_jax.model.clic import CLIC, slices
from clic_jax.model.context import anchor_step, other_step
from clic_jax.model.entropy import nearest_or_cheaper
from clic_jax.scales import SCALE_TABLE


@dataclasses.dataclass(frozen=True)
class Programs:
    """Compiled functions with one model's parameters filled in; arrays are of a batch of one, [1, h, w, C].

    A caller may replace any of them by its own, to watch or to time it (`dataclasses.replace`).
    """

    # float32: the transforms
    analyse: Callable  # x uint8 [1, H, W, 3], a picture or a tile of it; lmbda [1] -> y in quantisation steps
    hyper: Callable  # y, z or None for h_a's -> (halves of y, a list of pairs [1, h, w/2, g]; z int32)
    feature: Callable  # z int32 -> the latent feature for g_s, or None
    synthesise: Callable  # y_hat (of a tile), feature, lmbda -> [1, H, W, 3] in [0, 255], not rounded
    maps: Callable  # y_hat -> GuidedPQF's orthonormal basis maps [1, h, w, C, A]
    fitted: Callable  # maps, halves of y, y_hat -> the filter's exact coefficients [1, C, A]
    corrected: Callable  # y_hat, maps, coefficients -> y_hat with its first channels corrected
    log_inverse_gain: Callable  # lmbda -> [1, 1, 1, M], or 0.0 for a fixed-rate model
    searched: Callable  # as `search.search`, without its first two arguments

    # integers: what decides a symbol or a table
    context: FixedContext  # the networks, for `model.context.code_slices`
    steps: tuple[Callable, Callable, Callable]  # its two steps and `merge`, compiled, for the same
    features: Callable  # z int32 -> hyper features int32
    quantise: Callable  # half of y, mean, raw scale, gain -> (symbols, table index uint8, y_hat in 1/64)
    table_index: Callable  # raw scale, gain -> the scale table of each symbol, uint8
    dequantise: Callable  # symbols, mean -> y_hat in 1/64
    joined: Callable  # slices in 1/64 -> y_hat float32 [1, h, w, M] in quantisation steps

    compile_picture: Callable  # shape of z, h, w -> compiles `feature` and `synthesise` for y_hat [1, h, w, M], once


def programs(config: ModelConfig, params, exponents: dict, networks: type = FixedContext) -> Programs:
    """The programs of a model.

    Args:
      exponents: of `measured.measure`'s coding data.
      networks: `FixedContext`, or a class with its constructor and methods.
    """
    model = CLIC(config)
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
        steps=(*(jax.jit(functools.partial(s, context), static_argnums=0) for s in (anchor_step, other_step)), merge),
        features=jax.jit(context.features),
        quantise=functools.partial(_quantise, config),
        table_index=_table_index,
        dequantise=_dequantise,
        joined=_joined,
        compile_picture=functools.cache(filled(_compile_picture)),  # or each decode would lower both again
    )


@functools.partial(jax.jit, static_argnums=0)
def _analyse(model, params, x, lmbda):
    return model.apply({"params": params}, x.astype(jnp.float32) / 255, lmbda, method=CLIC.analyse)[0]


@functools.partial(jax.jit, static_argnums=0)
def _hyper(model, params, y, z):
    if z is None:
        z = jnp.round(model.apply({"params": params}, y, method=CLIC.hyper_analyse))
    return [split(s) for s in slices(y, model.config.groups)], jnp.clip(z, VALUE_MIN, VALUE_MAX).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def _feature(model, params, z):
    return model.apply({"params": params}, z.astype(jnp.float32), method=CLIC.hyper_features)[1]


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
    def parts(module):
        return [basis(guide) for basis, guide in zip(module.basis, slices(y_hat, module.config.groups))]

    return pqf.orthonormal(jnp.concatenate(model.apply({"params": params}, method=parts), -2))


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
    q = nearest_or_cheaper(config.density, residual, jnp.asarray(SCALE_TABLE, jnp.float32)[index], config.rdoq)
    q = jnp.clip(q, VALUE_MIN, VALUE_MAX).astype(jnp.int32)
    return q, index, _dequantise(q, mean)


@jax.jit
def _table_index(raw, gain):
    return scale_index(raw, gain).astype(jnp.uint8)


@jax.jit
def _dequantise(q, mean):
    return (q << Y_BITS) + mean


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
