"""Configs: what the command line may say, what JSON keeps, and which combinations are refused."""

import dataclasses

import pytest

from clic_jax.config import PAPER, PRESETS, ConfigError, ModelConfig, TrainConfig, preset
from clic_jax.settings import from_json, override, to_json


@pytest.mark.parametrize(
    "assignment, section, field, expected",
    [
        ("train.batch=4", "train", "batch", 4),
        (" train.batch = 4 ", "train", "batch", 4),
        ("train.ema=0", "train", "ema", 0.0),
        ("train.learning_rate=3e-4", "train", "learning_rate", 3e-4),
        ("train.pca_start=true", "train", "pca_start", True),
        ("train.pca_start=True", "train", "pca_start", True),
        ("train.metric=ms-ssim", "train", "metric", "ms-ssim"),
        ("train.metric='ms-ssim'", "train", "metric", "ms-ssim"),
        ("model.lmbdas=0.01", "model", "lmbdas", (0.01,)),
        ("model.groups=[64, 64, 192]", "model", "groups", (64, 64, 192)),
        ("model.hyper_layers=((96, 2), [32, 2])", "model", "hyper_layers", ((96, 2), (32, 2))),
    ],
)
def test_override_coerces(assignment, section, field, expected):
    """The value gets the field's type (JSON booleans, bare words, integers for reals, one value for a tuple)."""
    changed = override(PAPER, [assignment])
    value = getattr(getattr(changed, section), field)
    assert value == expected and type(value) is type(expected)
    before = getattr(PAPER, section)
    back = dataclasses.replace(getattr(changed, section), **{field: getattr(before, field)})
    assert back == before and dataclasses.replace(changed, **{section: before}) == PAPER  # and nothing else
    hash(changed)  # a config may be a static argument of jax.jit


def test_override_name():
    assert override(PAPER, ["name=mine"]) == dataclasses.replace(PAPER, name="mine")


def test_assignments_that_need_each_other_are_applied_at_once():
    """Either alone contradicts the rest of the config."""
    both = ["model.widths=(8, 8, 8, 16)", "model.groups=(4, 12)"]
    assert override(PAPER, both).model.groups == (4, 12)
    assert override(PAPER, both[::-1]) == override(PAPER, both)
    for one in both:
        with pytest.raises(ConfigError):
            override(PAPER, [one])


@pytest.mark.parametrize(
    "assignment, words",
    [
        ("train.bacth=4", ["train.bacth", "batch", "learning_rate"]),
        ("model.batch=4", ["model.batch", "widths", "lmbdas"]),
        ("batch=4", ["batch", "name"]),
        ("model=4", ["model", "name"]),
        ("optimizer.b1=4", ["optimizer.b1=4", "section.key=value"]),
        ("train.batch", ["train.batch", "section.key=value"]),
        ("train.batch=many", ["train.batch", "int", "many"]),
        ("train.batch=4.0", ["train.batch", "int", "4.0"]),
        ("train.batch=True", ["train.batch", "int", "True"]),
        ("train.ema=true", ["train.ema", "float", "True"]),
        ("train.pca_start=1", ["train.pca_start", "bool", "1"]),
        ("train.metric=3", ["train.metric", "str", "3"]),
        ("train.batch=(4, 4)", ["train.batch", "int"]),
        ("train.batch=0", ["train.batch", "0"]),
    ],
)
def test_override_names_what_is_wrong(assignment, words):
    with pytest.raises(ConfigError) as error:
        override(PAPER, [assignment])
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name):
    config = override(preset(name), ["train.seed=7", "train.learning_rate=0.00030000000000000003"])
    back = from_json(to_json(config))
    assert back == config and hash(back) == hash(config)


def test_json_of_another_version():
    with pytest.raises(ConfigError, match="sharpness"):
        from_json(to_json(PAPER).replace('"stem_kernel"', '"sharpness"'))
    with pytest.raises(ConfigError, match="train"):
        from_json(to_json(PAPER).replace('"train"', '"training"'))


