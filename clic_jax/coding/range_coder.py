"""Symbols to bytes and back: one range-coded stream over many calls, through the constriction library.

Where that is not installed, for it has no wheels for every machine, `plain_coder` does the same, slower.

The stream is a queue: what is encoded first is decoded first, so that the decoder can derive each call's tables from
the symbols of the calls before. Within a call the symbols are coded table by table, in the order of the table index and
then of position, because constriction is fast on runs that share a model (so the bytes do not depend on how tables
alternate, only on each table's own sequence). The escapes of the call follow:

    | table 0: its symbols | table 1: its symbols | ... | 16 bits for each escape symbol |   next call ...

Differs from the reference: integers only, one stream for the picture instead of eleven. NumPy and constriction only.
"""

import functools
from collections.abc import Sequence

import numpy as np

from clic_jax.coding import plain_coder
from clic_jax.coding.tables import PRECISION, TOTAL, VALUE_MAX, VALUE_MIN, Table
from clic_jax.errors import UserError

try:
    import constriction
except ImportError:
    constriction = None

ESCAPE_BITS = 16  # an escaped value is written in full: a shorter code for small excesses would gain nothing noticeable
_queue = constriction.stream.queue if constriction else plain_coder


class StreamError(UserError):
    """A stream that is no encoder's output, or a symbol that no stream can hold."""


class Encoder:
    """Collects the symbols of a picture, call by call; `Decoder` needs the same calls, indexes and tables."""

    def __init__(self):
        self._queue = _queue.RangeEncoder()

    def encode(self, symbols: np.ndarray, index: np.ndarray, tables: Sequence[Table]):
        """Appends symbols [n], integers in VALUE_MIN..VALUE_MAX, the i-th coded with `tables[index[i]]`.

        Args: index: [n], integers in 0..len(tables) - 1.
        Raises: StreamError for a symbol outside its range; ValueError for an index or shape that does not fit.
        """
        order, groups = _groups(index, tables)
        ranks, escaped = _ranks(symbols, order, groups, tables)
        for table, start, stop in groups:
            self._queue.encode(ranks[start:stop], _model(tables[table]))
        if escaped.size:
            self._queue.encode(escaped - VALUE_MIN, _escape())

    def finish(self) -> bytes:
        """The stream so far: 32-bit words, big-endian, less the zero bytes at the end, which `Decoder` puts back.

        Of the numbers that identify the stream, it takes the one with most zeros at its end: 1.7 bytes less on average
        than constriction's own choice, which is a whole word. Big-endian, since these are the low bytes of a word.
        """
        words = self._queue.get_compressed()
        position, (low, span) = self._queue.pos()  # any 64 bits in [low, low + span) may follow the first words
        head, tail = words[:position].astype(">u4").tobytes(), bytes(8)
        for zeros in (56, 48, 40, 32):
            point = -(-low >> zeros) << zeros  # rounded up
            if point < min(low + span, 1 << 64):  # if none is, constriction has carried into `head`: zeros follow
                tail = point.to_bytes(8, "big")
                break
        return (head + tail).rstrip(b"\0")


class Decoder:
    """Takes the symbols out of a stream again, in the order of the encoder's calls."""

    def __init__(self, data: bytes):
        """data: what `Encoder.finish` returned. Anything else is taken, too, and decodes to some symbols or other."""
        self._queue = _queue.RangeDecoder(np.frombuffer(bytes(data) + bytes(-len(data) % 4), ">u4").astype(np.uint32))

    def decode(self, index: np.ndarray, tables: Sequence[Table]) -> np.ndarray:
        """The next len(index) symbols, int32 [n] in VALUE_MIN..VALUE_MAX, for the encoder's `index` and `tables`.

        Time and memory are in proportion to n whatever the data. A damaged or short stream gives wrong symbols as a
        rule, which a checksum over the symbols must tell, and StreamError only where no encoder could have written it.
        Raises: StreamError; ValueError for an index that does not fit the tables.
        """
        order, groups = _groups(index, tables)
        ordered = np.empty(order.size, np.int32)
        escaped = np.zeros(order.size, bool)
        for table, start, stop in groups:
            ranks = self._take(_model(tables[table]), stop - start)
            escaped[start:stop] = ranks == tables[table].freq.size - 1
            ordered[start:stop] = ranks + tables[table].first
        if count := np.count_nonzero(escaped):
            ordered[escaped] = self._take(_escape(), count) + VALUE_MIN
        symbols = np.empty_like(ordered)
        symbols[order] = ordered
        return symbols

    def _take(self, model, count: int) -> np.ndarray:
        try:
            return self._queue.decode(model, count)
        except AssertionError as error:  # how constriction reports the few words that no encoder writes
            raise StreamError("the stream is damaged: it holds words that no encoder writes") from error


