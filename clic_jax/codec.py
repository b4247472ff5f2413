"""Photographs to symbols and back: the compiled functions of one model that encoder and decoder share.

    encode:  x -> y, z (float) -> integers; decode: integers -> y_hat -> x_hat (float)
    both:    z_hat -> features -> for each slice: anchors, then non-anchors      (fixedpoint, the same functions)

Symbols and tables come from integer arithmetic alone, so a file decodes to the same latents anywhere; the picture made
from them is float32 and may differ in the last bit of a pixel now and then.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax import coder, coding, images, metrics, pqf
from clic_jax.cdf import TOTAL, VALUE_MAX, VALUE_MIN, Table, gaussian_tables, pmf_table
from clic_jax.checkerboard import merge, split
from clic_jax.coder import Decoder, Encoder
from clic_jax.config import Config
from clic_jax.container import Desync, checksum
from clic_jax.context import code_slices
from clic_jax.fixedpoint import Y_BITS, FixedContext, scale_index
from clic_jax.initialization import STEP_AT_UNIT_LMBDA
from clic_jax.model import CLIC, reference_lmbda, slices

STRIDE = 64  # of z: images are padded to multiples of it, their last row and column repeated
COEFFICIENT_STEP = 1 / 32  # of GuidedPQF, whose coefficients lie within +-0.5
COEFFICIENT_DECAY = (
    0.75  # of their probability: p(k) falls as 0.75^|k|; zeros, which stand for "no correction", are half
)


class Coded(NamedTuple):
    """One image as a file holds it."""

    stream: bytes  # z, then y, then the filter's coefficients, range-coded as one
    z_bytes: int  # of the stream that are z's, to the nearest byte
    pqf_bytes: int | None  # those of the coefficients; None where the filter does not pay
    check: int  # checksum of z and y, by which a decoder out of step finds out


class Codec:
    """One published model, ready to code: `encode` and `decode` for one image of any size.

    Functions are compiled at their first use for each padded size.
    """

    def __init__(self, config: Config, params, model_id: str, data: dict):
        self.config, self.params, self.model_id = config, params, model_id
        c = self._c = config.model
        model = CLIC(c)
        fixed = FixedContext(c, jax.device_get(params), data["exponents"])
        self._prior, self._gaussian = coding.stored_tables(data), gaussian_tables()

        def analyse(params, x, lmbda):
            y, z, _, _ = model.apply({"params": params}, x.astype(jnp.float32) / 255, lmbda, method=CLIC.analyse)
            return [split(s) for s in slices(y, c.groups)], jnp.clip(jnp.round(z), VALUE_MIN, VALUE_MAX).astype(
                jnp.int32
            )

        def residual(y, mean):
            q = jnp.round(y - mean.astype(jnp.float32) * 2.0**-Y_BITS)
            return jnp.clip(q, VALUE_MIN, VALUE_MAX).astype(jnp.int32)

        def image(params, y_hat, z, lmbda, correction):
            _, log_inverse = model.apply({"params": params}, lmbda, method=CLIC.gains)
            _, feature = model.apply({"params": params}, z.astype(jnp.float32), method=CLIC.hyper_features)
            y_hat = self._real(y_hat) + correction
            x_hat = model.apply({"params": params}, y_hat, feature, log_inverse, method=CLIC.synthesise)
            return jnp.round(jnp.clip(x_hat, 0, 1) * 255).astype(jnp.uint8)

        def maps(params, y_hat):
            parts = model.apply({"params": params}, self._real(y_hat), method=_basis)
            return pqf.orthonormal(jnp.concatenate(parts, -2))

        self._analyse, self._residual, self._image, self._maps = map(jax.jit, (analyse, residual, image, maps))
        self._correction = jax.jit(lambda maps, coefficients: self._padded(pqf.apply(maps, coefficients)))
        self._fit = jax.jit(pqf.fit)
        self._features = jax.jit(fixed.features)
        self._index = jax.jit(lambda raw, gain: scale_index(raw, gain).astype(jnp.uint8))
        self._context = _Steps(fixed)

    def encode(self, x: np.ndarray, hundredths: int) -> tuple[Coded, np.ndarray]:
        """Codes x uint8 [H, W, 3] at a quality in hundredths: (what a file holds, the image as a decoder shows it)."""
        h, w = x.shape[:2]
        lmbda = self._lmbda(hundredths)
        padded = jnp.asarray(images.pad_to_multiple(x, STRIDE)[None])
        halves, z = self._analyse(self.params, padded, lmbda)
        coded = []

        def code(k, colour, mean, index):
            q = self._residual(halves[k][colour], mean)
            coded.append((q, index))
            return q

        y_hat = self._run(z, hundredths, code)
        z_host, coded = jax.device_get((z, coded))
        encoder, z_index = Encoder(), self._z_index(z_host.shape)
        encoder.encode(z_host.ravel(), z_index, self._prior)
        for q, index in coded:
            encoder.encode(q.ravel(), index.ravel(), self._gaussian)
        check = checksum(*(v.astype("<i2").tobytes() for v in (z_host, *(q for q, _ in coded))))
        shown, pqf_bytes = self._image(self.params, y_hat, z, lmbda, 0.0), None
        if self._c.pqf != "none" and (filtered := self._filtered(x, halves, y_hat, z, lmbda, shown)):
            coefficients, shown = filtered
            encoder.encode(coefficients, np.zeros(coefficients.size, np.int64), [_coefficient_table()])
            pqf_bytes = round(_coefficient_bits(coefficients).sum() / 8)
        z_bytes = round(coder.bits(z_host.ravel(), z_index, self._prior) / 8)
        return Coded(encoder.finish(), z_bytes, pqf_bytes, check), np.array(jax.device_get(shown)[0, :h, :w])

    def decode(self, stream: bytes, filtered: bool, check: int, height: int, width: int, hundredths: int) -> np.ndarray:
        """The image uint8 [height, width, 3] of what `encode` made; `filtered`: it has coefficients of the filter.

        Raises: Desync when the symbols are not those that were encoded; StreamError for a damaged stream.
        """
        h, w = (-(-n // STRIDE) for n in (height, width))
        lmbda, decoder = self._lmbda(hundredths), Decoder(stream)
        shape = (1, h, w, len(self._prior))
        symbols = [decoder.decode(self._z_index(shape), self._prior).reshape(shape)]
        z = jnp.asarray(symbols[0])

        def code(k, colour, mean, index):
            index = np.asarray(index)
            symbols.append(decoder.decode(index.ravel(), self._gaussian).reshape(index.shape))
            return jnp.asarray(symbols[-1])

        y_hat = self._run(z, hundredths, code)
        if (found := checksum(*(v.astype("<i2").tobytes() for v in symbols))) != check:
            raise Desync(check, found, f"jax {jax.__version__}, {jax.default_backend()}")
        correction = 0.0
        if filtered:
            maps = self._maps(self.params, y_hat)
            q = decoder.decode(np.zeros(maps.shape[3] * maps.shape[4], np.int64), [_coefficient_table()])
            correction = self._correction(maps, _coefficients(q, maps))
        shown = jax.device_get(self._image(self.params, y_hat, z, lmbda, correction))
        return np.array(shown[0, :height, :width])

    def _lmbda(self, hundredths: int):
        return jnp.full(1, coding.quality_lmbda(self._c, hundredths), jnp.float32)

    def _run(self, z, hundredths: int, code):
        """The shared schedule: y_hat from z and a function (slice, colour, mean, table index) -> symbols, all int32."""
        gains = np.split(coding.index_gain(self._c, self.params, hundredths), np.cumsum(self._c.groups)[:-1])

        def step(k, colour, mean, raw):
            return (code(k, colour, mean, self._index(raw, gains[k])) << Y_BITS) + mean

        return jnp.concatenate(code_slices(self._context, self._features(z), step), -1)

    def _filtered(self, x, halves, y_hat, z, lmbda, plain):
        """(coefficients in steps, corrected image) where the filter lowers rate + lmbda * distortion of the file, or
        None."""
        maps = self._maps(self.params, y_hat)
        n = maps.shape[3]
        y = jnp.concatenate([merge(*pair) for pair in halves], -1)[..., :n]
        exact = np.asarray(self._fit(maps, y - self._real(y_hat)[..., :n]))
        weight = float(lmbda[0]) * 255**2 / 3 * maps.shape[1] * maps.shape[2]  # bits that one unit of energy is worth
        step = self._energy(lmbda, n)[..., None]
        q = np.round(exact / COEFFICIENT_STEP).astype(np.int32)
        gained = (exact**2 - (exact - q * COEFFICIENT_STEP) ** 2) * step * weight
        cost = _coefficient_bits(q) - _coefficient_bits(np.zeros_like(q))
        q = np.where(gained > cost, q, 0)
        if not q.any():
            return None
        correction = self._correction(maps, _coefficients(q, maps))
        corrected = self._image(self.params, y_hat, z, lmbda, correction)
        h, w = x.shape[:2]  # of the image itself: what the filter does to the padding is nobody's gain
        before, after = (metrics.mse(x, np.asarray(v)[0, :h, :w]) for v in (plain, corrected))
        gain = float(lmbda[0]) * (before - after) * h * w
        return (q.ravel(), corrected) if gain > _coefficient_bits(q).sum() + 16 else None  # 16: its field in the header

    def _energy(self, lmbda, n):
        """Squared size of one step of each of the first n channels of y_hat in pixels of [0, 1]: [1, n]."""
        _, log_inverse = CLIC(self._c).apply({"params": self.params}, lmbda, method=CLIC.gains)
        step = STEP_AT_UNIT_LMBDA**2 / reference_lmbda(self._c)
        return (
            step * np.exp(2 * np.broadcast_to(np.asarray(log_inverse), (1, 1, 1, self._c.latent_channels)))[0, 0, :, :n]
        )

    def _padded(self, correction):
        return jnp.pad(correction, ((0, 0),) * 3 + ((0, self._c.latent_channels - correction.shape[-1]),))

    def _z_index(self, shape):
        return np.tile(np.arange(shape[-1]), shape[1] * shape[2])

    @staticmethod
    def _real(y_hat):
        return y_hat.astype(jnp.float32) * 2.0**-Y_BITS


class _Steps:
    """`FixedContext` with each step compiled: what encoder and decoder both call."""

    def __init__(self, fixed: FixedContext):
        self.config = fixed.config
        self.support = jax.jit(fixed.support, static_argnums=0)
        self.neighbours = jax.jit(fixed.neighbours, static_argnums=0)
        self.distribution = jax.jit(fixed.distribution, static_argnums=0)


def _basis(model: CLIC, y_hat):
    """The basis maps of the filtered slices, [B, h, w, g, A] each."""
    return [basis(guide) for basis, guide in zip(model.basis, slices(y_hat, model.config.groups))]


@functools.cache
def _coefficient_table() -> Table:
    """Integers -16..16 of the filter's coefficients, half of the mass on zero."""
    tail = COEFFICIENT_DECAY ** np.abs(np.arange(-16.0, 17.0))
    tail[16] = 0
    pmf = 0.5 * tail / tail.sum()
    pmf[16] = 0.5
    return pmf_table(pmf, -16)


def _coefficient_bits(q):
    """Bits of each coefficient under its table; q integers within +-16."""
    return -np.log2(_coefficient_table().freq[np.clip(q, -16, 16) + 16] / TOTAL)


def _coefficients(q, maps):
    """Coefficients [1, C, A] from their integers."""
    return jnp.asarray(np.asarray(q).reshape(1, *maps.shape[3:]) * COEFFICIENT_STEP, jnp.float32)