def test_unknown_preset_lists_those_that_exist():
    with pytest.raises(ConfigError, match="large.*paper.*tiny"):
        preset("large")


@pytest.mark.parametrize(
    "changes, word",
    [
        (dict(depths=(2, 2)), "depths"),
        (dict(synthesis_depths=(2, 2)), "synthesis_depths"),
        (dict(heads=(4, 4, 4, 4, 4)), "heads"),
        (dict(blocks=("conv",)), "blocks"),
        (dict(stem_stride=4), "stride"),
        (dict(groups=(16, 16)), "groups"),
        (dict(lmbdas=()), "lmbdas"),
        (dict(lmbdas=(0.0, 0.1)), "lmbdas"),
        (dict(lmbdas=(0.1, 0.05)), "lmbdas"),
        (dict(lmbdas=(0.1, 0.1)), "lmbdas"),
        (dict(activation="relu"), "activation"),
        (dict(pqf="auto"), "pqf"),
        (dict(channel_support="none"), "channel_support"),
        (dict(blocks=("cluster", "cluster", "attention", "cluster")), "blocks"),
    ],
)
def test_contradicting_models(changes, word):
    with pytest.raises(ConfigError, match=word):
        ModelConfig(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        dict(crop=100),
        dict(crop=0),
        dict(crop=-64),
        dict(metric="psnr"),
        dict(schedule="step"),
        dict(dtype="float16"),
        dict(steps=0),
        dict(steps_per_call=0),
        dict(save_every=-1),
    ],
    ids=str,
)
def test_impossible_training(changes):
    with pytest.raises(ConfigError, match=f"train.{next(iter(changes))}"):
        TrainConfig(**changes)


@pytest.mark.parametrize(
    "name, channels",
    [("paper", 320), ("medium", 256), ("small", 256), ("compact", 192), ("tiny", 192), ("mini", 80)],
)
def test_properties_of_presets(name, channels):
    """All but `paper` serve several rates."""
    assert preset(name).model.latent_channels == channels
    assert preset(name).model.variable_rate == (name != "paper")


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"spatial_ratios": (1.0, 2.0)}, "odd number"),
        ({"spatial_ratios": ()}, "odd number"),
        ({"stem_kernel": 4}, "odd, or equal"),
        ({"pqf_slices": 0}, "at least 1"),
        ({"hyper_decoder_layers": ((192, 1), (0, 2))}, "strides must multiply to 4"),
    ],
)
def test_graphs_that_cannot_work(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(PAPER.model, **changes)


def test_wrong_elements_and_broken_json_are_config_errors():
    for text in ("model.lmbdas=abc", "model.groups=(16,'a')"):
        with pytest.raises(ConfigError):
            override(PAPER, [text])
    with pytest.raises(ConfigError, match="another version"):
        from_json("{")


def test_ms_ssim_needs_large_crops():
    with pytest.raises(ConfigError, match="192 or more, not 128"):
        dataclasses.replace(PAPER.train, metric="ms-ssim", crop=128)
    with pytest.raises(ConfigError, match="192 or more, not 128"):
        dataclasses.replace(PAPER.train, ms_ssim_share=0.1, crop=128)


def test_a_share_of_ms_ssim_is_of_squared_error():
    with pytest.raises(ConfigError, match="a share of the distortion of train.metric=mse"):
        dataclasses.replace(PAPER.train, metric="ms-ssim", ms_ssim_share=0.1)


def test_rdoq_is_not_negative():
    with pytest.raises(ConfigError, match="positive, not -1"):
        dataclasses.replace(PAPER.model, rdoq=-1.0)


@pytest.mark.parametrize(
    "field, value",
    [("grad_clip", 0.0), ("learning_rate", -1.0), ("ema", 2.0), ("ema", 1.0), ("warmup", -5), ("cooldown", 3.0)]
    + [("ms_ssim_share", 1.5), ("final_rate", -0.1), ("learning_rate", float("nan"))],
)
def test_values_with_which_nothing_is_learnt(field, value):
    with pytest.raises(ConfigError, match=f"train.{field} must be"):
        TrainConfig(**{field: value})
