"""Qualities: what is allowed, and the trade-offs that they stand for."""

import numpy as np
import pytest

from clic_jax.config import TINY
from clic_jax.quality import Quality, QualityError

LMBDAS = TINY.model.lmbdas


@pytest.mark.parametrize("value", [0, 0.5, 0.99, 100.01, 101, -1, float("nan"), float("inf")])
def test_out_of_range(value):
    with pytest.raises(QualityError, match="choose 1 .* to 100"):
        Quality.of(value)


@pytest.mark.parametrize("hundredths", [0, 99, 10001])
def test_a_file_cannot_hold_others(hundredths):
    with pytest.raises(QualityError):
        Quality(hundredths)


def test_of_numbers():
    assert Quality.of(50) == Quality.of(50.004) == Quality.of(Quality(5000)) == Quality(5000)
    assert float(Quality.of(99.99)) == 99.99 and f"{Quality.of(7.5):g}" == "7.5"
    assert Quality(100) < Quality(101)


def test_lmbda_is_log_linear_between_the_anchors():
    """The anchors lie evenly over 1 to 100, the ends included."""
    for i, anchor in enumerate(LMBDAS):
        place = 1 + 99 * i / (len(LMBDAS) - 1)
        assert Quality.of(place).lmbda(LMBDAS) == pytest.approx(anchor, rel=3e-4)  # to the nearest hundredth
    middle = Quality.of(1 + 99 * 0.5 / (len(LMBDAS) - 1)).lmbda(LMBDAS)
    assert middle == pytest.approx(np.sqrt(LMBDAS[0] * LMBDAS[1]), rel=3e-4)
    assert Quality(100).lmbda(LMBDAS) == pytest.approx(LMBDAS[0]) and Quality(10000).lmbda((0.013,)) == pytest.approx(
        0.013
    )
