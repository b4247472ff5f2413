"""Publishing replaces published weights once the new ones are there, and nothing else, and nothing released."""

import dataclasses
import shutil

import numpy as np
import pytest

from clic_jax import settings
from clic_jax.checkpoints import installed, published
from clic_jax.checkpoints.arrays import CheckpointError
from clic_jax.exchange import publish
from experiments import publish as command
from experiments.train import __main__ as train
from tests.conftest import photograph
from tests.micro import MICRO
from tests.model.test_clic import random_params


def crops(n, size):
    return np.stack([photograph(size, size, seed) for seed in range(n)])


@pytest.fixture(autouse=True)
def few_crops(monkeypatch):
    """What is measured on photographs is not the matter here."""
    monkeypatch.setattr(publish, "CALIBRATION_PIXELS", 0)


@pytest.fixture(scope="module")
def params():
    params = random_params(MICRO.model)
    params["prior"]["median"][:] = 0  # as training leaves it
    return params


def test_replaces_published_weights(params, tmp_path):
    folder = tmp_path / "run" / "published"
    before = publish.publish(folder, MICRO, params, crops, {})
    after = publish.publish(folder, MICRO, params | {"log_gain": params["log_gain"] + 0.5}, crops, {})
    assert before != after == published.load_published(folder)[2]
    assert [path.name for path in folder.parent.iterdir()] == ["published"]


def test_a_failure_leaves_what_was_there(params, tmp_path):
    folder = tmp_path / "published"
    before = publish.publish(folder, MICRO, params, crops, {})
    broken = params | {"log_gain": np.full_like(params["log_gain"], np.nan)}
    with pytest.raises(ValueError):
        publish.publish(folder, MICRO, broken, crops, {})
    assert published.load_published(folder)[2] == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", ["run", "empty", "damaged", "released"])
def test_refuses_what_is_no_model_or_is_released(params, tmp_path, content):
    """The run itself, any other folder, a model that files in the world name: nothing of it is touched."""
    folder = tmp_path / "out"
    if content == "released":
        shutil.copytree(installed.folder_of(), folder)
    else:
        (folder / ("checkpoints" if content == "run" else "nothing")).mkdir(parents=True)
        if content == "damaged":
            (folder / "checkpoint.json").write_text("[")
    before = sorted(folder.rglob("*"))
    with pytest.raises(CheckpointError, match="name another --out"):
        command.main([str(tmp_path), "--out", str(folder)])
    with pytest.raises(CheckpointError, match="name another --out"):
        publish.publish(folder, MICRO, params, crops, {})
    assert sorted(folder.rglob("*")) == before


def test_a_run_that_could_not_publish_does_not_begin(tmp_path):
    """What lies where its weights are to go is found before the training, not after."""
    (tmp_path / "run" / "published" / "mine").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="holds no published model"):
        train.main(["--out", str(tmp_path / "run"), "--set", "train.batch=8"])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["published"]


def test_models_of_ablations_are_not_exported(tmp_path, capsys):
    """Those that onnxruntime cannot code with: it is said, and no error, as what was asked for is done."""
    for name, value in (("pqf", "plain"), ("gains", "scalar")):
        model = dataclasses.replace(MICRO.model, **{name: value})
        (tmp_path / "config.json").write_text(settings.to_json(dataclasses.replace(MICRO, model=model)))
        command.add_light(tmp_path)
        assert f"it has model.{name} = '{value}', which the runtime jax alone computes" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