def bits(symbols: np.ndarray, index: np.ndarray, tables: Sequence[Table]) -> float:
    """Ideal code length in bits of what `Encoder.encode` would append; same arguments and errors."""
    order, groups = _groups(index, tables)
    ranks, escaped = _ranks(symbols, order, groups, tables)
    length = float(PRECISION * ranks.size + ESCAPE_BITS * escaped.size)
    for table, start, stop in groups:
        length -= np.log2(tables[table].freq[ranks[start:stop]]).sum()
    return length


def least_bits(table: Table) -> float:
    """Bits that a symbol takes at least, on average over many of one table.

    0.0 where a run of the most frequent one can be a number of few digits, as where as much lies below it as above.
    """
    most = int(np.argmax(table.freq))
    below, above = int(table.freq[:most].sum()), int(table.freq[most + 1 :].sum())
    return 0.0 if below == above or not below * above else PRECISION - float(np.log2(table.freq[most]))


def _groups(index: np.ndarray, tables: Sequence[Table]) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """(order [n] that sorts by table and then position, (table, start, stop) of each run in it that is not empty)."""
    index = np.asarray(index)
    fits = index.ndim == 1 and index.dtype.kind in "iu"
    if not fits or index.size and not 0 <= index.min() <= index.max() < len(tables):
        raise ValueError(f"index must be a vector of integers in 0..{len(tables) - 1}, one for each symbol")
    narrow = index.astype(np.uint8 if len(tables) <= 256 else np.uint16 if len(tables) <= 65536 else np.int64)
    order = np.argsort(narrow, kind="stable")  # a radix sort for 8 and 16 bits
    stops = np.cumsum(np.bincount(narrow, minlength=len(tables))).tolist()
    return order, [(t, start, stop) for t, (start, stop) in enumerate(zip([0, *stops], stops)) if start < stop]


def _ranks(symbols, order, groups, tables) -> tuple[np.ndarray, np.ndarray]:
    """(place of each symbol in its table, int32 [n], in coding order; the values of those that are escaped)."""
    symbols = np.asarray(symbols)
    if symbols.shape != order.shape or symbols.dtype.kind not in "iu":
        raise ValueError(f"symbols must be {order.size} integers as index is, not {symbols.dtype} {symbols.shape}")
    if symbols.size and not VALUE_MIN <= symbols.min() <= symbols.max() <= VALUE_MAX:
        raise StreamError(f"symbols reach {symbols.min()}..{symbols.max()}: {VALUE_MIN}..{VALUE_MAX} can be coded")
    ranks = symbols.astype(np.int32)[order]
    escaped = []
    for table, start, stop in groups:
        group, size = ranks[start:stop], tables[table].freq.size - 1
        group -= tables[table].first
        outside = (group < 0) | (group >= size)
        if outside.any():
            escaped.append(group[outside] + tables[table].first)
            group[outside] = size
    return ranks, np.concatenate(escaped) if escaped else np.empty(0, np.int32)


@functools.cache
def _escape():
    """The model of ESCAPE_BITS that may be anything."""
    if not constriction:
        return range(0, TOTAL + 1, TOTAL >> ESCAPE_BITS)
    return constriction.stream.model.Uniform(1 << ESCAPE_BITS)


@functools.lru_cache(4096)
def _model(table: Table):
    """The coder's model with exactly the frequencies of `table`; what follows is about constriction's.

    It gives each of n symbols 1 of 2**24 and shares the rest, 2**24 - n, in proportion to the floats given, adding
    these up and rounding down. That rest is the sum of freq - 1, so those go through exactly: all sums are integers.
    This is how its version 0.5 works, and the requirements hold it there; the tests read every edge back.
    """
    if not constriction:
        return plain_coder.model(table.freq)
    return constriction.stream.model.Categorical(table.freq.astype(np.float64) - 1, perfect=False)
