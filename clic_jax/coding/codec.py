"""Photographs to symbols and back: what encoder and decoder of one model share.

    encode:  x -> y, z (float) -> integers;     decode: integers;     both: integers -> y_hat -> x_hat (float)
    both:    z_hat -> features -> for each slice: anchors, then non-anchors      (fixedpoint, the same functions)

Symbols and tables come from integer arithmetic alone, so a file decodes to the same latents anywhere; the picture made
from them is float32 and may differ in the last bit of a pixel now and then. Memory: the transforms hold one tile
(`clic_jax.coding.tiles`); `tiny` took 60 bytes a pixel to encode 50 megapixels, and 48 to decode them, all told.
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from clic_jax import metrics
from clic_jax.coding import coefficients, filtering, range_coder, stored, tiles
from clic_jax.coding import effort as efforts
from clic_jax.coding.fixedpoint import FixedContext
from clic_jax.coding.programs import Programs
from clic_jax.config import Config
from clic_jax.files import images
from clic_jax.files.container import Desync, checksum
from clic_jax.model.schedule import code_slices
from clic_jax.quality import Quality

STRIDE = 64  # of z: images are padded to multiples of it, their last row and column repeated
Y_STRIDE = 16  # of y


class Coded(NamedTuple):
    """One image as a file holds it."""

    stream: bytes  # z, then y, then the filter's coefficients, range-coded as one
    z_bytes: int  # of the stream that are z's, to the nearest byte
    pqf_bytes: int | None  # those of the coefficients; None where the filter does not pay
    check: int  # checksum of z and y, by which a decoder out of step finds out


class Latents(NamedTuple):
    """What a decoder makes a picture from, and an encoder knows as well."""

    y_hat: Any  # array of the programs, float32 [1, h, w, M] in quantisation steps, corrected where the filter pays
    z: Any  # the same, int32 [1, h/4, w/4, N]
    lmbda: np.ndarray  # float32 [1]


class _Rounded(NamedTuple):
    """y and z rounded, before they are written."""

    halves: list  # y before rounding: for each slice anchors and non-anchors
    latents: Latents  # without a filter
    z: np.ndarray  # int32 [1, h/4, w/4, N]
    coded: list  # (symbols, table index), NumPy arrays, of each half: two a slice


def _computing(method):
    """The method of a `Codec` with the settings that its programs need."""

    @functools.wraps(method)
    def inside(self, *args, **kwargs):
        with self.programs.computing():
            return method(self, *args, **kwargs)

    return inside


class Codec:
    """One published model, ready to code images of any size: `encode`, `read` and `show`.

    Args:
      config, params, model_id: of `checkpoints.published.load_published`.
      data: the coding data of `measured.measure`.
      programs: by default those of JAX, made of all parameters; with others, `params` may be the gains alone.
      networks: for those of JAX, `FixedContext`, or a class like it, to compare with.
      coder: `coding.range_coder`, or anything with its Encoder, Decoder and bits.
      parameters: their number, to tell.
    Raises: OtherArithmetic for a model of another version of the integer arithmetic; UserError for a changed config.
    """

    def __init__(
        self,
        config: Config,
        params,
        model_id: str,
        data: dict,
        *,
        programs: Programs | None = None,
        networks=FixedContext,
        coder=range_coder,
        parameters: int | None = None,
    ):
        stored.check(config.model, data)
        if programs is None:
            from clic_jax.coding import compiled

            programs = compiled.programs(config.model, params, data["exponents"], networks)
        self.config, self.params, self.model_id, self.programs = config, params, model_id, programs
        self.parameters, self.coder, self._c = parameters, coder, config.model
        self.prior, self.tables = stored.stored_tables(data), stored.slice_tables(self._c, data)

    @_computing
    def encode(
        self,
        x: np.ndarray,
        quality: Quality,
        *,
        tile: int = tiles.DEFAULT,
        effort: int = 0,
        watch: Callable[[range], Iterable] = iter,
    ) -> tuple[Coded, Latents]:
        """Codes x uint8 [H, W, 3] at a quality: (what a file holds, what `show` makes a picture of).

        Args:
          tile: largest side in pixels of what g_a and g_s see at once (`tiles.check`); memory grows with its square.
          effort: 0 to 9 (`clic_jax.coding.effort`): from 1 on with a look back at what y shows, from 2 on with a search
            for better latents (`clic_jax.coding.search`), each kept where the real cost falls.
          watch: wraps the range of all steps of the search, to show progress.
        Raises: EffortError.
        """
        count = self.check_effort(effort)
        lmbda, padded = self._lmbda(quality), images.pad_to_multiple(x, STRIDE)
        y = self._transform(padded, lmbda, tile)
        first = self._rounded(y, None, quality)
        if not effort:
            return self._coded(x, first, quality, tile)

        def show(rounded):
            return self.show(rounded.latents, *padded.shape[:2], tile=tile)

        shown, z = show(first), first.latents.z
        # what g_a sees of the error is added to what is coded: rounding the sum leaves less of it
        y = first.latents.y_hat + y - self._transform(shown, lmbda, tile)
        second = self._rounded(y, z, quality)
        found = [(self._cost(x, first, shown), first), (self._cost(x, second, show(second)), second)]
        if count:
            y = self._searched(padded, x.shape, y, z, lmbda, tile, count, watch)
            third = self._rounded(y, z, quality)
            found.append((self._cost(x, third, show(third)), third))
        return self._coded(x, min(found, key=lambda pair: pair[0])[1], quality, tile)

    def _rounded(self, y, z, quality: Quality) -> "_Rounded":
        """The symbols of y and z (int32, or None for h_a's), and what they decode to without a filter."""
        (halves, z), coded = self.programs.hyper(y, z), []

        def code(k, colour, mean, raw, gain):
            q, index, y_hat = self.programs.quantise(halves[k][colour], mean, raw, gain)
            coded.append((q, index))
            return y_hat

        latents = Latents(self.run_schedule(z, quality, code), z, self._lmbda(quality))
        return _Rounded(halves, latents, *self.programs.get((z, coded)))

    def _cost(self, x, rounded: "_Rounded", shown) -> float:
        """Bits of y and lmbda times the squared error of `shown`, the picture of y_hat with its padding."""
        error = metrics.squared_error(x, shown[: x.shape[0], : x.shape[1]])
        spent = (
            self.coder.bits(q.ravel(), index.ravel(), self.tables[i // 2]) for i, (q, index) in enumerate(rounded.coded)
        )
        return float(sum(spent)) + float(rounded.latents.lmbda[0]) * error / 3

    def _coded(self, x, rounded: "_Rounded", quality: Quality, tile: int) -> tuple[Coded, Latents]:
        """As `encode`, from what is rounded."""
        halves, latents, z, coded = rounded
        encoder, z_index = self.coder.Encoder(), self._z_index(z.shape)
        encoder.encode(z.ravel(), z_index, self.prior)
        for i, (q, index) in enumerate(coded):
            encoder.encode(q.ravel(), index.ravel(), self.tables[i // 2])
        check, pqf_bytes = _check([z, *(q for q, _ in coded)]), None
        if self.tries_filter(quality):
            show = functools.partial(self.show, height=x.shape[0], width=x.shape[1], tile=tile)
            if filtered := filtering.fitted(self.programs, self._c, x, halves, latents, show):
                q, latents = filtered
                encoder.encode(q, np.zeros(q.size, np.int64), [coefficients.table()])
                pqf_bytes = round(coefficients.bits(q).sum() / 8)
        z_bytes = round(self.coder.bits(z.ravel(), z_index, self.prior) / 8)
        return Coded(encoder.finish(), z_bytes, pqf_bytes, check), latents

    @_computing
    def read(self, stream: bytes, filtered: bool, check: int, height: int, width: int, quality: Quality) -> Latents:
        """The latents in what `encode` made; `filtered`: it has coefficients of the filter.

        Raises: Desync when the symbols are not those that were encoded; StreamError for a damaged stream.
        """
        shape = self._z_shape(height, width)
        decoder = self.coder.Decoder(stream)
        symbols = [decoder.decode(self._z_index(shape), self.prior).reshape(shape)]
        z = self.programs.put(symbols[0])

        def code(k, colour, mean, raw, gain):
            index = np.asarray(self.programs.table_index(raw, gain))
            symbols.append(decoder.decode(index.ravel(), self.tables[k]).reshape(index.shape))
            return self.programs.dequantise(symbols[-1], mean)

        y_hat = self.run_schedule(z, quality, code)
        if (found := _check(symbols)) != check:
            raise Desync(check, found, self.programs.about())
        if filtered:
            maps = self.programs.maps(y_hat)
            q = decoder.decode(np.zeros(maps.shape[3] * maps.shape[4], np.int64), [coefficients.table()])
            y_hat = self.programs.corrected(y_hat, maps, coefficients.values(q, maps))
        return Latents(y_hat, z, self._lmbda(quality))

    def check_effort(self, effort: int) -> int:
        """Steps of the search at that effort. Raises: EffortError, also if this model is not for squared error."""
        count = efforts.steps(effort)
        if effort and self.config.train.metric != "mse":
            text = f"this model was trained for {self.config.train.metric}: leave the effort at 0"
            raise efforts.EffortError(f"effort {effort} lowers squared error, but {text}")
        if count and self.programs.searched is None:
            raise efforts.EffortError(f"effort {effort} needs the runtime jax")
        return count

    def tries_filter(self, quality: Quality) -> bool:
        """Whether the encoder looks if GuidedPQF pays (`filtering.tried`)."""
        return filtering.tried(self.config, self._lmbda(quality))

    @_computing
    def compile_show(self, height: int, width: int, *, tile: int = tiles.DEFAULT):
        """Compiles what `show` runs for that size: as long as all that `read` compiles, so worth a thread beside it."""
        shape = self._z_shape(height, width)
        rows, columns = next(tiles.grid(STRIDE * shape[1], STRIDE * shape[2], tile))
        self.programs.compile_picture(shape, *((s.stop - s.start) // Y_STRIDE for s in (rows, columns)))

    @_computing
    def show(self, latents: Latents, height: int, width: int, *, tile: int = tiles.DEFAULT) -> np.ndarray:
        """The picture uint8 [height, width, 3]; `tile` as for `encode`, and free to differ from the encoder's."""
        feature = self.programs.feature(latents.z)

        def part(rows, columns):
            y, f = (v if v is None else v[_at_stride(rows, columns)] for v in (latents.y_hat, feature))
            return np.asarray(self.programs.synthesise(y, f, latents.lmbda))[0]

        h, w = (Y_STRIDE * n for n in latents.y_hat.shape[1:3])
        x_hat = tiles.run(part, h, w, tile)
        return np.rint(x_hat, out=x_hat)[:height, :width].astype(np.uint8)

    def _transform(self, padded, lmbda, tile):
        """y float32 [1, h, w, M] of the padded image."""

        def part(rows, columns):
            x = padded[None, rows.start : rows.stop, columns.start : columns.stop]
            return np.asarray(self.programs.analyse(x, lmbda))[0]

        return self.programs.put(tiles.run(part, *padded.shape[:2], tile, stride=Y_STRIDE)[None])

    def _searched(self, padded, shape, y, z, lmbda, tile: int, count: int, watch):
        """y after the search, tile by tile; each writes where it weighs more than its neighbours."""
        y, z = np.array(y), np.asarray(z)
        weight = np.zeros(padded.shape[:2], np.float32)
        weight[: shape[0], : shape[1]] = 1
        spans = list(tiles.grid(*weight.shape, tile))
        steps = iter(watch(range(count * len(spans))))
        for pair in spans:
            here = tuple(slice(s.start, s.stop) for s in pair)
            inside = (_at_stride(*pair), _at_stride(*pair, STRIDE))
            x, some = padded[None, *here], itertools.islice(steps, count)
            found = self.programs.searched(y[inside[0]], z[inside[1]], x, weight[here], lmbda, some, count)
            own = np.ix_(*(s.weight.reshape(-1, Y_STRIDE).mean(1) >= 0.5 for s in pair))
            y[inside[0]][0][own] = np.asarray(found)[0][own]
        next(steps, None)  # or a progress bar would not know that it is complete
        return self.programs.put(y)

    def _lmbda(self, quality: Quality):
        return np.full(1, quality.lmbda(self._c.lmbdas), np.float32)

    def run_schedule(self, z, quality: Quality, code):
        """The shared schedule: y_hat from z and a function (slice, colour, mean, raw scale, gain) -> y_hat in 1/64."""
        gains = np.split(stored.index_gain(self._c, self.params, quality), np.cumsum(self._c.groups)[:-1])

        def step(k, colour, mean, raw):
            return code(k, colour, mean, raw, gains[k])

        decoded = code_slices(self.programs.context, self.programs.features(z), step, self.programs.steps)
        return self.programs.joined(decoded)

    def _z_shape(self, height, width):
        return (1, -(-height // STRIDE), -(-width // STRIDE), len(self.prior))

    def _z_index(self, shape):
        return np.tile(np.arange(shape[-1]), shape[1] * shape[2])


def _at_stride(rows, columns, stride=Y_STRIDE):
    """The index of a tile in y, or in z."""
    return (slice(None), *(slice(s.start // stride, s.stop // stride) for s in (rows, columns)))


def _check(symbols) -> int:
    """The checksum of all symbols in coding order."""
    return checksum(*(v.astype("<i2").tobytes() for v in symbols))
