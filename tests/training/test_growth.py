"""Trained parameters in a larger model: the same outputs at first, and everything new learns; and in a smaller one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.checkpoints import published
from clic_jax.config import TINY, ConfigError
from clic_jax.model.clic import CLIC, init_params
from clic_jax.training.growth import grown, shrunk
from experiments import experiment
from experiments.train import __main__ as train
from tests.micro import MICRO, MICRO_PAPER
from tests.model.test_clic import random_params

SMALL = dataclasses.replace(MICRO.model, lmbdas=(0.002, 0.01, 0.05))
LARGER = {  # few, as each is a program to compile
    "deeper, and more lmbdas": dict(depths=(3, 2), lmbdas=(0.001, 0.002, 0.01, 0.03, 0.05, 0.2)),
    "wider networks": dict(
        hyper_layers=((20, 2), (8, 2)),
        hyper_decoder_layers=((24, 2), (0, 2)),
        parameter_widths=(24,),
        spatial_ratios=(1.5,),
    ),
    "all of it": dict(
        depths=(2, 2),
        synthesis_depths=(2, 1),
        parameter_widths=(20,),
        spatial_ratios=(2.0,),
        lmbdas=(0.002, 0.01, 0.05, 0.1),
    ),
    "nothing": {},
}


LMBDAS = np.float32([0.002, 0.008, 0.05])


@functools.lru_cache
def program(config):
    """The compiled model."""
    return jax.jit(lambda params, x: CLIC(config).apply({"params": params}, x, LMBDAS))


def check_same(old, new, params, carried=grown):
    """Three noise pictures at three rates give the same in both models."""
    x = jax.random.uniform(jax.random.key(3), (3, 64, 64, 3))
    after = carried(old, params, new)
    a, b = program(old)(params, x), program(new)(after if carried is grown else after[1], x)
    np.testing.assert_allclose(b.x_hat, a.x_hat, atol=2e-5)
    np.testing.assert_allclose(b.bits_y + b.bits_z, a.bits_y + a.bits_z, rtol=1e-4)


@pytest.mark.parametrize("name", LARGER)
def test_the_larger_model_has_the_same_outputs(name):
    params, larger = random_params(SMALL), dataclasses.replace(SMALL, **LARGER[name])
    assert jax.tree.map(jnp.shape, grown(SMALL, params, larger)) == jax.tree.map(jnp.shape, random_params(larger))
    check_same(SMALL, larger, params)


def test_wider_channel_context_has_the_same_outputs():
    narrow = dataclasses.replace(SMALL, channel_layers=((8, 3), (6, 1)))
    wide = dataclasses.replace(SMALL, channel_layers=((12, 3), (6, 1)), spatial_ratios=(1.5,))
    check_same(narrow, wide, random_params(narrow))


def test_the_published_forms_grow_as_well():
    """Checkerboard blocks, several masked convolutions, three hyper decoders, one rate."""
    old = MICRO_PAPER.model
    new = dataclasses.replace(old, depths=(2, 3), spatial_ratios=(2.0, 1.5, 3.0), parameter_widths=(24,))
    check_same(old, new, random_params(old))


def test_what_is_new_can_learn():
    """Every new layer has a gradient, or ends in zeros and gives the layer after it one."""
    larger = dataclasses.replace(SMALL, **LARGER["all of it"])
    params = jax.tree.map(jnp.asarray, grown(SMALL, random_params(SMALL), larger))
    x = jax.random.uniform(jax.random.key(3), (1, 64, 64, 3))

    def cost(params):
        out = CLIC(larger).apply({"params": params}, x, jnp.full(1, 0.07), key=jax.random.key(0))
        return jnp.square(out.x_hat - x).mean() + out.bits_y.sum() / x.size

    slope = jax.jit(jax.grad(cost))(params)
    assert np.abs(slope["g_s"]["stage0"]["block1"]["conv2"]["kernel"]).max() > 0
    assert np.abs(slope["context"]["parameters_1"]["conv1"]["kernel"][16:]).min(-1).max() > 0  # the new hidden units
    assert np.abs(slope["log_gain"][3]).max() > 0


def test_gains_go_on_beyond_the_old_rates():
    """Linear in log lmbda, also where the new anchors leave the old range."""
    params = random_params(SMALL)
    steps = np.log([0.002, 0.01, 0.05])
    params = params | {"log_gain": np.float32(np.outer(steps, np.linspace(0.3, 0.6, 24)))}
    larger = dataclasses.replace(SMALL, lmbdas=(0.0005, 0.004, 0.02, 0.1))
    expected = np.outer(np.log(larger.lmbdas), np.linspace(0.3, 0.6, 24))
    np.testing.assert_allclose(grown(SMALL, params, larger)["log_gain"], expected, rtol=1e-5)


def test_gains_of_another_distortion_keep_their_places():
    """lmbdas of MS-SSIM are a thousand times those of squared error: the same rates, from the lowest to the highest."""
    params = random_params(SMALL)
    for lmbdas, places in (((2.0, 9.0, 60.0), [0, 1, 2]), ((2.0, 4.0, 9.0, 20.0, 60.0), [0, None, 1, None, 2])):
        found = grown(SMALL, params, dataclasses.replace(SMALL, lmbdas=lmbdas))
        for name in ("log_gain", "log_inverse_gain"):
            for row, place in zip(found[name], places, strict=True):
                if place is not None:
                    np.testing.assert_allclose(row, params[name][place], rtol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        dict(depths=(1, 0)),
        dict(synthesis_depths=(1, 0)),
        dict(parameter_widths=(8,)),
        dict(parameter_widths=(16, 16)),
        dict(hyper_layers=((16, 2), (16, 2))),
        dict(mlp_ratio=2.0),
        dict(log_scale=False),
        dict(lmbdas=(0.01,)),
    ],
    ids=str,
)
def test_what_training_may_not_go_on_from(change):
    """Nothing smaller, and nothing that changes what a parameter means: the setting is named."""
    with pytest.raises(ConfigError, match=f"model.{next(iter(change))}"):
        grown(SMALL, random_params(SMALL), dataclasses.replace(SMALL, **change))


def test_density_rounding_and_assignment_are_free():
    params = random_params(SMALL)
    after = grown(SMALL, params, dataclasses.replace(SMALL, density="gaussian", rdoq=0.0, assignment="one"))
    jax.tree.map(np.testing.assert_array_equal, after, params)


@pytest.mark.parametrize("name", LARGER)
def test_shrinking_takes_away_what_growing_added(name):
    """Bit for bit, but for gains that were interpolated twice."""
    params, larger = random_params(SMALL), dataclasses.replace(SMALL, **LARGER[name])
    config, kept = shrunk(larger, grown(SMALL, params, larger), SMALL)
    spelt_out = larger.synthesis_depths and SMALL.depths  # a model that says the depths of g_s says them afterwards
    assert config == dataclasses.replace(SMALL, lmbdas=larger.lmbdas, synthesis_depths=spelt_out)
    again = grown(config, kept, SMALL)
    for gains in ("log_gain", "log_inverse_gain"):
        np.testing.assert_allclose(again.pop(gains), params[gains], rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, again, {part: params[part] for part in again})


@pytest.mark.parametrize("old", [SMALL, MICRO_PAPER.model], ids=["tiny", "paper"])
def test_shrinking_leaves_out_the_last(old):
    """Of a model in which the last blocks and units say nothing the outputs stay, of any other they do not."""
    new = dataclasses.replace(
        old,
        hyper_layers=((12, 2), old.hyper_layers[1]),
        hyper_decoder_layers=((12, 2), old.hyper_decoder_layers[1]),
        parameter_widths=(10,),
        spatial_ratios=(*old.spatial_ratios[:-1], 0.75),
    )
    params = jax.tree.map(np.array, random_params(old))
    config, kept = shrunk(old, params, new)
    assert config == new and jax.tree.map(np.shape, kept) == jax.tree.map(np.shape, random_params(new))
    for name in params.keys() & {"h_a", "h_s", "h_mean_s", "h_scale_s", "h_latent_s"}:
        layer = params[name]["conv1"]
        layer.get("expand", layer)["kernel"][:, :, 12:] = 0
    for k, group in enumerate(old.groups):
        layers = params["context"][f"parameters_{k}"]
        layers["conv1"]["kernel"][10:] = 0
        layers["conv0"]["kernel"][int(0.75 * group) : int(old.spatial_ratios[-1] * group)] = 0
    check_same(old, new, params, shrunk)
    with pytest.raises(AssertionError):
        check_same(old, new, random_params(old), shrunk)


def test_smaller_here_and_larger_there():
    """What both models have goes over; what differs otherwise is refused by name, as for growing."""
    params, other = random_params(SMALL), dataclasses.replace(SMALL, depths=(2, 1), parameter_widths=(8,))
    config, kept = shrunk(SMALL, params, other)
    assert config == dataclasses.replace(SMALL, parameter_widths=(8,))
    found = grown(config, kept, other)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, random_params(other))
    for change in (dict(mlp_ratio=2.0), dict(parameter_widths=(8, 8)), dict(hyper_layers=((16, 2), (16, 2)))):
        other = dataclasses.replace(SMALL, **change)
        with pytest.raises(ConfigError, match=f"model.{next(iter(change))}"):
            grown(*shrunk(SMALL, params, other), other)


def test_the_distilled_tiny_starts_as_part_of_compact():
    """What its recipe trains from: compact's parameters, cut to tiny's shapes, with the gains of tiny's six lmbdas."""
    recipe = experiment.read(str(experiment.CONFIGS / "tiny_distilled.py"))
    assert recipe.model == TINY.model
    found = train.first_params(recipe, None, "clic-compact")
    assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, jax.eval_shape(lambda: init_params(TINY.model)))
    params = published.load_published("clic-compact")[1]
    np.testing.assert_allclose(found["log_gain"], params["log_gain"][1:-1], atol=1e-6)
    for name in ("h_a", "h_s", "prior", "basis_0"):
        jax.tree.map(np.testing.assert_array_equal, found[name], jax.tree.map(np.asarray, params[name]))
    for part in ("g_a", "g_s"):
        kernel = params[part]["stage1"]["block1"]["conv2"]["kernel"]
        np.testing.assert_array_equal(found[part]["stage1"]["block1"]["conv2"]["kernel"], kernel)
    group, half = TINY.model.groups[2], TINY.model.groups[2] // 2
    before = np.asarray(params["context"]["parameters_2"]["conv0"]["kernel"])[:, :128]
    after = found["context"]["parameters_2"]["conv0"]["kernel"]
    np.testing.assert_array_equal(after, np.concatenate([before[:half], before[group:]]))  # neighbours, then support
