"""The coefficients of GuidedPQF as a file holds them: integers, their one table, and what they cost."""

import functools

import numpy as np

from clic_jax.coding.tables import TOTAL, Table, pmf_table

STEP = 1 / 32  # of the coefficients, which lie within +-0.5
LARGEST = 16  # steps
DECAY = 0.75  # p(k) falls as 0.75^|k|; zeros, which stand for "no correction", are half
FIELD_BITS = 16  # that the filter takes in the header


@functools.cache
def table() -> Table:
    """The table of the integers -16..16, half of the mass on zero."""
    tail = DECAY ** np.abs(np.arange(-float(LARGEST), LARGEST + 1))
    tail[LARGEST] = 0
    pmf = 0.5 * tail / tail.sum()
    pmf[LARGEST] = 0.5
    return pmf_table(pmf, -LARGEST)


def rounded(exact):
    """Exact coefficients as integers, the nearest."""
    return np.round(exact / STEP).astype(np.int32)


def bits(q):
    """Bits of each integer under its table."""
    return -np.log2(table().freq[np.clip(q, -LARGEST, LARGEST) + LARGEST] / TOTAL)


def values(q, maps):
    """Coefficients float32 [1, C, A] from their integers, in the shape that the basis maps [1, h, w, C, A] ask for."""
    return (np.asarray(q).reshape(1, *maps.shape[3:]) * STEP).astype(np.float32)
