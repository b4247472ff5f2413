"""`python -m experiments.train` as a user runs it: it learns, survives Ctrl-C and kill -9, and refuses bad input."""

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import clic_jax
from clic_jax.checkpoints import published
from clic_jax.errors import UserError
from experiments import device
from experiments.train import __main__ as train
from experiments.train import feed, options, run_log
from tests.conftest import QUICK_COMPILER, ROOT
from tests.micro import EXPERIMENT, MICRO

ONE_DEVICE = {"XLA_FLAGS": QUICK_COMPILER, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


# the command, measuring what it publishes on few pixels: the whole would take most of a test's time
COMMAND = """
from clic_jax.exchange import publish
from experiments import cli
from experiments.train import __main__ as train

publish.CALIBRATION_PIXELS = 2**16
cli.run(train.main)
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The micro experiment as a file."""
    path = tmp_path_factory.mktemp("experiment") / "micro.py"
    path.write_text(EXPERIMENT)
    return path


def start(experiment, out, *more, **kwargs):
    """A training process of its own, one virtual device."""
    common = ["--config", str(experiment), "--out", str(out), "--data", "sample", "--valid", "none"]
    return run("-c", COMMAND, *common, *more, **kwargs)


def run(*arguments, **kwargs):
    """A process of Python with those arguments."""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=os.environ | ONE_DEVICE, **pipes, **kwargs)


