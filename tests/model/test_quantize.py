"""Rounding, noise and the lower bound: values and the gradients that are not those of the value."""

import jax
import numpy as np
import pytest

from clic_jax.model.quantize import lower_bound, round_ste, uniform_noise


def test_round_ste():
    """Halves go to the even neighbour and the result is an exact integer; the gradient is that of the identity."""
    x = np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.1, -0.7, 1234.4, 70000.3])
    np.testing.assert_array_equal(round_ste(x), np.float32([-2, -2, 0, 0, 2, 2, 0, -1, 1234, 70000]))
    cotangent = np.arange(10, dtype=np.float32)
    np.testing.assert_array_equal(jax.grad(lambda x: (round_ste(x) * cotangent).sum())(x), cotangent)


@pytest.mark.parametrize(
    "x, cotangent, passes",
    [(0.5, 1.0, True), (0.5, -1.0, True), (0.1, -1.0, True), (0.1, 1.0, False), (0.25, 1.0, True)],
)
def test_lower_bound(x, cotangent, passes):
    """Below the bound, only a gradient whose descent step raises x passes; at the bound every gradient does."""
    value, pull = jax.vjp(lambda x: lower_bound(x, 0.25), x)
    assert value == max(x, 0.25)
    assert pull(np.float32(cotangent))[0] == (cotangent if passes else 0)


def test_uniform_noise():
    noise = np.asarray(uniform_noise(jax.random.key(0), (100, 50)))
    assert noise.min() >= -0.5 and noise.max() < 0.5
    counts, _ = np.histogram(noise, 10, (-0.5, 0.5))
    assert np.abs(counts - 500).max() < 100  # 4.7 standard deviations
    assert np.abs(np.corrcoef(noise.T) - np.eye(50)).max() < 0.5
