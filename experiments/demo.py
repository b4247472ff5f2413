"""What this is, in three minutes: a photograph in the bytes of a JPEG, then a model trained before your eyes.

    python -m experiments.demo [--seconds 120] [--out demo]
    python -m experiments.demo --picture docs/comparison.png     the first part alone, and only its picture

First the shipped weights code a photograph that they were not trained on, beside the best JPEG of that size:
comparison.png, photo.clic and photo.jpg. Then `tiny` learns from six sample photographs, starting from nothing, and
codes the same one: before_after.png, trained.clic, loss.png, and the run's folder. All of it is in --out.
"""

import argparse
import io
import itertools
import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import clic_jax
from clic_jax import metrics
from clic_jax.errors import UserError
from clic_jax.files import atomic
from clic_jax.quality import Quality
from clic_jax.training import data
from experiments import cli, visualize
from experiments.paths import CONFIGS
from experiments.train import __main__ as train

QUALITY = 32  # of the shipped weights: 0.17 bpp, where a person sees what each codec gives up
TRAINED_QUALITY = 40
LOG_EVERY = 10  # steps: some sixty points of the curve
SHOWN = np.s_[6:294, 10:394]  # of the sample photograph: all but edges, so that the PNG stays below 500 kB
DETAIL = np.s_[73:145, 131:227]  # an eye
ZOOM = 4  # of the detail, which so becomes as large as what is shown
WIDTH, HEIGHT, GAP, MARGIN, TOP = 384, 288, 14, 28, 140  # of a picture's cells and what is around them, in pixels
INK, GREY = "#1a1a1a", "#666666"
NEXT = """Next, with photographs of your own (--model {published} is what was trained just now):
  .venv/bin/clic-jax compress photo.jpg -o photo.clic --quality 50
  .venv/bin/clic-jax decompress photo.clic -o photo.png
  .venv/bin/python -m experiments.poc PHOTOS --out poc   # a folder of yours against JPEG, WebP and AVIF
  .venv/bin/python -m experiments.train --data folder:PHOTOS --init clic-compact-detail --out runs/mine   # for them"""


class BadSeconds(UserError):
    """A training time that is none."""


class Version(NamedTuple):
    """The photograph as one column of a picture shows it."""

    name: str
    pixels: np.ndarray  # uint8 [H, W, 3]
    file: bytes | None = None  # None: the original


class Jpeg(NamedTuple):
    """A JPEG file, and how Pillow wrote it."""

    file: bytes
    quality: int
    colour: str  # subsampling: 4:4:4 or 4:2:0
    pixels: np.ndarray  # uint8 [H, W, 3]


def held_out() -> tuple[str, np.ndarray]:
    """(name, uint8 [H, W, 3]) of the photograph that neither part trains on. Raises: DataError if not installed."""
    ((name, x),) = data.whole_images("sample:valid")
    return name, x


def best_jpeg(x: np.ndarray, size: int) -> tuple[Jpeg, bool]:
    """(JPEG's best file of barely `size` bytes or more, whether JPEG can make one so small).

    Each way of writing it, with colour at full or half resolution, at once or progressively, gets its first quality
    that reaches `size`, and the highest PSNR wins. If all ways start above `size`, the smallest file does.
    """
    found = []
    for colour, progressive in itertools.product(("4:4:4", "4:2:0"), (False, True)):
        for quality in range(1, 101):
            coded = io.BytesIO()
            options = dict(quality=quality, subsampling=colour, progressive=progressive, optimize=True)
            Image.fromarray(x).save(coded, "JPEG", **options)
            if len(coded.getvalue()) >= size:
                break
        found.append(Jpeg(coded.getvalue(), quality, colour, np.array(Image.open(coded))))
    near = [jpeg for jpeg in found if jpeg.quality > 1 or len(jpeg.file) == size]
    if near:
        return max(near, key=lambda jpeg: metrics.psnr(x, jpeg.pixels)), True
    return min(found, key=lambda jpeg: len(jpeg.file)), False


def compare(quality: Quality) -> tuple[bytes, list[Version], str]:
    """(PNG, [original, JPEG, ours], the result in a line): the held-out photograph with the shipped weights.

    Raises: DataError; NoModel.
    """
    photograph, x = held_out()
    coded = clic_jax.compress(x, quality=quality)
    jpeg, as_small = best_jpeg(x, len(coded))
    theirs = Version(f"JPEG {jpeg.colour}, quality {jpeg.quality}", jpeg.pixels, jpeg.file)
    ours = Version(f"clic_jax, quality {quality:g}", clic_jax.decompress(coded), coded)
    versions = [Version("Original", x), theirs, ours]
    title = "The same photograph in the same bytes" if as_small else "JPEG makes no smaller file than this"
    results = (f"{version.name}: {', '.join(_figures(x, version))}" for version in (ours, theirs))
    return draw(title, photograph, versions), versions, "; ".join(results)