def finish(process, status=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    return out + err


def rows(out):
    """Without what they say of the machine, which no two runs share."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in run_log.MACHINE} for row in lines]


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


UNUSUAL = ["--set", "train.batch=16", "--set", "train.learning_rate=3e-4", "--set", "train.seed=5"]
UNUSUAL += ["--data", "sample:valid"]


def pasted(told):
    """The arguments of Python in the command that a run prints as it stops, as a shell would take it apart."""
    (line,) = (line for line in told.splitlines() if "continue with: " in line)
    command = shlex.split(line.partition("continue with: ")[2])
    assert command[:3] == ["python", "-m", "experiments.train"]
    return command[1:]


def test_ctrl_c_and_kill_and_the_printed_line(experiment, tmp_path):
    """A run of unusual settings, stopped by Ctrl-C, then killed, each time taken up by the line that it printed, alone:
    it is the run that was never stopped, however far this machine came."""
    out = tmp_path / "it's parts"
    process = start(experiment, out, *UNUSUAL)
    wait_for_step(out, 4)
    process.send_signal(signal.SIGINT)
    command = pasted(finish(process, 130))
    stopped = rows(out)[-1]["step"]
    process = run(*command)
    wait_for_step(out, stopped + 6)
    process.send_signal(signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    killed = rows(out)[-1]["step"]
    end = ["--max-steps", str(killed + 6)]
    told = finish(run("-c", COMMAND, *command[2:], *end))
    assert "changed: " not in told and "data sample:valid" in told and "16 crops" in told
    assert stopped < int(re.search(r"from step (\d+)", told)[1]) <= killed + 2
    finish(start(experiment, tmp_path / "whole", *UNUSUAL, *end))
    assert rows(out)[-1]["step"] == killed + 6
    assert_same_run(out, tmp_path / "whole")


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


def refused(argv):
    """The one line for which a command in this process ends."""
    with pytest.raises(UserError) as stopped:
        train.main(argv)
    assert "\n" not in str(stopped.value)
    return str(stopped.value)


@pytest.mark.parametrize("case", BAD)
def test_bad_input(experiment, tmp_path, case):
    """One line, and no run left behind that --resume would take up."""
    more, expected = BAD[case]
    common = ["--config", str(experiment), "--data", "sample", "--valid", "none", "--max-steps", "4"]
    assert expected in refused([*common, "--out", str(tmp_path / "run"), *more])
    assert not (tmp_path / "run" / "published").exists()


def test_the_command_says_it(experiment, tmp_path):
    """That line alone, on standard error, and status 2."""
    more, expected = BAD["unknown key"]
    message = finish(start(experiment, tmp_path / "run", *more), 2)
    assert message.count("\n") == 1 and "error: " in message and expected in message


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a file's size are for POSIX")
def test_a_disk_that_is_full(experiment, uninterrupted, tmp_path):
    """One line, of all the writes that fail, and no word of going on where nothing was saved."""
    import resource

    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, 100_000))  # bytes a file
    told = finish(start(experiment, tmp_path / "run", "--max-steps", "2", preexec_fn=limit), 2)
    assert told.count("error: ") == 1 and "run: File too large" in told
    assert "continue with" not in told and "Traceback" not in told


def test_folder_of_another_config(experiment, uninterrupted):
    common = ["--config", str(experiment), "--data", "sample", "--valid", "none", "--out", str(uninterrupted)]
    assert "head_dim" in refused([*common, "--resume", "--set", "model.head_dim=4"])
    assert "add --resume" in refused(common)


def test_what_a_resumed_run_changes_is_told(uninterrupted):
    """The stored config and data, and on top of them what is given."""
    out = ["--resume", "--out", str(uninterrupted)]
    same = options.settle(train.parse(out))
    assert (same.config, same.data, same.valid, same.changes) == (MICRO, "sample", "none", [])
    more = ["--set", "train.steps=1200", "--data", "folder:x"]
    changed = options.settle(train.parse([*out, *more]))
    assert changed.config.train.steps == 1200 and changed.data == "folder:x"
    assert changed.changes == ["train.steps 1000 -> 1200", "--data sample -> folder:x"]


def test_the_compute_type_is_decided_once(experiment, uninterrupted, tmp_path, monkeypatch):
    """By a measurement when a run begins, or is told another type; where it only goes on, there is none."""
    measured, quicker, compiled_for = [], False, []

    def compile_for(cfg, *_):
        compiled_for.append(cfg.train.dtype)
        raise UserError("compiled")

    def started(*arguments):
        """(Measurements made, compute type) of a command that ends where it would compile."""
        measured.clear()
        assert refused(arguments) == "compiled"
        return len(measured), compiled_for[-1]

    monkeypatch.setattr(device, "quicker_in_bfloat16", lambda: measured.append(1) or quicker)
    monkeypatch.setattr(feed, "open_feed", compile_for)
    new = ["--config", str(experiment), "--data", "sample", "--valid", "none", "--out", str(tmp_path / "new")]
    quick = ["--set", "train.dtype=bfloat16_products"]
    assert started(*new) == (0, "float32") and started(*new, *quick) == (1, "float32")
    out = shutil.copytree(uninterrupted, tmp_path / "run")
    resumed = ["--resume", "--out", str(out)]
    quicker = True
    assert started(*new, *quick) == started(*resumed, *quick) == (1, "bfloat16_products")
    for stored in out.glob("*/about/metadata"):
        stored.write_text(re.sub('"dtype": *"float32"', '"dtype": "bfloat16_products"', stored.read_text()))
    quicker = False
    assert started(*resumed) == started(*resumed, *quick) == (0, "bfloat16_products")


def test_a_damaged_newest_checkpoint_falls_back(experiment, uninterrupted, tmp_path):
    """To the one before, saying so; and the run ends as one that was never damaged."""
    out = shutil.copytree(uninterrupted, tmp_path / "run")
    newest = max((path for path in out.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    told = finish(start(experiment, out, "--resume", "--max-steps", "20"))
    assert "going on from step 18" in told
    assert_same_run(uninterrupted, out)


STREAMED = """
import sys
from clic_jax.exchange import publish
from experiments.train import __main__ as train, feed

publish.CALIBRATION_PIXELS = 2**16
feed.MEMORY_LIMIT_MIB = 0  # as where the photographs do not fit in memory
whole, parts, config = sys.argv[1:]
common = ["--config", config, "--data", "sample", "--valid", "sample:valid", "--out"]
assert train.main([*common, whole, "--max-steps", "4"]) == 0
assert train.main([*common, parts, "--max-steps", "2"]) == 0
assert train.main([*common, parts, "--max-steps", "4", "--resume"]) == 0
"""


def test_streamed_run_resumes(experiment, tmp_path):
    """Photographs read while training: their order, too, goes on where it stopped."""
    finish(run("-c", STREAMED, *map(str, (tmp_path / "whole", tmp_path / "parts", experiment))))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert rows(tmp_path / "whole")[-1]["valid_psnr_0.0018"] > 5


@pytest.mark.parametrize("more, reason", [([], "an end in time"), (["--train-seconds", "9", "--distributed"], "clock")])
def test_annealing_needs_an_end_and_one_clock(capsys, more, reason):
    with pytest.raises(SystemExit) as stopped:
        train.parse(["--anneal", *more])
    assert stopped.value.code == 2 and reason in capsys.readouterr().err.splitlines()[-1]
