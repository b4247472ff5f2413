"""`python -m experiments.train` as a user runs it: it learns, survives Ctrl-C and kill -9, and refuses bad input."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import clic_jax
from clic_jax.checkpoints import published
from experiments.train import __main__ as train
from experiments.train import options
from tests.conftest import ROOT
from tests.micro import EXPERIMENT, MICRO

# with the compiler's defaults, as users have them: the same programs run many times, most of them from the cache
ONE_DEVICE = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The micro experiment as a file."""
    path = tmp_path_factory.mktemp("experiment") / "micro.py"
    path.write_text(EXPERIMENT)
    return path


def start(experiment, out, *more, **kwargs):
    """A training process of its own, one virtual device."""
    command = [sys.executable, "-m", "experiments.train", "--config", str(experiment), "--out", str(out)]
    command += ["--data", "sample", "--valid", "none", *more]
    env = os.environ | ONE_DEVICE
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
    losses = [row["loss"] for row in rows(uninterrupted)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    model, params = clic_jax.load(uninterrupted / "published")
    assert model.config == MICRO.model
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def assert_goes_on(experiment, out):
    """The run in `out`, resumed for some steps, is the run that was never stopped, however far this machine came."""
    at = rows(out)[-1]["step"]
    end = ["--max-steps", str(at + 6)]
    told = finish(start(experiment, out, "--resume", *end))
    assert 0 < int(re.search(r"from step (\d+)", told)[1]) <= at + 2
    finish(start(experiment, out.with_name("whole"), *end))
    assert rows(out)[-1]["step"] == at + 6
    assert_same_run(out, out.with_name("whole"))


def test_interrupt_and_resume(experiment, tmp_path):
    process = start(experiment, tmp_path / "run")
    wait_for_step(tmp_path / "run", 4)
    process.send_signal(signal.SIGINT)
    assert "continue with: python -m experiments.train --resume" in finish(process, 130)
    assert_goes_on(experiment, tmp_path / "run")


def test_kill_and_resume(experiment, tmp_path):
    process = start(experiment, tmp_path / "run")
    wait_for_step(tmp_path / "run", 6)
    process.send_signal(signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    assert_goes_on(experiment, tmp_path / "run")


BAD = {
    "unknown key": (["--set", "train.batsh=4"], "no setting 'train.batsh'; train has"),
    "wrong type": (["--set", "train.batch=many"], "train.batch wants int"),
    "no experiment": (["--config", "nowhere.py"], "no experiment file nowhere.py; experiments/configs has"),
    "no folder": (["--data", "folder:/nonexistent"], "/nonexistent: no such folder"),
    "no such data": (["--data", "photos"], "no data called 'photos'"),
    "crop too large": (["--set", "train.crop=2048"], "2048x2048"),
    "no such weights": (["--init", "clic-huge"], "no model 'clic-huge'"),
    "diverged": (
        ["--set", "train.learning_rate=1e30", "--set", "train.grad_clip=1e30", "--set", "train.warmup=1"],
        "try a smaller train.learning_rate",
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


def test_the_printed_line_goes_on_with_the_same_run(experiment, tmp_path):
    """Pasted alone: settings, data and all are those of the run; what is given besides is changed, and said."""
    unusual = ["--set", "train.batch=16", "--set", "train.learning_rate=3e-4", "--set", "train.steps=6"]
    unusual += ["--set", "train.seed=5", "--data", "sample:valid"]
    finish(start(experiment, tmp_path / "whole", *unusual))
    told = finish(start(experiment, tmp_path / "it's parts", *unusual, "--max-steps", "4"))
    (line,) = (line for line in told.splitlines() if "continue with: " in line)
    command = shlex.split(line.partition("continue with: ")[2])
    assert command[:3] == ["python", "-m", "experiments.train"]
    env = os.environ | ONE_DEVICE
    done = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "changed: " not in done.stderr and "data sample:valid" in done.stderr and "16 crops" in done.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "it's parts")


def test_what_a_resumed_run_changes_is_told(uninterrupted):
    """The stored config and data, and on top of them what is given."""
    out = ["--resume", "--out", str(uninterrupted)]
    same = options.settle(train.parse(out))
    assert (same.config, same.data, same.valid, same.changes) == (MICRO, "sample", "none", [])
    more = ["--set", "train.steps=1200", "--data", "folder:x"]
    changed = options.settle(train.parse([*out, *more]))
    assert changed.config.train.steps == 1200 and changed.data == "folder:x"
    assert changed.changes == ["train.steps 1000 -> 1200", "--data sample -> folder:x"]


def test_a_damaged_newest_checkpoint_falls_back(experiment, uninterrupted, tmp_path):
    """To the one before, saying so; and the run ends as one that was never damaged."""
    out = tmp_path / "run"
    finish(start(experiment, out, "--max-steps", "4"))
    newest = max((path for path in out.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    told = finish(start(experiment, out, "--resume", "--max-steps", "20"))
    assert "going on from step 2" in told
    assert_same_run(uninterrupted, out)


STREAMED = """
import sys
from experiments.train import __main__ as train, feed

feed.MEMORY_LIMIT_MIB = 0  # as where the photographs do not fit in memory
whole, parts, config = sys.argv[1:]
common = ["--config", config, "--data", "sample", "--valid", "sample:valid", "--out"]
assert train.main([*common, whole, "--max-steps", "4"]) == 0
assert train.main([*common, parts, "--max-steps", "2"]) == 0
assert train.main([*common, parts, "--max-steps", "4", "--resume"]) == 0
"""


def test_streamed_run_resumes(experiment, tmp_path):
    """Photographs read while training: their order, too, goes on where it stopped."""
    command = [sys.executable, "-c", STREAMED, *map(str, (tmp_path / "whole", tmp_path / "parts", experiment))]
    env = os.environ | ONE_DEVICE
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert rows(tmp_path / "whole")[-1]["valid_psnr_0.0018"] > 5
