"""What is timed in new processes: medians without the first round, the largest memory, and failures in one line."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from clic_jax.errors import UserError
from experiments import cold_start


def test_rows(tmp_path, monkeypatch, capsys):
    """The first round, here of 30 MiB and half a second more, does not count."""
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.png")
    once = (
        "import os, sys, time; first = not os.path.exists(sys.argv[1]); open(sys.argv[1], 'w'); "
        "x = bytes(30 << 20) * first; time.sleep(0.5 * first)"
    )
    command = [sys.executable, "-c", once, str(tmp_path / "seen")]
    monkeypatch.setattr(cold_start, "commands", lambda *_: {"once": command, "pass": [sys.executable, "-c", "pass"]})
    assert cold_start.main(["--image", str(tmp_path / "a.png"), "--runs", "3", "--out", str(tmp_path / "x.json")]) == 0
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["size"] == [6, 4] and list(found["rows"]) == ["once", "pass"]
    for row in found["rows"].values():
        assert len(row["runs_s"]) == 3 and row["median_s"] == sorted(row["runs_s"])[1] and 1 < row["mib"]
    assert abs(found["rows"]["once"]["mib"] - found["rows"]["pass"]["mib"]) < 20
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["once", "pass"]


def test_commands(tmp_path):
    """Every runtime of this interpreter, `onnx` alone of others, and AVIF; what is read was written before."""
    found = cold_start.commands(tmp_path / "a.png", tmp_path, ["/opt/light/bin/python"])
    assert [name for name in found if name.startswith("decompress")] == [
        "decompress, onnx",
        "decompress, int8",
        "decompress, jax",
        "decompress, onnx, light",
    ]
    made = {str(tmp_path / "a.png")}
    for command in found.values():
        source, target = [word for word in command if word.startswith(str(tmp_path))]
        assert source in made
        made.add(target)


def test_a_failure_is_one_line():
    with pytest.raises(UserError, match="^x failed: no such thing$"):
        cold_start.timed("x", [sys.executable, "-c", "import sys; sys.exit('no such thing')"], None)
    with pytest.raises(UserError, match="^x failed: without a word$"):
        cold_start.timed("x", [sys.executable, "-c", "import os; os._exit(1)"], None)
