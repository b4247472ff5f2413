"""`make demo`: what its pictures claim is so, and its two parts run in seconds on a micro model."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import clic_jax
from clic_jax import metrics
from clic_jax.errors import UserError
from experiments import demo
from tests.conftest import ROOT, photograph
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


def test_both_parts(tmp_path):
    """All of it: the shipped weights, then, in a process that has one device, a micro model for `tiny`."""
    (tmp_path / "tiny.py").write_text(EXPERIMENT.replace("return MICRO", QUICK))
    out = tmp_path / "demo"
    program = f"from pathlib import Path; from experiments import demo; demo.CONFIGS = Path({str(tmp_path)!r})"
    program += f"; demo.LOG_EVERY = 1; raise SystemExit(demo.main(['--out', {str(out)!r}, '--seconds', '5']))"
    env = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = done.stdout
    names = {"comparison.png", "photo.clic", "photo.jpg", "before_after.png", "trained.clic", "loss.png", "run"}
    assert {path.name for path in out.iterdir()} == names
    ours, jpeg = (out / "photo.clic").read_bytes(), (out / "photo.jpg").read_bytes()
    name, x = demo.held_out()
    x_hat = clic_jax.decompress(ours)
    assert f"{len(ours):,} bytes" in told and f"PSNR {metrics.psnr(x, x_hat):.2f} dB" in told
    assert len(ours) <= len(jpeg) < 1.1 * len(ours)
    assert metrics.psnr(x, x_hat) > 3 + metrics.psnr(x, np.array(Image.open(io.BytesIO(jpeg))))
    trained = clic_jax.decompress((out / "trained.clic").read_bytes(), model=out / "run" / "published")
    assert metrics.psnr(x, trained) > 15
    with Image.open(out / "comparison.png") as three, Image.open(out / "before_after.png") as two:
        assert three.height == two.height and three.width > two.width
        for picture, column, pixels in ((three, 0, x), (three, 2, x_hat), (two, 1, trained)):
            left = demo.MARGIN + column * (demo.WIDTH + demo.GAP)
            shown = np.asarray(picture)[demo.TOP :, left:][: demo.HEIGHT, : demo.WIDTH]
            np.testing.assert_array_equal(shown, pixels[demo.SHOWN])
    assert f"--model {out / 'run' / 'published'}" in told


def test_a_curve_needs_two_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        json.dumps({"step": 10, "loss": 2, "bpp": 1}) + "\n" + json.dumps({"step": 10, "valid_loss": 2}) + "\n"
    )
    assert demo.draw_loss(tmp_path) is None
    path.write_text(path.read_text() + json.dumps({"step": 20, "loss": None, "bpp": 0.5}) + "\n")
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
