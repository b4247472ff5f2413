"""`make demo`: what its pictures claim is so, and its two parts run in seconds on a micro model."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import clic_jax
from clic_jax import metrics
from clic_jax.errors import UserError
from experiments import demo
from tests.conftest import QUICK_COMPILER, ROOT, photograph
from tests.micro import EXPERIMENT

QUICK = """import dataclasses
    return dataclasses.replace(MICRO, train=dataclasses.replace(MICRO.train, save_every=1000, pca_start=False))"""


@pytest.mark.parametrize("size", [1500, 3000, 9000])
def test_jpeg_gets_at_least_our_bytes(size):
    """And hardly more: one quality lower, it would get fewer, whichever of Pillow's ways of writing it won."""
    x = photograph(200, 300)
    jpeg, as_small = demo.best_jpeg(x, size)
    assert as_small and size <= len(jpeg.file) < 1.2 * size
    np.testing.assert_array_equal(jpeg.pixels, np.array(Image.open(io.BytesIO(jpeg.file))))


def test_jpeg_is_the_best_that_pillow_writes():
    """No file of that way of writing and no more bytes is better, so that nobody can say that ours had it easy."""
    _, x = demo.held_out()
    jpeg, _ = demo.best_jpeg(x, 2834)
    for colour in ("4:4:4", "4:2:0"):
        for quality in range(1, 30):
            file = io.BytesIO()
            Image.fromarray(x).save(file, "JPEG", quality=quality, subsampling=colour, optimize=True)
            better = metrics.psnr(x, np.array(Image.open(file))) > metrics.psnr(x, jpeg.pixels)
            assert not better or len(file.getvalue()) > 2834


def test_jpeg_that_cannot_be_so_small():
    x = photograph(200, 300)
    jpeg, as_small = demo.best_jpeg(x, 100)
    assert not as_small and jpeg.quality == 1 and len(jpeg.file) > 100


def test_too_small_for_jpeg_is_said(monkeypatch):
    titles = []
    monkeypatch.setattr(demo, "draw", lambda title, *_: titles.append(title))
    monkeypatch.setattr(demo, "best_jpeg", lambda x, size: (demo.Jpeg(b"", 1, "4:2:0", x), False))
    monkeypatch.setattr(clic_jax, "compress", lambda *_, **__: b"ours")
    monkeypatch.setattr(clic_jax, "decompress", lambda _: demo.held_out()[1])
    demo.compare(demo.Quality.of(1))
    assert titles == ["JPEG makes no smaller file than this"]


def test_picture(tmp_path, capsys):
    """Its columns are the original, a JPEG of no fewer bytes, and our file's pixels, with the figures that are told."""
    path = tmp_path / "new" / "comparison.png"
    assert demo.main(["--picture", str(path)]) == 0
    assert [file.name for file in path.parent.iterdir()] == ["comparison.png"]
    told = capsys.readouterr().out
    _, x = demo.held_out()
    ours = clic_jax.compress(x, quality=demo.QUALITY)
    (jpeg, _), decoded = demo.best_jpeg(x, len(ours)), clic_jax.decompress(ours)
    assert len(ours) <= len(jpeg.file) < 1.1 * len(ours)
    assert metrics.psnr(x, decoded) > 3 + metrics.psnr(x, jpeg.pixels)
    check_columns(path, [x, jpeg.pixels, decoded])
    for coded, pixels in ((ours, decoded), (jpeg.file, jpeg.pixels)):
        bpp, quality = 8 * len(coded) / x[..., 0].size, metrics.psnr(x, pixels)
        assert f"{len(coded):,} bytes, {bpp:.3f} bpp, PSNR {quality:.2f} dB" in told


def check_columns(path, columns):
    """That the picture shows those photographs, pixel for pixel, and their details below."""
    with Image.open(path) as picture:
        shown = np.asarray(picture)[demo.TOP :, demo.MARGIN :]
    for index, pixels in enumerate(columns):
        column = shown[:, index * (demo.WIDTH + demo.GAP) :][:, : demo.WIDTH]
        np.testing.assert_array_equal(column[: demo.HEIGHT], pixels[demo.SHOWN])
        detail = column[demo.HEIGHT + demo.GAP :][: demo.HEIGHT]
        np.testing.assert_array_equal(detail[:: demo.ZOOM, :: demo.ZOOM], pixels[demo.DETAIL])


