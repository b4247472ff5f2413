"""Which whole step an encoder takes: against a slow loop, and against what training takes."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.coding import rounding
from clic_jax.model.entropy import nearest_or_cheaper
from clic_jax.scales import SCALE_TABLE


def _bits(density, q, scale) -> float:
    """Of a symbol, by the platform's erfc and exp in double precision."""

    def beyond(edge):  # P(Y > edge), edge >= 0
        gaussian = 0.5 * math.erfc(edge / scale / math.sqrt(2))
        return gaussian if density == "gaussian" else 0.5 * gaussian + 0.25 * math.exp(-math.sqrt(2) * edge / scale)

    q = abs(q)
    return -math.log2(max(beyond(q - 0.5) - beyond(q + 0.5) if q else 1 - 2 * beyond(0.5), 1e-9))


@pytest.mark.parametrize("density", ["gaussian", "mixed"])
def test_rounding_against_a_loop(density):
    """Every scale, near and far symbols: the nearest, or the next towards 0 where rate and distortion fall by it."""
    rng = np.random.default_rng(0)
    residual = np.float32(rng.normal(0, 1, (64, 100)) * rng.choice([1, 5, 30], (64, 100)))
    index = np.broadcast_to(np.arange(64)[:, None], residual.shape)
    for energy in (0.0, 6.0, 12.0):
        found = rounding.quantised(residual, index, density, energy)
        for r, q, i in zip(residual.ravel().tolist(), found.ravel(), index.ravel()):
            nearest = round(r)
            closer = nearest - (nearest > 0) + (nearest < 0)
            saved = _bits(density, nearest, SCALE_TABLE[i]) - _bits(density, closer, SCALE_TABLE[i])
            gain = saved - energy * ((r - closer) ** 2 - (r - nearest) ** 2)
            if abs(gain) > 1e-3:
                assert q == (closer if energy and gain > 0 and abs(nearest) <= rounding.LARGEST else nearest)
        np.testing.assert_array_equal(found, rounding.quantised(jnp.asarray(residual), index, density, energy))


@pytest.mark.parametrize("density", ["gaussian", "mixed"])
def test_rounding_is_that_of_training(density):
    """All distances from a symbol, but for float32's rounding of the densities where the choice turns."""
    residual = np.float32(np.linspace(-70, 70, 2001))[:, None] + np.zeros((1, 64), np.float32)
    index = np.broadcast_to(np.arange(64), residual.shape)
    scale = jnp.float32(SCALE_TABLE)[index]
    expected = np.asarray(nearest_or_cheaper(density, jnp.asarray(residual), scale, 10.0))
    found = rounding.quantised(residual, index, density, 10.0)
    assert (found != expected).mean() < 1e-3 and np.abs(found - expected).max() <= 1
