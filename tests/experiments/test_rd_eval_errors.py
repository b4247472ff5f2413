"""`python -m experiments.rd_eval` stopped and resumed, and with bad input: one line, and what can be measured is."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from clic_jax.errors import UserError
from experiments.rd_eval import __main__ as rd_eval
from experiments.rd_eval import codecs, points
from tests.conftest import QUICK_COMPILER, ROOT, photograph


@pytest.fixture
def folder(tmp_path):
    """Three small images."""
    path = tmp_path / "in"
    path.mkdir()
    for seed in range(3):
        Image.fromarray(photograph(40, 48, seed)).save(path / f"{seed}.png")
    return path


def run(folder, *arguments) -> int:
    out = folder.parent / "out"
    return rd_eval.main([str(a) for a in ("--data", folder, "--metric", "psnr", "--out", out, *arguments)])


def results(folder, name="jpeg") -> dict:
    return json.loads((folder.parent / "out" / f"{name}.json").read_text())


@pytest.fixture
def calls(monkeypatch):
    """(image, quality) of every measurement."""
    made, measure = [], points.measure

    def spy(subject, path, name, quality, wanted):
        made.append((name, quality))
        return measure(subject, path, name, quality, wanted)

    monkeypatch.setattr(points, "measure", spy)
    return made


def test_resume_measures_what_is_missing(folder, calls):
    arguments = ("--codecs", "jpeg", "--resume", "--qualities")
    assert run(folder, *arguments, 20, 40) == 0
    first = results(folder)["per_image"]
    assert len(calls) == 6
    assert run(folder, *arguments, 20, 40) == 0 and len(calls) == 6
    assert run(folder, *arguments, 60) == 0 and len(calls) == 9
    assert results(folder)["quality"] == [60, 20, 40]  # what was measured before stays
    assert [row for row in results(folder)["per_image"] if row["quality"] != 60] == first
    Image.fromarray(photograph(40, 48, 9)).save(folder / "1.png")
    assert run(folder, *arguments, 20) == 0
    assert calls[9:] == [("1.png", 20)]  # of another picture under the same name
    assert results(folder)["quality"] == [20]
    assert run(folder, "--codecs", "jpeg", "--qualities", 20) == 0 and len(calls) == 13  # without --resume: all


@pytest.mark.parametrize("change", ["versions", "description", "model_id", "metric"])
def test_resume_keeps_nothing_that_was_measured_otherwise(folder, calls, change):
    assert run(folder, "--codecs", "jpeg", "--qualities", 20) == 0
    path = folder.parent / "out" / "jpeg.json"
    path.write_text(json.dumps(results(folder) | {change: "another"}))
    assert run(folder, "--codecs", "jpeg", "--qualities", 20, "--resume") == 0
    assert len(calls) == 6


def test_resume_after_kill(tmp_path):
    """kill -9: rows that were measured are not measured again, though the file may end inside one."""
    (tmp_path / "in").mkdir()
    for seed in range(40):
        Image.fromarray(photograph(200, 200, seed)).save(tmp_path / "in" / f"{seed}.png")
    command = [sys.executable, "-m", "experiments.rd_eval", "--codecs", "jpeg2000", "--metric", "psnr", "--resume"]
    command += ["--data", str(tmp_path / "in"), "--out", str(tmp_path)]
    environment = os.environ | {"XLA_FLAGS": QUICK_COMPILER, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    part = tmp_path / "jpeg2000.part"
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    limit = time.monotonic() + 100
    while not (part.exists() and part.read_text().count("\n") > 4) and time.monotonic() < limit:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "jpeg2000.json").exists()
    before = [json.loads(line) for line in part.read_text().split("\n")[1:-1]]
    assert 3 < len(before) < 320
    with open(part, "a") as file:
        file.write('{"name": "9.p')
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120, capture_output=True)
    after = json.loads((tmp_path / "jpeg2000.json").read_text())["per_image"]
    assert len(after) == 320 and not part.exists()
    assert all(row in after for row in before)  # seconds and all


def test_unreadable_image(folder, tmp_path):
    """Found before anything is measured, named in one line, exit status 2, nothing written."""
    content = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(content[: len(content) // 2])
    command = [sys.executable, "-m", "experiments.rd_eval", "--data", str(folder), "--out", str(tmp_path / "out")]
    environment = os.environ | {"XLA_FLAGS": QUICK_COMPILER, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [*command, "--codecs", "jpeg"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("experiments.rd_eval: error: 1.png: ")


def test_missing_package(folder, monkeypatch, capsys):
    """The others are measured, the line says which extra to install, and the status is 1."""
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert run(folder, "--codecs", "jpegxl,jpeg", "--qualities", 20) == 1
    assert sorted(path.name for path in (folder.parent / "out").iterdir()) == ["jpeg.json"]
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "jpegxl is not installed" in line and "pip install '.[anchors]'" in line
    assert run(folder, "--codecs", "jpegxl") == 2


def test_codec_that_refuses_an_image(folder, capsys):
    """WebP holds 16383 pixels a side: the line names codec and image, and the others are measured."""
    Image.fromarray(np.zeros((1, 17000, 3), np.uint8)).save(folder / "wide.png")
    assert run(folder, "--codecs", "webp,jpeg", "--qualities", 20) == 1
    assert "webp at quality 20 failed on wide.png (17000x1): " in capsys.readouterr().err
    assert len(results(folder)["per_image"]) == 4
    assert not (folder.parent / "out" / "webp.json").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--codecs", "gif"), "no codec 'gif'"),
        (("--codecs", "jpeg", "--qualities", "0"), "jpeg has no quality 0"),
        (("--codecs", "jpeg,jpeg2000", "--qualities", "50"), "jpeg2000 has no quality 50"),
        (("--codecs", "", "--qualities", "101"), "101"),
        (("--model", "nothing"), "no model 'nothing'"),
        (("--estimate", "--codecs", "jpeg"), "--estimate is of models"),
        (("--estimate", "--effort", "9"), "--effort changes files"),
        (("--effort", "10"), "effort 10 is out of range"),
        (("--estimate", "--runtime", "onnx"), "--estimate computes with JAX"),
        (("--model", "clic-compact", "clic-compact"), "both be clic-compact.json"),
    ],
)
def test_bad_options(folder, arguments, words):
    with pytest.raises(UserError, match=words):
        run(folder, *arguments)
    assert not (folder.parent / "out").exists()


def test_no_images(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="in"):
        run(tmp_path / "in", "--codecs", "jpeg")
    with pytest.raises(UserError, match="no such folder"):
        run(tmp_path / "elsewhere", "--codecs", "jpeg")


@pytest.mark.parametrize("option", [("--metric", "ssim"), ("--metric", ""), ("--jobs", "0")])
def test_options_that_argparse_refuses(folder, option):
    with pytest.raises(SystemExit) as error:
        run(folder, *option)
    assert error.value.code == 2


def test_a_metric_that_is_not_installed(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ssimulacra2", None)
    with pytest.raises(UserError, match=r"SSIMULACRA 2 needs its package: pip install '\.\[report\]'"):
        run(folder, "--codecs", "jpeg", "--metric", "ssimulacra2")


def test_damaged_results_are_measured_again(folder, calls):
    (folder.parent / "out").mkdir()
    for name in ("jpeg.json", "jpeg.part"):
        (folder.parent / "out" / name).write_text('{"name": "JPEG')
    assert run(folder, "--codecs", "jpeg", "--qualities", 20, "--resume") == 0
    assert len(calls) == 3 and codecs.CODECS["jpeg"].label == results(folder)["name"]
