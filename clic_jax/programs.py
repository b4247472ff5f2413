"""The compiled functions of one model that coding a picture consists of; nothing else is compiled.

Each is compiled at its first use for a shape and kept on disk by `clic_jax.compilation`. What decides a symbol or a
table takes and gives integers (`clic_jax.fixedpoint`); y and the picture are float32.
"""

import functools

import jax
import jax.numpy as jnp

from clic_jax import pqf
from clic_jax.cdf import SCALE_TABLE, VALUE_MAX, VALUE_MIN
from clic_jax.checkerboard import merge, split
from clic_jax.config import ModelConfig
from clic_jax.context import anchor_step, other_step
from clic_jax.entropy import nearest_or_cheaper
from clic_jax.fixedpoint import Y_BITS, FixedContext, scale_index
from clic_jax.model import CLIC, slices


class Programs:
    """The functions below, with the parameters of one model filled in; sizes are of a batch of one, [1, h, w, C].

    Attributes:
      context: FixedContext; `steps`: its two steps, compiled, for `context.code_slices`.
      features: z int32 -> hyper features int32.
      compile_picture: (shape of z, h, w) -> compiles `feature` for it and `picture` for y_hat [1, h, w, M], once.
    """

    def __init__(self, config: ModelConfig, params, exponents):
        self._model, self._params = CLIC(config), params
        self.context = FixedContext(config, jax.device_get(params), exponents)
        self.features = jax.jit(self.context.features)
        self.compile_picture = functools.cache(self._compile_picture)  # or each decode would lower both again
        self.steps = tuple(
            jax.jit(functools.partial(step, self.context), static_argnums=0) for step in (anchor_step, other_step)
        )

    def transform(self, x, lmbda):
        """x uint8 [1, H, W, 3], a picture or a tile of it -> y float32 [1, H/16, W/16, M] in quantisation steps."""
        return _transform(self._model, self._params, x, lmbda)

    def hyper(self, y, z=None):
        """y -> (its halves, a list of slices of pairs [1, h, w/2, g]; z int32, rounded from h_a's or the given one)."""
        return _hyper(self._model, self._params, y, z)

    def unrounded_z(self, y):
        """y -> z float32."""
        return _unrounded_z(self._model, self._params, y)

    def refined(self, y, z, x, weight, lmbda, steps, count: int):
        """As `refinement.refine`."""
        from clic_jax.refinement import refine  # here, as it takes optax, which else no codec needs

        return refine(self._model, self._params, y, z, x, weight, lmbda, steps, count)

    def feature(self, z):
        """z int32 -> the latent feature for g_s, float32, or None."""
        return _feature(self._model, self._params, z)

    def picture(self, y_hat, feature, lmbda):
        """(Corrected) y_hat float32 of a picture or a tile -> float32 [1, H, W, 3] in [0, 255], not rounded."""
        return _picture(self._model, self._params, y_hat, feature, lmbda)

    def _compile_picture(self, z_shape, h, w):
        c = self._model.config

        def latent(channels):
            return jax.ShapeDtypeStruct((1, h, w, channels), jnp.float32)

        _feature.lower(self._model, self._params, jax.ShapeDtypeStruct(z_shape, jnp.int32)).compile()
        inputs = latent(c.latent_channels), latent(c.feature_channels) if c.feature_channels else None
        _picture.lower(self._model, self._params, *inputs, jax.ShapeDtypeStruct((1,), jnp.float32)).compile()

    def maps(self, y_hat):
        """y_hat float32 -> GuidedPQF's orthonormal basis maps [1, h, w, C, A]."""
        return _maps(self._model, self._params, y_hat)

    def log_inverse_gain(self, lmbda):
        """[1, 1, 1, M], or 0.0 for a fixed-rate model."""
        return _log_inverse_gain(self._model, self._params, lmbda)


@functools.partial(jax.jit, static_argnums=0)
def _transform(model, params, x, lmbda):
    return model.apply({"params": params}, x.astype(jnp.float32) / 255, lmbda, method=CLIC.analyse)[0]


@functools.partial(jax.jit, static_argnums=0)
def _hyper(model, params, y, z):
    z = jnp.round(_unrounded_z(model, params, y) if z is None else z)
    return [split(s) for s in slices(y, model.config.groups)], jnp.clip(z, VALUE_MIN, VALUE_MAX).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def _unrounded_z(model, params, y):
    return model.apply({"params": params}, y, method=CLIC.hyper_analyse)


@functools.partial(jax.jit, static_argnums=0)
def _feature(model, params, z):
    return model.apply({"params": params}, z.astype(jnp.float32), method=CLIC.hyper_features)[1]


@functools.partial(jax.jit, static_argnums=0)
def _picture(model, params, y_hat, feature, lmbda):
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


@functools.partial(jax.jit, static_argnums=0)
def quantise(config, y, mean, raw, gain):
    """One half's y float32 about its mean -> (symbols, table index uint8, y_hat in 1/64): what the encoder does."""
    index, residual = table_index(raw, gain), y - mean.astype(jnp.float32) * 2.0**-Y_BITS
    q = nearest_or_cheaper(config.density, residual, jnp.asarray(SCALE_TABLE, jnp.float32)[index], config.rdoq)
    q = jnp.clip(q, VALUE_MIN, VALUE_MAX).astype(jnp.int32)
    return q, index, dequantise(q, mean)


@jax.jit
def table_index(raw, gain):
    """The scale table of each symbol of a half, uint8."""
    return scale_index(raw, gain).astype(jnp.uint8)


@jax.jit
def dequantise(q, mean):
    """Symbols -> y_hat in 1/64, int32."""
    return (q << Y_BITS) + mean


@jax.jit
def joined(decoded):
    """A list of slices in 1/64 -> y_hat float32 [1, h, w, M] in quantisation steps."""
    return jnp.concatenate(decoded, -1).astype(jnp.float32) * 2.0**-Y_BITS


@jax.jit
def fitted(maps, halves, y_hat):
    """GuidedPQF's exact coefficients [1, C, A] of y, given as halves, in its maps of y_hat."""
    n = maps.shape[3]
    y = jnp.concatenate([merge(*pair) for pair in halves], -1)[..., :n]
    return pqf.fit(maps, y - y_hat[..., :n])


@jax.jit
def corrected(y_hat, maps, coefficients):
    """y_hat with the correction of its first channels added."""
    correction = pqf.apply(maps, coefficients)
    return y_hat + jnp.pad(correction, ((0, 0),) * 3 + ((0, y_hat.shape[-1] - correction.shape[-1]),))