def row(step, loss):
    """A line of metrics.jsonl."""
    return json.dumps({"step": step, "loss": loss, "bpp": 1}) + "\n"


def test_what_follows_the_training(published_micro, tmp_path, monkeypatch, capsys):
    """Whatever was trained codes the photograph, and an older run makes way; a training that fails ends the demo."""
    asked, run = [], tmp_path / "run"

    def trained(argv):
        asked.extend(argv)
        shutil.copytree(published_micro, run / "published")
        (run / "metrics.jsonl").write_text(row(10, 3) + row(20, 2) + row(30, 1))
        return 0

    run.mkdir()
    (run / "old").touch()
    monkeypatch.setattr(demo.train, "main", trained)
    assert demo.train_and_code(tmp_path, 7) == 0
    assert not (run / "old").exists() and "--train-seconds 7 " in " ".join(asked)
    decoded = clic_jax.decompress((tmp_path / "trained.clic").read_bytes(), model=run / "published")
    check_columns(tmp_path / "before_after.png", [demo.held_out()[1], decoded])
    assert (tmp_path / "loss.png").exists() and f"--model {run / 'published'}" in capsys.readouterr().out
    monkeypatch.setattr(demo.train, "main", lambda _: 130)
    assert demo.train_and_code(tmp_path, 7) == 130


@pytest.mark.slow
def test_both_parts(tmp_path):
    """All of it in a process of its own, with a micro model for `tiny`: every file is there."""
    (tmp_path / "tiny.py").write_text(EXPERIMENT.replace("return MICRO", QUICK))
    out = tmp_path / "demo"
    program = f"from pathlib import Path; from experiments import demo; demo.CONFIGS = Path({str(tmp_path)!r})"
    program += f"; demo.LOG_EVERY = 1; raise SystemExit(demo.main(['--out', {str(out)!r}, '--seconds', '5']))"
    env = os.environ | {"XLA_FLAGS": QUICK_COMPILER, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = {"comparison.png", "photo.clic", "photo.jpg", "before_after.png", "trained.clic", "loss.png", "run"}
    assert {path.name for path in out.iterdir()} == names
    assert len((out / "photo.clic").read_bytes()) <= len((out / "photo.jpg").read_bytes())


def test_a_curve_needs_two_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(row(10, 2) + json.dumps({"step": 10, "valid_loss_0.01": 2}) + "\n")
    assert demo.draw_loss(tmp_path) is None
    path.write_text(row(10, 2) + row(20, None) + row(30, 1))
    with Image.open(io.BytesIO(demo.draw_loss(tmp_path))) as image:
        assert image.format == "PNG" and image.width > 800


def test_picture_of_the_readme():
    """As `--picture` draws it, and small enough for a page."""
    path = ROOT / "docs" / "comparison.png"
    with Image.open(path) as image:
        assert image.width == 2 * demo.MARGIN + 3 * demo.WIDTH + 2 * demo.GAP
    assert path.stat().st_size <= 500_000


@pytest.mark.parametrize("seconds", ["0", "-5", "nan", "inf"])
def test_time_that_is_none(seconds, tmp_path):
    with pytest.raises(UserError, match=f"--seconds must be a time above 0, not {seconds}"):
        demo.main(["--seconds", seconds, "--out", str(tmp_path / "demo")])
    assert not (tmp_path / "demo").exists()


def test_bad_input_on_the_command_line(tmp_path):
    """One line, and exit 2, before anything is computed."""
    (tmp_path / "file").write_text("not a folder")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for arguments, text in {
        ("--quality", "0"): "quality 0 is out of range: choose 1 (smallest) to 100 (best)",
        ("--out", "file"): "file: File exists",
        ("--picture", "file/x.png"): "file: File exists",
    }.items():
        command = [sys.executable, "-m", "experiments.demo", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (2, f"experiments.demo: error: {text}\n")
