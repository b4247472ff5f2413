"""A block computed anew has the plain block's gradients; a step's multiply-accumulates count the second time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.model import remat
from clic_jax.model.products import correlate
from clic_jax.model.transforms import ConvBlock
from experiments import complexity
from tests.micro import MICRO

BLOCK = ConvBlock(MICRO.model)
X = np.random.default_rng(0).normal(size=(2, 6, 8, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return BLOCK.init(jax.random.key(0), X)


def forward(params, x, *, anew: bool):
    """The block inside another module, as a stage has it."""
    return BLOCK.apply(params, x, method=lambda block, x: remat.block(block, x) if anew else block(x))


def pulled(params, x, g, *, anew: bool):
    return jax.vjp(functools.partial(forward, anew=anew), params, x)[1](g)


def test_values_and_gradients(params):
    np.testing.assert_array_equal(forward(params, X, anew=True), forward(params, X, anew=False))
    plain, anew = (jax.jit(functools.partial(pulled, anew=anew))(params, X, X[::-1]) for anew in (False, True))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), plain, anew)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_hidden(params, value):
    """A training run that has diverged must show it."""
    g = X.copy()
    g[0, 0, 0, 0] = value
    for gradient in jax.tree.leaves(jax.jit(functools.partial(pulled, anew=True))(params, X, g)):
        assert not np.isfinite(gradient).all()


def test_parameters_are_made_as_ever(params):
    made = BLOCK.init(jax.random.key(0), X, method=remat.block)
    jax.tree.map(np.testing.assert_array_equal, made, params)


def test_the_second_time_counts(params):
    """Forward, and for each of two gradients once more: 3 times; anew 4 times. A loop counts each of its rounds."""
    once = complexity.macs(functools.partial(forward, anew=False), params, X)
    for anew, times in ((False, 3), (True, 4)):
        assert complexity.macs(functools.partial(pulled, anew=anew), params, X, X) == times * once
    loop = complexity.macs(lambda x: jax.lax.scan(lambda x, _: (forward(params, x, anew=False), None), x, length=5), X)
    assert loop == 5 * once


def test_branches_count_once():
    """Of the branches of a conditional one runs: the larger is counted."""

    def either(x, flag):
        return jax.lax.cond(flag, lambda x: (x @ x) @ x, lambda x: x @ x, x)

    assert complexity.macs(either, jnp.ones((4, 4)), True) == 2 * 4**3


def test_forms_for_a_platform_count_as_the_default():
    """What a CPU multiplies to avoid a slow form, rows of zeros, is none of the model's."""

    def gradients(x, kernel):
        return jax.vjp(lambda x, k: correlate(x, k, 1, None), x, kernel)[1](x)

    x, kernel = jnp.ones((1, 4, 5, 16)), jnp.ones((3, 3, 16, 16))
    assert complexity.macs(gradients, x, kernel) == 3 * 4 * 5 * 9 * 16 * 16
