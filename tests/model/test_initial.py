"""How parameters are drawn: NumPy's draws, compared with SciPy's distributions, and shapes alone where JAX traces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from clic_jax.model.initial import fan_in_uniform, normal

DRAWS = {
    "uniform": (fan_in_uniform(25), stats.uniform(-0.2, 0.4)),
    "normal": (normal(0.02), stats.norm(0, 0.02)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_distribution(name):
    """That which it says (Kolmogorov-Smirnov), of independent values, as float32."""
    draw, expected = DRAWS[name]
    x = draw(jax.random.key(3), (200, 50))
    assert x.shape == (200, 50) and x.dtype == jnp.float32
    assert stats.kstest(np.ravel(x), expected.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(x[:, :-1].ravel(), x[:, 1:].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("name", DRAWS)
def test_a_key_is_a_draw(name):
    draw, _ = DRAWS[name]
    first, again = (np.asarray(draw(jax.random.key(0), (5, 7))) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for other in (jax.random.key(1), jax.random.fold_in(jax.random.key(0), 1)):
        assert not np.any(first == draw(other, (5, 7)))


@pytest.mark.parametrize("name", DRAWS)
def test_traced_it_has_the_same_shape_and_distribution(name):
    draw, expected = DRAWS[name]
    x = jax.jit(lambda key: draw(key, (200, 50)))(jax.random.key(3))
    assert x.dtype == jnp.float32 and stats.kstest(np.ravel(x), expected.cdf).pvalue > 1e-3


def test_the_values_are_pinned():
    """A seed is the same model on every platform: NumPy's Philox promises its stream."""
    x = fan_in_uniform(1)(jax.random.key(7), (4,))
    np.testing.assert_allclose(x, [-0.65235597, -0.26503503, -0.3597382, -0.08560974], rtol=1e-6)