def draw(title: str, photograph: str, versions: Sequence[Version]) -> bytes:
    """A PNG with a column for each version, the original first: the photograph, a detail, bytes and quality.

    Pixels are shown as they are, those of the detail as squares; figures are of the whole file and photograph.
    """
    x = versions[0].pixels
    canvas = Image.new("RGB", (2 * MARGIN + len(versions) * (WIDTH + GAP) - GAP, TOP + 2 * HEIGHT + GAP + 86), "white")
    pen = ImageDraw.Draw(canvas)

    def write(left, top, text, size, colour=INK):
        pen.text((left, top), text, colour, ImageFont.load_default(size))

    write(MARGIN, 20, title, 32)
    about = f"{photograph}, not in training; shown without its edges, measured whole. Below: {ZOOM} times as large."
    write(MARGIN, 64, about, 17, GREY)
    for index, version in enumerate(versions):
        left = MARGIN + index * (WIDTH + GAP)
        write(left, TOP - 34, version.name, 22)
        detail = version.pixels[DETAIL].repeat(ZOOM, 0).repeat(ZOOM, 1)
        canvas.paste(Image.fromarray(version.pixels[SHOWN]), (left, TOP))
        canvas.paste(Image.fromarray(detail), (left, TOP + HEIGHT + GAP))
        size, *quality = _figures(x, version)
        write(left, TOP + 2 * HEIGHT + GAP + 10, size, 22)
        write(left, TOP + 2 * HEIGHT + GAP + 42, " · ".join(quality), 22)
    file = io.BytesIO()
    canvas.save(file, "PNG", optimize=True)
    return file.getvalue()


def _figures(x: np.ndarray, version: Version) -> list[str]:
    """Bytes with bits a pixel and, unless it is the original x, PSNR and MS-SSIM."""
    if version.file is None:
        return [f"{x.nbytes:,} bytes, 24 bpp"]
    size = len(version.file)
    quality = [f"PSNR {metrics.psnr(x, version.pixels):.2f} dB", f"MS-SSIM {metrics.ms_ssim(x, version.pixels):.3f}"]
    return [f"{size:,} bytes, {24 * size / x.nbytes:.3f} bpp", *quality]


def draw_loss(run: Path) -> bytes | None:
    """A PNG of the run's loss and rate over its steps, or None of a run with fewer than two rows of them.

    Raises: NoMatplotlib.
    """
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "loss" in row]
    if len(rows) < 2:
        return None
    span = -(-len(rows) // 8)  # of the means: every step draws its own crops and trade-offs, so that rows scatter
    figure = visualize.new_figure(10, 3.6)
    for axes, (name, title) in zip(figure.subplots(1, 2), {"loss": "Loss", "bpp": "Bits a pixel"}.items()):
        table = np.array([[row["step"], row[name]] for row in rows], float)  # null, of what was not finite, is NaN
        mean = [np.convolve(column, np.ones(span) / span, "valid") for column in table.T]
        axes.plot(*table.T, color="#0072B2", alpha=0.3, label=f"means of {LOG_EVERY} steps")
        axes.plot(*mean, color="#0072B2", linewidth=2, label=f"and of {LOG_EVERY * span}")
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def train_and_code(out: Path, seconds: float) -> int:
    """Trains `tiny` in out/run, in place of an older run there, then codes and draws; returns the exit status."""
    run = out / "run"
    if run.exists():
        shutil.rmtree(run)
    options = {"--config": CONFIGS / "tiny.py", "--data": "sample", "--valid": "none", "--out": run}
    options |= {"--train-seconds": seconds}
    settings = ["--set", "train.warmup=50", "--set", f"train.log_every={LOG_EVERY}"]
    if status := train.main([str(part) for option in options.items() for part in option] + settings):
        return status
    photograph, x = held_out()
    published = run / "published"
    coded = clic_jax.compress(x, quality=TRAINED_QUALITY, model=published)
    atomic.write(out / "trained.clic", coded)
    decoded = clic_jax.decompress((out / "trained.clic").read_bytes(), model=published)
    trained = Version("tiny, trained just now", decoded, coded)
    picture = draw(f"After {seconds:g} seconds of training", photograph, [Version("Original", x), trained])
    atomic.write(out / "before_after.png", picture)
    print(f"{out / 'before_after.png'}: {trained.name}, {', '.join(_figures(x, trained))}")
    if curve := draw_loss(run):
        atomic.write(out / "loss.png", curve)
        print(f"{out / 'loss.png'}: how it learned")
    print(NEXT.format(published=published))
    return 0


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120, help="training time")
    parser.add_argument(
        "--out", type=cli.path, default="demo", help="folder for all of it; an old demo there is replaced"
    )
    parser.add_argument("--quality", type=float, default=QUALITY, help="of the comparison, 1 to 100")
    parser.add_argument("--picture", type=cli.path, help="draw the comparison to this PNG, and do nothing else")
    args = parser.parse_args(argv)
    if not 0 < args.seconds < math.inf:
        raise BadSeconds(f"--seconds must be a time above 0, not {args.seconds:g}")
    quality = Quality.of(args.quality)
    (args.picture.parent if args.picture else args.out).mkdir(parents=True, exist_ok=True)
    print(
        "coding a photograph with the shipped weights; the first time, they are compiled", file=sys.stderr, flush=True
    )
    picture, (_, jpeg, ours), line = compare(quality)
    if args.picture:
        atomic.write(args.picture, picture)
        print(f"{args.picture}: {line}")
        return 0
    for name, content in {"comparison.png": picture, "photo.clic": ours.file, "photo.jpg": jpeg.file}.items():
        atomic.write(args.out / name, content)
    print(f"{args.out / 'comparison.png'}, photo.clic, photo.jpg: {line}", flush=True)
    return train_and_code(args.out, args.seconds)


if __name__ == "__main__":
    cli.run(main)
