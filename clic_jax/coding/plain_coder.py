"""constriction's range coder in Python, word for word, for machines that have no wheel of it: Linux on ARM, say.

A number below 1, in 32-bit words, is narrowed down symbol by symbol: `low` is where the interval starts that is left,
`span` its width, both 64 bits after the words that are settled. Differs from the library in speed alone.
"""

from bisect import bisect_right
from itertools import accumulate, islice

import numpy as np

from clic_jax.coding.tables import PRECISION

_WORD, _STATE = 32, 64
_MASK, _LEAST = (1 << _STATE) - 1, 1 << _WORD  # the least span that a symbol is coded in


def model(freq) -> list[int]:
    """[0, freq[0], freq[0] + freq[1], ..., 2**24]: how a table is handed to `encode` and `decode`."""
    return [0, *accumulate(int(f) for f in freq)]


class RangeEncoder:
    """As `constriction.stream.queue.RangeEncoder`, for tables of `model`."""

    def __init__(self):
        self._words, self._low, self._span = [], 0, _MASK

    def encode(self, ranks: np.ndarray, edges: list[int]):
        """Appends symbols, each given by its place in the table."""
        words, low, span = self._words, self._low, self._span
        for rank in ranks.tolist():
            unit = span >> PRECISION
            low += unit * edges[rank]
            span = unit * (edges[rank + 1] - edges[rank])
            if low > _MASK:
                low &= _MASK
                _carry(words)
            if span < _LEAST:
                words.append(low >> _WORD)
                low, span = low << _WORD & _MASK, span << _WORD
        self._low, self._span = low, span

    def pos(self) -> tuple[int, tuple[int, int]]:
        """(count of words that are settled, (low, span)); low + span may exceed 64 bits."""
        return len(self._words), (self._low, self._span)

    def get_compressed(self) -> np.ndarray:
        """uint32: the settled words, with what the end carries into them."""
        words = self._words.copy()
        if self._low > _MASK - _LEAST + 1:  # no multiple of a word's size is left below the carry
            _carry(words)
        return np.array(words, np.uint32)


def _carry(words: list[int]):
    """Adds 1 to the number that the words spell."""
    last = len(words) - 1
    while words[last] == 0xFFFFFFFF:
        words[last] = 0
        last -= 1
    words[last] += 1


class RangeDecoder:
    """As `constriction.stream.queue.RangeDecoder`, for tables of `model`."""

    def __init__(self, words: np.ndarray):
        self._words = iter(words.tolist())
        self._point, self._span = 0, _MASK  # the point is counted from where the interval starts
        for word in (*islice(self._words, 2), 0, 0)[:2]:
            self._point = self._point << _WORD | word

    def decode(self, edges: list[int], count: int) -> np.ndarray:
        """The next `count` symbols, each as its place in the table: int32 [count].

        Raises: AssertionError, as the library does, for words that no encoder writes.
        """
        ranks, point, span, words = [], self._point, self._span, self._words
        for _ in range(count):
            unit = span >> PRECISION
            quantile = point // unit
            if quantile >> PRECISION:
                raise AssertionError("no encoder writes this")
            rank = bisect_right(edges, quantile) - 1
            ranks.append(rank)
            point -= unit * edges[rank]
            span = unit * (edges[rank + 1] - edges[rank])
            if span < _LEAST:
                point, span = point << _WORD | next(words, 0), span << _WORD
        self._point, self._span = point, span
        return np.array(ranks, np.int32)
