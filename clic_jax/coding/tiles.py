"""Large pictures in overlapping tiles: g_a and g_s see one tile at a time, so that their memory does not grow.

Only the two transforms are tiled. The latents of the whole picture are one array, coded as those of a small one, so a
file does not know about tiles: encoder and decoder may each choose their size, and the symbols are the same. Clustering
and channel attention then look at a tile instead of the picture; neighbouring tiles are cross-faded where they overlap.

    size 10, tile at most 6, overlap 2      |--ramp--|: weights of the two tiles add up to 1
    tile 0   0 1 2 3 4 5
    tile 1           4 5 6 7 8 9            all tiles are equally large: one compiled program serves them all
"""

import math
import numbers
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from clic_jax.errors import UserError

UNIT = 64  # pixels; tiles start and end at multiples of it
OVERLAP = 2 * UNIT  # of neighbours, at least: with it the seams of photographs are within 0.015 dB of the inside
SMALLEST = 4 * UNIT
DEFAULT = 16 * UNIT  # the largest side of a tile


class TileError(UserError):
    """A tile size that cannot be."""


def check(tile: int) -> int:
    """`tile`, the largest side of a tile in pixels. Raises: TileError if it is not a multiple of 64 from 256."""
    if not isinstance(tile, numbers.Integral) or tile < SMALLEST or tile % UNIT:
        raise TileError(f"tile {tile!r} must be a multiple of {UNIT} pixels, {SMALLEST} or more")
    return tile


class Span(NamedTuple):
    """One tile along one axis, in pixels."""

    start: int
    stop: int
    weight: np.ndarray  # float32 [stop - start], its share of each pixel


def spans(size: int, tile: int) -> list[Span]:
    """The tiles along an axis of `size` pixels, a multiple of 64: equally long, at most `tile`, OVERLAP or more shared.

    The weights of all spans add up to 1 at each pixel. A span's outer quarter of an overlap has weight 0, since the
    zero padding of convolutions is felt there.
    """
    if size <= tile:
        return [Span(0, size, np.ones(size, np.float32))]
    count = math.ceil((size - OVERLAP) / (tile - OVERLAP))
    length = math.ceil((size + (count - 1) * OVERLAP) / count / UNIT) * UNIT
    starts = [(size - length) * i // (count - 1) // UNIT * UNIT for i in range(count)]
    rises = [_ramp(before + length - start) for before, start in zip(starts, starts[1:])]
    found = []
    for i, start in enumerate(starts):
        weight = np.ones(length, np.float32)
        if i:
            weight[: len(rises[i - 1])] *= rises[i - 1]
        if i + 1 < count:
            weight[length - len(rises[i]) :] *= 1 - rises[i]
        found.append(Span(start, start + length, weight))
    return found


def _ramp(length: int) -> np.ndarray:
    """From 0 to 1 over the middle half of `length` pixels."""
    return np.clip(2 * (np.arange(length, dtype=np.float32) + 0.5) / length - 0.5, 0, 1)


def grid(height: int, width: int, tile: int) -> Iterator[tuple[Span, Span]]:
    """All tiles of a picture, row by row."""
    columns = spans(width, tile)
    return ((row, column) for row in spans(height, tile) for column in columns)


def run(
    function: Callable[[Span, Span], np.ndarray], height: int, width: int, tile: int, *, stride: int = 1
) -> np.ndarray:
    """The cross-faded results of `function` on each tile: float32 [height / stride, width / stride, C].

    Args:
      function: (rows, columns) -> float32 [h / stride, w / stride, C] of the tile of h x w pixels at these spans.
      height, width: of the picture in pixels, multiples of 64.
      tile: largest side of a tile in pixels.
      stride: pixels of the picture to one element of the result, a divisor of 64.
    """
    total = None
    for rows, columns in grid(height, width, tile):
        part = np.asarray(function(rows, columns))
        if total is None:
            total = np.zeros((height // stride, width // stride, part.shape[-1]), np.float32)
        weight = _mean(rows.weight, stride)[:, None] * _mean(columns.weight, stride)
        where = (slice(s.start // stride, s.stop // stride) for s in (rows, columns))
        total[tuple(where)] += part * weight[..., None]
    return total


def _mean(weight: np.ndarray, stride: int) -> np.ndarray:
    """`weight` of the larger elements of a map with that stride."""
    return weight.reshape(-1, stride).mean(-1)
