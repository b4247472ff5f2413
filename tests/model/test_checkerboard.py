"""The two colours: the picture, the order inside each half, and the taps that link them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d

from clic_jax.model.checkerboard import TAPS, anchor_mask, merge, split

EVEN = st.integers(1, 4).map(lambda n: 2 * n)
SHAPES = st.tuples(st.integers(1, 2), EVEN, EVEN, st.integers(1, 3))


def picture(mask):
    return ["".join("A" if value else "n" for value in row) for row in mask]


def test_mask():
    assert picture(anchor_mask(4, 5)) == ["AnAnA", "nAnAn", "AnAnA", "nAnAn"]


@settings(max_examples=6, deadline=None, derandomize=True)
@given(SHAPES)
def test_split_takes_the_anchors_in_row_major_order_and_merge_undoes_it(shape):
    b, h, w, c = shape
    x = np.arange(b * h * w * c, dtype=np.float32).reshape(shape)
    anchors, others = split(x)
    for row in range(h):
        for colour, half in ((0, anchors), (1, others)):
            columns = [column for column in range(w) if (row + column) % 2 == colour]
            np.testing.assert_array_equal(half[:, row], x[:, row, columns])
    np.testing.assert_array_equal(merge(anchors, others), x)
    a, n = np.random.default_rng(0).normal(size=(2, b, h, w // 2, c))
    for back, half in zip(split(merge(a, n)), (a, n)):
        np.testing.assert_array_equal(back, half.astype(back.dtype))


def test_taps_link_only_the_two_colours():
    assert picture(TAPS) == ["nAnAn", "AnAnA", "nAnAn", "AnAnA", "nAnAn"]
    anchors = anchor_mask(8, 10)
    reached = correlate2d(anchors.astype(int), TAPS.astype(int), mode="same")
    assert not reached[anchors].any()
    assert reached[~anchors].all() and reached.max() == 12
