"""Integer probability tables, the only form in which the coder ever sees a probability.

The tables of y are the same on every machine: computed from the scales alone with + - * / and rounding, which
IEEE 754 fixes to the last bit (it leaves exp and erfc to each math library; decimal's exp rounds correctly), and then
checked against a hash.
Differs from the reference, whose 16-bit tables come from float32 and the local erfc. NumPy only.
"""

import decimal
import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clic_jax.errors import UserError
from clic_jax.scales import SCALE_TABLE

PRECISION = 24  # frequencies of a table sum to 2**24, the total that constriction works with
TOTAL = 1 << PRECISION
VALUE_MIN, VALUE_MAX = -(1 << 15), (1 << 15) - 1  # what can be coded at all, in a table or past its escape symbol

ASSUMED_WEIGHT = 2048  # symbols that an assumed table counts as, beside those that were seen
HALF_WIDTH_MIN = 16  # of a table, in symbols: real outliers then cost 24 bits in it, for 3e-6 bits a symbol
HALF_WIDTH = {  # and in scales, by the density of y
    "gaussian": 5.3,  # the Gaussian leaves it once in 8.6 million symbols
    "mixed": 10.0,  # the mixture once in 2.8 million
}
TABLES_SHA256 = {
    "gaussian": "4220d39f91d37d5356112776513e3f1c2289442f3203cd4d6a63007971ad3f90",
    "mixed": "4082ac9a5177a9f29179d925d3a953e0793db26ac71c6c9d4a2969b3fb182b29",
}


class TableError(UserError):
    """A probability table that cannot be coded with, or that differs from the one files are written with."""


@dataclass(frozen=True, eq=False)
class Table:
    """Frequencies of the integers first, first + 1, ..., last, and of one escape symbol that stands for all others.

    Attributes:
        first: the smallest integer; it and `last` lie in VALUE_MIN..VALUE_MAX.
        freq: int32 [n + 1], n >= 1, each >= 1, sum 2**24, the escape symbol last. Made read-only.
    Raises: TableError if the frequencies are not such, as after damage to a stored table.
    """

    first: int
    freq: np.ndarray

    def __post_init__(self):
        freq = np.array(self.freq)
        valid = freq.ndim == 1 and freq.size >= 2 and freq.dtype.kind in "iu" and freq.min() >= 1 and freq.max() < TOTAL
        if not valid or freq.sum(dtype=np.int64) != TOTAL:
            raise TableError(f"not a probability table: it needs two or more integers above 0 that sum to {TOTAL}")
        if not VALUE_MIN <= self.first <= self.first + freq.size - 2 <= VALUE_MAX:
            raise TableError(f"a table of {freq.size - 1} integers from {self.first} leaves {VALUE_MIN}..{VALUE_MAX}")
        freq = freq.astype(np.int32)
        freq.flags.writeable = False
        object.__setattr__(self, "first", int(self.first))
        object.__setattr__(self, "freq", freq)

    @property
    def last(self) -> int:
        """The largest integer that has a frequency of its own."""
        return self.first + self.freq.size - 2


def pmf_table(pmf: np.ndarray, first: int) -> Table:
    """The table of a distribution over first, first + 1, ..., first + n - 1.

    Args: pmf: [n] probabilities, sum at most 1 (or 0.1 % over); what they leave of 1 goes to the escape symbol.
    Raises: TableError if they are not probabilities.
    """
    pmf = np.asarray(pmf, np.float64)
    if pmf.ndim != 1 or not pmf.size or not (pmf >= 0).all() or not 0 < (mass := math.fsum(pmf)) <= 1.001:
        raise TableError("not probabilities: they must be 0 or more, and sum to more than 0 and at most 1")
    return Table(first, _quantize(np.append(pmf, max(0.0, 1 - mass))))


@functools.cache
def y_tables(density: str) -> tuple[Table, ...]:
    """One table for each of SCALE_TABLE: symbol k has P(k - 0.5 < Y < k + 0.5) for Y of mean 0 and that scale.

    density: "gaussian", or "mixed", half Gaussian and half Laplace of the same standard deviation
        (`entropy.y_likelihood`).
    Raises: TableError if this machine's arithmetic yields other tables than those that files are written with.
    """
    widths = [max(HALF_WIDTH_MIN, math.ceil(HALF_WIDTH[density] * scale)) for scale in SCALE_TABLE]
    edges = half_normal(np.concatenate([np.arange(0.5, w + 1) / s for w, s in zip(widths, SCALE_TABLE)]))
    tables = []
    for scale, width, edge in zip(SCALE_TABLE, widths, np.split(edges, np.cumsum([w + 1 for w in widths])[:-1])):
        if density == "mixed":
            edge = 0.5 * edge + 0.5 * half_laplace(scale, width + 1)
        side = np.diff(edge)
        tables.append(pmf_table(np.concatenate([side[::-1], [2 * edge[0]], side]), -width))
    if (found := tables_sha256(tables)) != TABLES_SHA256[density]:
        raise TableError(
            "floating-point arithmetic here is not IEEE 754 double precision, so that no file can be read or written "
            f"(tables {found[:8]}, not {TABLES_SHA256[density][:8]}): try another machine, or another build of NumPy"
        )
    return tuple(tables)


