"""The picture coded classically at equal quality: kept where that takes fewer bytes than the model's file."""

import math

import numpy as np

from clic_jax import metrics
from clic_jax.coding.codec import Codec
from clic_jax.errors import UserError
from clic_jax.files import classical, streams

NONE = "none"
CHOICES = (NONE, *classical.SCALES)  # what `compress` takes
# A lossless file made quickly of drawn pictures was 1.2 to 2.4 times as large as the one that is kept, 2026-11-28.
QUICK_SHARE = 8
# Where the search begins, at a + b ln(lmbda) of the scale, and how many steps of it make a dB: on Kodak's photographs
# equal quality was within 1 (AVIF) and 2 (WebP) of it at qualities 20 to 80 (experiments/results/kodak).
_BEGIN = {"avif": (52.8, 6.6), "webp": (141, 21.8), "jpegxl": (380, 43.6)}
_STEPS_A_DB = {"avif": 3, "webp": 11, "jpegxl": 23}
_PATIENCE = 5  # steps, after which the search halves what is left
# Steps on either side that are tried in the end: without them AVIF missed its smallest file of text by 1.2 %, and WebP
# its of photographs by up to 5 %; with them neither (10 pictures, all targets, 2026-11-28) but for WebP of noise.
_AROUND, _AROUND_DRAWN = {"avif": 0, "webp": 4, "jpegxl": 4}, 4


class FallbackError(UserError):
    """A fallback that does not exist, or that the model cannot be compared with."""


def check(name: str, codec: Codec) -> str:
    """That name of CHOICES. Raises: FallbackError; MissingCodec where Pillow lacks the codec."""
    if name not in CHOICES:
        raise FallbackError(f"no fallback {name!r}: choose {', '.join(CHOICES)}")
    if name != NONE:
        if codec.config.train.metric != "mse":
            metric = codec.config.train.metric
            raise FallbackError(f"fallback {name} compares squared error, but this model was trained for {metric}")
        for needed in {name, "webp"}:
            classical.version(needed)
    return name


def smallest(name: str, x: np.ndarray, lmbda: float, most_error: int, most_bytes: float) -> tuple[str, bytes] | None:
    """(codec, its stream) of the smallest of less than `most_bytes` bytes and at most `most_error`, or None.

    Lossless WebP is tried beside the codec of that name, one of CHOICES.

    x: uint8 [H, W, 3]. lmbda: of a model that makes about such an error. most_error: as `metrics.squared_error`.
    """
    found, around = None, _AROUND[name]
    if classical.holds("webp", *x.shape[:2]):
        exact = streams.of_file("webp", classical.encode_exactly(x, quick=True))
        if len(exact) < QUICK_SHARE * most_bytes:
            exact, around = streams.of_file("webp", classical.encode_exactly(x)), _AROUND_DRAWN
        if len(exact) < most_bytes:
            found, most_bytes = ("webp", exact), len(exact)
    if classical.holds(name, *x.shape[:2]):
        lossy = _lossy(name, x, lmbda, most_error, most_bytes, around)
        found = found if lossy is None else (name, lossy)
    return found


def _lossy(name: str, x: np.ndarray, lmbda: float, most_error: int, most_bytes: float, around: int) -> bytes | None:
    """The smallest stream of less than `most_bytes` bytes and at most `most_error`, or None.

    Higher qualities make larger files of less error, as a rule. So the search ends, at its first step for most
    photographs, where one that is not good enough is already too large; and otherwise where one is good enough and the
    one below is not, after a look at `around` steps on either side, for exceptions to the rule.
    """
    scale, (first, factor) = classical.SCALES[name], _BEGIN[name]
    low, high, files = -1, len(scale), {}  # steps of the scale: not good enough, good enough; streams of those tried
    at, wanted, slope, before = first + factor * math.log(lmbda), _decibels(most_error, x), _STEPS_A_DB[name], None

    def error_at(step: int) -> int:
        data = streams.of_file(name, classical.encode(name, x, scale[step]))
        error = metrics.squared_error(x, classical.decode(name, data, *x.shape[:2], ours=True))
        files[step] = data, error
        return error

    while high - low > 1:
        at = min(max(math.floor(at), low + 1), high - 1)
        error = error_at(at)
        if error <= most_error:
            high = at
        elif len(files[at][0]) >= most_bytes:
            break
        else:
            low = at
        here, at = (at, _decibels(error, x)), (low + high) / 2
        if len(files) < _PATIENCE:
            if before and (here[0] - before[0]) * (here[1] - before[1]) > 0:
                slope = (here[0] - before[0]) / (here[1] - before[1])
            at, before = here[0] + slope * (wanted - here[1]), here
    else:
        for step in set(range(max(high - around, 0), min(high + around + 1, len(scale)))) - set(files):
            error_at(step)
    fits = [data for data, error in files.values() if error <= most_error and len(data) < most_bytes]
    return min(fits, key=len, default=None)


def _decibels(error: int, x: np.ndarray) -> float:
    """PSNR of a sum of squared differences; 99 at most."""
    return min(10 * math.log10(255**2 * x.size / max(error, 1)), 99.0)
