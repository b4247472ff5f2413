"""Shapes of the whole graph by abstract evaluation, and the pieces that the authors' fixtures leave open."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.config import ModelConfig, preset
from clic_jax.model.clic import CLIC, init_params
from clic_jax.model.transforms import PatchStem, Stage


@functools.cache
def abstract_params(name):
    """Shapes of a preset's parameters, as a 64x64 image makes them."""
    model = CLIC(preset(name).model)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)), jnp.ones((1,)))


@pytest.mark.parametrize("dtype, h, w", [(None, 64, 64), (None, 64, 192), (jnp.bfloat16, 256, 320)])
@pytest.mark.parametrize("name", ["paper", "tiny"])
def test_shapes(name, dtype, h, w):
    """y is 1/16, z 1/64 and x_hat the full size, with parameters made at another size; all come out as float32."""
    config = preset(name).model
    x, lmbda = jax.ShapeDtypeStruct((2, h, w, 3), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32)
    out = jax.eval_shape(CLIC(config, dtype).apply, abstract_params(name), x, lmbda)
    for tensor, scale, channels in (
        ("y", 16, config.latent_channels),
        ("y_hat", 16, config.latent_channels),
        ("z", 64, config.hyper_layers[-1][0]),
        ("feature", 16, config.feature_channels),
        ("features", 16, 2 * config.hyper_channels),
    ):
        assert out.tensors[tensor].shape == (2, h // scale, w // scale, channels), tensor
    assert out.tensors["coefficients"].shape == (2, sum(config.groups[: config.pqf_slices]), config.pqf_basis)
    assert out.x_hat.shape == (2, h, w, 3)
    assert out.bits_y.shape == out.bits_z.shape == out.pqf_residual.shape == (2,)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("h, w", [(80, 64), (64, 80)])
@pytest.mark.parametrize("name", ["paper", "tiny"])
def test_sides_that_are_not_multiples_of_64(name, h, w):
    with pytest.raises(ValueError, match="multiples of 64"):
        jax.eval_shape(CLIC(preset(name).model).apply, abstract_params(name), jnp.zeros((1, h, w, 3)), jnp.ones((1,)))


def test_stem_over_patches():
    """With kernel = stride, output (p, q) is a product of the flattened patch (row, column, channel) and the kernel."""
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 5)).astype(np.float32)
    out, variables = PatchStem(7, 4, 4).init_with_output(jax.random.key(0), x)
    conv = variables["params"]["conv"]
    for p in range(2):
        for q in range(3):
            patch = x[:, 4 * p : 4 * p + 4, 4 * q : 4 * q + 4].reshape(2, -1)
            np.testing.assert_allclose(out[:, p, q], patch @ conv["kernel"] + conv["bias"], atol=1e-5)


@pytest.mark.parametrize("checkerboard", [True, False])
def test_odd_cluster_blocks_have_two_branches(checkerboard):
    stage = Stage(ModelConfig(checkerboard_blocks=checkerboard), 0, depth=3)
    params = jax.eval_shape(stage.init, jax.random.key(0), jnp.zeros((1, 8, 8, 32)))["params"]
    branches = ["anchor" in params[f"block{i}"] and "non_anchor" in params[f"block{i}"] for i in range(3)]
    assert branches == [False, checkerboard, False]


def test_gradients_of_empty_maps_are_finite():
    """A black image gives constant features, zero vectors to cluster and pixels without variance."""
    stage = Stage(ModelConfig(heads=(1, 1, 1, 1), head_dim=4, gate_reduction=4), 0, depth=2)
    x, rng = np.zeros((1, 4, 4, 8), np.float32), np.random.default_rng(0)
    shapes = jax.eval_shape(stage.init, jax.random.key(0), x)
    for size in (0.0, 0.3):  # with every parameter at zero as well, and with random ones
        params = jax.tree.map(lambda s: np.float32(size * rng.normal(size=s.shape)), shapes)
        grads = finite_gradients(stage)(params, x)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@functools.cache
def finite_gradients(stage):
    return jax.jit(jax.grad(lambda params, x: jnp.square(stage.apply(params, x) - 1).sum(), (0, 1)))


def test_g_s_may_have_depths_of_its_own():
    """Said or not, they are those of g_a where they are alike."""
    unsaid = dataclasses.replace(preset("tiny").model, depths=(1, 2, 3))

    def blocks(config, part):
        stages = jax.eval_shape(lambda: init_params(config))[part]
        return [sum(name.startswith("block") for name in stages.get(f"stage{i}", ())) for i in range(3)]

    for said, expected in (((), [1, 2, 3]), ((1, 2, 3), [1, 2, 3]), ((2, 0, 1), [2, 0, 1])):
        config = dataclasses.replace(unsaid, synthesis_depths=said)
        assert blocks(config, "g_a") == [1, 2, 3] and blocks(config, "g_s") == expected
