"""CLIC: the transforms, the entropy model and GuidedPQF tied together.

    x -> g_a -> y * gain ----------------> round about mean -> y_hat -> PQF -> / gain -> g_s -> x_hat
                   |                          ^        |                                  ^
                   +-> h_a -> z -> round -> z_hat -> h_s: mean, scale features ------- latent feature

One graph serves training and evaluation. Rates are differentiable where the caller gives a key (noise instead of
rounding); the image is always synthesised from straight-through-rounded values, which are those a file would hold.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from clic_jax.config import ModelConfig
from clic_jax.model import pqf
from clic_jax.model.checkerboard import split
from clic_jax.model.context import ContextModel, gaussian_scale
from clic_jax.model.entropy import FactorizedPrior, bits, logit_likelihood, nearest_or_cheaper, noisy_bits, y_bits
from clic_jax.model.quantize import uniform_noise
from clic_jax.model.schedule import code_slices, slices
from clic_jax.model.transforms import Analysis, HyperAnalysis, HyperSynthesis, Synthesis


class Output(NamedTuple):
    """What the model makes of x [B, H, W, 3]."""

    x_hat: jax.Array  # [B, H, W, 3] float32, not clipped
    bits_y: jax.Array  # [B] bits of y under the model
    bits_z: jax.Array  # [B] bits of z under the model
    pqf_residual: jax.Array  # [B] energy that the filter leaves of y - y_hat, as a share of it; 1 without a filter
    tensors: dict[str, Any]  # intermediate values by their usual names


class CLIC(nn.Module):
    """The codec's network. `model.apply(variables, x, lmbda)` gives an `Output`; sides of x are multiples of 64.

    The smaller methods (`analyse`, `hyper_analyse`, `hyper_features`, `synthesise`, `gains`) are what a codec needs.
    """

    config: ModelConfig
    dtype: Any = None  # compute type of g_a, g_s, h_a; the entropy model stays float32, every digit of it
    remat: bool = False  # less memory and more time for gradients: see TrainConfig

    def setup(self):
        c = self.config
        self.g_a, self.g_s = Analysis(c, self.dtype, self.remat), Synthesis(c, self.dtype, self.remat)
        self.h_a = HyperAnalysis(c, self.dtype)
        if c.shared_hyper_decoder:
            self.h_s = HyperSynthesis(c, 2 * c.hyper_channels + c.feature_channels)
        else:
            self.h_mean_s, self.h_scale_s = HyperSynthesis(c, c.hyper_channels), HyperSynthesis(c, c.hyper_channels)
            if c.feature_channels:
                self.h_latent_s = HyperSynthesis(c, c.feature_channels)
        self.prior = FactorizedPrior()
        self.context = ContextModel(c)
        self.basis = [pqf.Basis(c, g) for g in c.groups[: c.pqf_slices]] if c.pqf != "none" else []
        if c.variable_rate:
            start = 0.5 * np.log(np.asarray(c.lmbdas) / c.reference_lmbda)[:, None]
            shape = (len(c.lmbdas), c.latent_channels if c.gains == "channel" else 1)
            self.log_gain = self.param("log_gain", functools.partial(_filled, jnp.float32(start)), shape)
            if c.gains == "channel":
                inverse = functools.partial(_filled, jnp.float32(-start))
                self.log_inverse = self.param("log_inverse_gain", inverse, shape)

    def __call__(self, x, lmbda=None, lmbdas=None, *, key=None) -> Output:
        """Codes x.

        Args:
          x: [B, H, W, 3] float32 in [0, 1].
          lmbda: [B] rate-distortion trade-off of each sample, within `lmbdas`; ignored by a fixed-rate model.
          lmbdas: [K] anchors of the gains, instead of the values of `config.lmbdas`.
          key: with it, rates learn from values with uniform noise (training); with `rdoq` as well, those of y are
            counted on the rounded values, from which the scales learn. Without it, all rates are of rounded values.
        """
        c = self.config
        # [B, H/16, W/16, M], as h x w below; gains [B, 1, 1, M]
        y, log_inverse, log_gain = self.analyse(x, lmbda, lmbdas)
        z = self.h_a(y)  # [B, h/4, w/4, N]
        z_hat, logits = self.prior(z)
        y_key, z_key = jax.random.split(key) if key is not None else (None, None)
        z_rated = z_hat if key is None else z + uniform_noise(z_key, z.shape)
        z_likelihood = logit_likelihood(logits, z_rated)
        features, feature = self.hyper_features(z_hat)  # [B, h, w, 2C], [B, h, w, F]

        halves = [split(s) for s in slices(y, c.groups)]  # for each slice (anchors, non-anchors), [B, h, w/2, g] each
        noise = None if key is None else [split(s) for s in slices(uniform_noise(y_key, y.shape), c.groups)]
        gain_of = slices(log_gain, c.groups) if c.variable_rate else [0.0] * len(c.groups)
        spent, means, scales = [], [], []

        def code(k, colour, mean, raw):
            value = halves[k][colour]
            scale = gaussian_scale(c, raw, gain_of[k])
            residual = value - mean
            q = nearest_or_cheaper(c.density, *lax.stop_gradient((residual, scale)), c.rdoq)
            y_hat = residual + lax.stop_gradient(q - residual) + mean
            if noise is None:
                cost = y_bits(c.density, y_hat, mean, scale)
            else:
                cost = noisy_bits(c.density, value + noise[k][colour], mean, scale, q if c.rdoq else None)
            spent.append(cost.sum((1, 2, 3)))
            means.append(mean)
            scales.append(scale)
            return y_hat

        decoded = code_slices(self.context, features, code)
        y_hat = jnp.concatenate(decoded, -1)  # slices [B, h, w, g] -> [B, h, w, M]
        corrected, pqf_residual, coefficients = self.filter(y, decoded)
        shown = corrected if c.pqf == "joint" else y_hat
        x_hat = self.synthesise(shown, feature, log_inverse)
        tensors = dict(
            y=y,
            z=z,
            z_hat=z_hat,
            y_hat=y_hat,
            y_hat_corrected=corrected,
            features=features,
            feature=feature,
            coefficients=coefficients,
            z_likelihood=z_likelihood,
            means=means,
            scales=scales,
        )
        return Output(x_hat, sum(spent), bits(z_likelihood).sum((1, 2, 3)), pqf_residual, tensors)

    def analyse(self, x, lmbda=None, lmbdas=None):
        """x -> (y in quantisation steps, log inverse gain, log gain); gains [B, 1, 1, M], 0 for a fixed-rate model."""
        log_gain, log_inverse = self.gains(lmbda, lmbdas)
        return self.g_a(x) * jnp.exp(log_gain), log_inverse, log_gain

    def hyper_analyse(self, y):
        """y in quantisation steps -> z."""
        return self.h_a(y)

    def gains(self, lmbda, lmbdas=None):
        """(log gain, log inverse gain) [B, 1, 1, M] for lmbda [B], linear in log lmbda between the anchors `lmbdas`.

        Source: per-channel gain vectors, Cui et al. 2021 (asymmetric gained deep image compression). Scalar gains: the
        quantiser's step alone changes, Tong et al. 2023 (QVRF). Deviates: h_a and the context networks see y in steps,
        where QVRF has them see y as it is and scales what they predict.
        """
        if not self.config.variable_rate:
            return 0.0, 0.0
        anchors = jnp.log(jnp.float32(self.config.lmbdas if lmbdas is None else lmbdas))
        where = jnp.interp(jnp.log(lmbda), anchors, jnp.arange(len(anchors), dtype=jnp.float32))
        weights = jnp.maximum(
            0.0, 1 - jnp.abs(where[:, None] - jnp.arange(len(anchors)))
        )  # [B, anchors], rows sum to 1
        if self.config.gains == "channel":
            tables = (self.log_gain, self.log_inverse)
        else:
            steps = jnp.broadcast_to(self.log_gain, (len(anchors), self.config.latent_channels))
            tables = (steps, -steps)
        return tuple(jnp.matmul(weights, t, precision=lax.Precision.HIGHEST)[:, None, None] for t in tables)

    def hyper_features(self, z_hat):
        """z_hat [B, h/4, w/4, N] -> (mean and scale features [B, h, w, 2C], latent feature for g_s or None)."""
        c = self.config
        if c.shared_hyper_decoder:
            both, feature = jnp.split(self.h_s(z_hat), [2 * c.hyper_channels], axis=-1)
            return both, feature if c.feature_channels else None
        both = jnp.concatenate([self.h_mean_s(z_hat), self.h_scale_s(z_hat)], -1)
        return both, self.h_latent_s(z_hat) if c.feature_channels else None

    def filter(self, y, decoded):
        """GuidedPQF on y_hat (list of slices).

        Returns: (corrected y_hat, share of the error's energy left [B], coefficients [B, C, A] or None).

        In "auxiliary" form the basis networks learn from that share alone: nothing flows back into y or y_hat.
        """
        y_hat = jnp.concatenate(decoded, -1)
        if self.config.pqf == "none":
            return y_hat, jnp.ones(y.shape[0]), None
        if self.config.pqf == "plain":
            corrected = self.plain_filter(y_hat)
            left, error = (lax.stop_gradient(jnp.square(y - v).sum((1, 2, 3))) for v in (corrected, y_hat))
            return corrected, left / (error + 1e-9), None
        if self.config.pqf == "auxiliary":
            y, decoded = lax.stop_gradient((y, decoded))
        parts, coefficients = [], []
        for basis, value, guide in zip(self.basis, slices(y, self.config.groups), decoded):
            maps = pqf.orthonormal(basis(guide))
            coefficients.append(pqf.fit(maps, value - guide))
            parts.append(pqf.apply(maps, coefficients[-1]))
        corrections = jnp.concatenate(parts, -1)
        n = corrections.shape[-1]
        error = y[..., :n] - jnp.concatenate(decoded, -1)[..., :n]
        left = jnp.square(error - corrections).sum((1, 2, 3)) / (
            lax.stop_gradient(jnp.square(error).sum((1, 2, 3))) + 1e-9
        )
        corrected = y_hat + jnp.pad(corrections, ((0, 0),) * 3 + ((0, y.shape[-1] - n),))
        return corrected, left, jnp.concatenate(coefficients, 1)

    def plain_filter(self, y_hat):
        """y_hat [B, h, w, M] with the correction of a filter that is sent nothing, in its first slices."""
        parts = [basis(guide)[..., 0] for basis, guide in zip(self.basis, slices(y_hat, self.config.groups))]
        correction = jnp.concatenate(parts, -1)
        return y_hat + jnp.pad(correction, ((0, 0),) * 3 + ((0, y_hat.shape[-1] - correction.shape[-1]),))

    def basis_maps(self, y_hat):
        """y_hat [B, h, w, M] -> GuidedPQF's orthonormal basis maps [B, h, w, C, A] of its first C channels."""
        parts = [basis(guide) for basis, guide in zip(self.basis, slices(y_hat, self.config.groups))]
        return pqf.orthonormal(jnp.concatenate(parts, -2))

    def synthesise(self, y_hat, feature, log_inverse=0.0):
        """(Corrected) y_hat and latent feature -> x_hat [B, H, W, 3], not clipped. A plain filter is applied here."""
        y_hat = self.plain_filter(y_hat) if self.config.pqf == "plain" else y_hat
        y_hat = y_hat * jnp.exp(log_inverse)
        return self.g_s(y_hat if feature is None else jnp.concatenate([y_hat, feature], -1))


def _filled(value, key, shape):
    """An initialiser: `value` broadcast to `shape`."""
    return jnp.broadcast_to(value, shape)


def init_params(config: ModelConfig, seed: int = 0):
    """Initial parameters; `initial` says how they are drawn. Of the graph only what sees no input is computed."""
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    lmbda = jax.ShapeDtypeStruct((1,), jnp.float32)
    return CLIC(config).lazy_init(jax.random.key(seed), x, lmbda)["params"]
