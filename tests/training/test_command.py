"""`python -m experiments.train` as a user runs it: it learns, it survives Ctrl-C and kill -9, and it refuses bad input
in a line."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import clic_jax
from clic_jax.checkpoints import published
from tests.conftest import ROOT
from tests.micro import EXPERIMENT, MICRO


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The micro experiment as a file."""
    path = tmp_path_factory.mktemp("experiment") / "micro.py"
    path.write_text(EXPERIMENT)
    return path


def start(experiment, out, *more, **kwargs):
    """A training process of its own, one virtual device."""
    command = [
        sys.executable,
        "-m",
        "experiments.train",
        "--config",
        str(experiment),
        "--data",
        "sample",
        "--valid",
        "none",
        "--out",
        str(out),
        *more,
    ]
    env = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def finish(process, status=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    return out + err


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def wait_for_step(out, step):
    """Waits until a row of that step or a later one is on disk."""
    limit = time.monotonic() + 200
    while time.monotonic() < limit:
        if (out / "metrics.jsonl").exists():
            lines = (out / "metrics.jsonl").read_text().splitlines()
            if lines and json.loads(lines[-1])["step"] >= step:
                return
        time.sleep(0.02)
    raise AssertionError(f"step {step} never came")


@pytest.fixture(scope="module")
def uninterrupted(experiment, tmp_path_factory):
    """Twenty steps in one go."""
    out = tmp_path_factory.mktemp("run") / "whole"
    finish(start(experiment, out, "--max-steps", "20"))
    return out


def assert_same_run(a, b):
    """Bit-identical averaged parameters; metrics rows identical."""
    (_, left, id_left), (_, right, id_right) = (published.load_published(folder / "published") for folder in (a, b))
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert id_left == id_right
    assert rows(a)[-1] == rows(b)[-1]


def test_whole_run(uninterrupted):
    steps = [row["step"] for row in rows(uninterrupted)]
    assert steps == sorted(steps) and steps[-1] == 20
    assert {"loss", "bpp", "psnr", "mse", "grad_norm"} <= set(rows(uninterrupted)[0])
    assert np.mean([r["loss"] for r in rows(uninterrupted)[-3:]]) < np.mean(
        [r["loss"] for r in rows(uninterrupted)[:3]]
    )
    model, params = clic_jax.load(uninterrupted / "published")
    assert model.config == MICRO.model
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_interrupt_and_resume(experiment, uninterrupted, tmp_path):
    out = tmp_path / "run"
    process = start(experiment, out)
    wait_for_step(out, 4)
    process.send_signal(signal.SIGINT)
    assert "continue with --resume" in finish(process, 130)
    at = rows(out)[-1]["step"]
    assert 4 <= at
    if at < 20:
        finish(start(experiment, out, "--resume", "--max-steps", "20"))
        assert_same_run(out, uninterrupted)


def test_kill_and_resume(experiment, uninterrupted, tmp_path):
    out = tmp_path / "run"
    process = start(experiment, out, "--max-steps", "18")
    wait_for_step(out, 6)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    finish(start(experiment, out, "--resume", "--max-steps", "20"))
    assert_same_run(out, uninterrupted)


BAD = {
    "unknown key": (["--set", "train.batsh=4"], "no setting 'train.batsh'; train has"),
    "wrong type": (["--set", "train.batch=many"], "train.batch wants int"),
    "no experiment": (["--config", "nowhere.py"], "no experiment file nowhere.py; experiments/configs has"),
    "no folder": (["--data", "folder:/nonexistent"], "/nonexistent"),
    "no such data": (["--data", "photos"], "photos"),
    "crop too large": (["--set", "train.crop=2048"], "2048x2048"),
    "no such weights": (["--init", "clic-huge"], "clic-huge"),
    "diverged": (
        ["--set", "train.learning_rate=1e30", "--set", "train.grad_clip=1e30", "--set", "train.warmup=1"],
        "at step",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(experiment, tmp_path, case):
    """One line on standard error, status 2, and no run left behind that --resume would take up."""
    more, expected = BAD[case]
    process = start(experiment, tmp_path / "run", "--max-steps", "4", *more)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    message = [line for line in err.splitlines() if "error:" in line]
    assert len(message) == 1 and expected in message[0], err
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "published").exists()


def test_folder_of_another_config(experiment, uninterrupted):
    process = start(experiment, uninterrupted, "--resume", "--set", "model.head_dim=4")
    assert "head_dim" in finish(process, 2)
    process = start(experiment, uninterrupted)
    assert "add --resume" in finish(process, 2)


def test_streamed_run_resumes(experiment, tmp_path, monkeypatch):
    """Photographs read while training, as where memory is too small: their order, too, goes on where it stopped."""
    from experiments.train import __main__ as train

    monkeypatch.setattr(train, "MEMORY_LIMIT_MIB", 0)
    common = ["--config", str(experiment), "--data", "sample", "--valid", "sample:valid", "--out"]
    assert train.main([*common, str(tmp_path / "whole"), "--max-steps", "4"]) == 0
    assert train.main([*common, str(tmp_path / "parts"), "--max-steps", "2"]) == 0
    assert train.main([*common, str(tmp_path / "parts"), "--max-steps", "4", "--resume"]) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert rows(tmp_path / "whole")[-1]["valid_psnr_0.0018"] > 5