def measured_tables(assumed: Sequence[Table], counts: Sequence[Sequence[int]]) -> tuple[Table, ...]:
    """`assumed` tables, symmetric about 0, corrected by how often each symbol was seen in photographs.

    Args: counts: for each table how many symbols were 0, +-1, +-2, ...; both signs then get the same frequency.
    A table weighs as ASSUMED_WEIGHT symbols, so that few symbols change it little. The same on every machine.
    """
    return tuple(_measured(table, seen) if seen else table for table, seen in zip(assumed, counts, strict=True))


def _measured(table: Table, seen: Sequence[int]) -> Table:
    mass, middle = table.freq * (ASSUMED_WEIGHT / TOTAL), -table.first  # sums of multiples of 2^-13: exact
    for k, count in enumerate(seen[: middle + 1]):
        mass[middle + k] += count / 2
        mass[middle - k] += count / 2
    return pmf_table((mass / mass.sum())[:-1], table.first)


def tables_sha256(tables: Sequence[Table]) -> str:
    """Hash of tables in order, as hexadecimal digits; equal if and only if they code alike."""
    digest = hashlib.sha256()
    for table in tables:
        digest.update(np.array([table.first, table.freq.size], "<i4").tobytes() + table.freq.astype("<i4").tobytes())
    return digest.hexdigest()


def half_normal(x: np.ndarray) -> np.ndarray:
    """P(0 < X < x) for a standard normal X, x >= 0, to 1e-15; from 7.5 on it is that of 7.5, within 4e-14 of 1/2.

    Quotient of two series of positive terms, which lose no digits: (x + x^3/3 + x^5/15 + ...) / sqrt(2 pi) over the
    power series of exp(x^2/2) (Marsaglia 2004, with the exponential expanded too).
    """
    x = np.minimum(x, 7.5)
    square = x * x
    numerator = odd = x
    denominator = power = np.ones_like(x)
    for n in range(1, 129):  # the first term left out is below 1e-20 of the sum
        odd = odd * square / (2 * n + 1)
        power = power * square / (2 * n)
        numerator, denominator = numerator + odd, denominator + power
    return numerator / denominator / 2.5066282746310002  # sqrt(2 pi)


def half_laplace(scale: float, count: int) -> np.ndarray:
    """P(0 < X < x) for x = 0.5, 1.5, ..., count of them, and a Laplace X of standard deviation `scale`."""
    with decimal.localcontext(decimal.Context(prec=28)):
        half_steps = decimal.Decimal("0.5").sqrt() / decimal.Decimal(float(scale))  # 0.5 / (scale / sqrt 2)
        tail = float((-half_steps).exp())  # beyond 0.5, twice; each whole step multiplies it by its square
    return 0.5 - 0.5 * np.cumprod(np.concatenate([[tail], np.full(count - 1, tail * tail)]))


def _quantize(p: np.ndarray) -> np.ndarray:
    """Integers >= 1 that sum to TOTAL, in proportion to p [n]: floors, then one more for the largest remainders.

    What would be below 1 gets 1, and the others share the rest in proportion. Ties go to the earlier symbol.
    """
    if p.size >= TOTAL // 2:
        raise TableError(f"{p.size} symbols are too many for {PRECISION}-bit frequencies")
    tiny = np.zeros(p.size, bool)
    while True:
        share = p * ((TOTAL - int(tiny.sum())) / math.fsum(p[~tiny]))  # fsum: np.sum may add in another order elsewhere
        if not (share[~tiny] < 1).any():
            break
        tiny |= share < 1  # raising these to 1 lowers the share of the others a little
    freq = np.where(tiny, 1, np.floor(share)).astype(np.int64)
    remainder = np.where(tiny, -1, share - np.floor(share))
    freq[np.argsort(-remainder, kind="stable")[: TOTAL - freq.sum()]] += 1
    return freq
