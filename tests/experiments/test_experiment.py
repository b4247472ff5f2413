"""Which experiment a command line means."""

import dataclasses
import json

import pytest

from clic_jax import config, settings
from clic_jax.checkpoints import installed, published
from experiments import experiment
from experiments.train import __main__ as train
from experiments.train import options
from tests.micro import EXPERIMENT, MICRO


@pytest.mark.parametrize("name", [name for name in config.PRESETS if name != "paper"])
def test_a_preset_and_its_file_are_one(name):
    assert experiment.named(name) == experiment.named(str(experiment.CONFIGS / f"{name}.py")) == config.preset(name)


def test_neither_file_nor_preset():
    with pytest.raises(config.ConfigError, match="no preset 'micro'; there are paper, medium, small, compact, tiny"):
        experiment.named("micro")
    with pytest.raises(config.ConfigError, match="no experiment file micro.py; .*tiny.py"):
        experiment.named("micro.py")


@pytest.mark.parametrize("name", installed.installed())
def test_weights_in_the_box_go_on_as_their_experiment(name):
    """`--init NAME` alone: the experiment file of that name, whose model is the weights'."""
    file = experiment.CONFIGS / f"{name.removeprefix('clic-').replace('-', '_')}.py"
    recipe = experiment.named(str(file))
    assert options.chosen(train.parse(["--init", name])) == recipe
    assert published.load_published(name)[0].model == recipe.model


def test_other_weights_go_on_as_they_were_trained(published_micro, tmp_path):
    assert options.chosen(train.parse(["--init", str(published_micro)])).model == MICRO.model
    changed = dataclasses.replace(MICRO.model, mlp_ratio=3.0)
    (tmp_path / "micro.py").write_text(EXPERIMENT)
    args = ["--init", str(published_micro), "--config", str(tmp_path / "micro.py"), "--set", "model.mlp_ratio=3.0"]
    parsed = train.parse(args)
    assert settings.override(options.chosen(parsed), parsed.set).model == changed
    assert options.chosen(train.parse([])) == config.TINY


def test_names_of_weights_are_those_of_their_config():
    stored = {
        name: json.loads((installed.WEIGHTS / name / "config.json").read_text())["name"]
        for name in installed.installed()
    }
    assert {"clic-compact", "clic-tiny"} <= stored.keys()
    assert all(name == f"clic-{config}" for name, config in stored.items())
