"""Two processes on one machine train as one does, and leave a run that one process goes on with."""

import contextlib
import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from clic_jax.checkpoints import published
from experiments.train import run_log
from tests.conftest import QUICK_COMPILER, ROOT
from tests.micro import EXPERIMENT

STREAM = """
from experiments import cli
from experiments.train import __main__ as train, feed

feed.MEMORY_LIMIT_MIB = 0
cli.run(train.main)
"""


@pytest.fixture
def train(tmp_path):
    """train(out, *arguments, count=1) -> (exit status, standard error) of each process; none outlives the test."""
    (tmp_path / "micro.py").write_text(EXPERIMENT)
    env = os.environ | {"XLA_FLAGS": QUICK_COMPILER, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}

    def train(out, *arguments, count=1):
        command = [sys.executable, "-c", STREAM, "--config", str(tmp_path / "micro.py"), "--valid", "none"]
        command += ["--out", str(out), *arguments]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        with contextlib.ExitStack() as stack:
            running = []
            for index in range(count):
                more = ["--distributed", f"{address},{count},{index}"] if count > 1 else []
                with open(tmp_path / f"{index}.txt", "w") as log:
                    running.append(subprocess.Popen(command + more, cwd=ROOT, env=env, stdout=log, stderr=log))
                stack.callback(running[-1].kill)
            return [(p.wait(timeout=400), (tmp_path / f"{i}.txt").read_text()) for i, p in enumerate(running)]

    return train


def rows(out):
    """Without what they say of the machine, which no two runs share."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in run_log.MACHINE} for row in lines]


@pytest.mark.slow
def test_two_processes_are_one(train, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for out, count in ((one, 1), (two, 2)):
        ended = train(out, "--max-steps", "4", count=count)
        assert [status for status, _ in ended] == [0] * count, ended
    assert {path.name for path in (two / "4" / "state").glob("ocdbt.process_*")} == {
        "ocdbt.process_0",
        "ocdbt.process_1",
    }
    assert len(rows(one)) == len(rows(two)) == 2
    for a, b in zip(rows(one), rows(two)):
        assert a == pytest.approx(b, rel=1e-4)
    (config, params, _), (_, other, _) = (published.load_published(out / "published") for out in (one, two))
    # Adam's first updates are of size learning_rate whatever the gradient
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.1 * config.train.learning_rate), params, other)

    ended = train(two, "--resume", "--max-steps", "6")
    assert ended[0][0] == 0 and "from step 4" in ended[0][1], ended
    assert rows(two)[-1]["step"] == 6


def test_bad_address(train, tmp_path):
    status, text = train(tmp_path / "out", "--distributed", "nowhere,2")[0]
    assert status == 2 and "Traceback" not in text
    assert "error: --distributed wants HOST:PORT,COUNT,INDEX here, not 'nowhere,2'" in text
    status, text = train(tmp_path / "out", "--distributed")[0]
    assert status == 2 and "Traceback" not in text and "HOST:PORT" in text
