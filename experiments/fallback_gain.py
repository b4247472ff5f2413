"""What `compress(fallback=)` gains, and that it is never worse than the codec it falls back on, from real files.

    python -m experiments.fallback_gain --data KODAK SATELLITE --images 4 --out FILE.json

Of each folder, and of pictures that are drawn here (text, a window, a chart, a checkerboard, a halftone, noise): how
often the classical file was kept, the bytes of all files without and with the fallback, seconds that it adds to an
encode, and the most bytes that a file has above those of the classical codec alone: its smallest file, of all that it
can write, whose squared error is at most that of the model's picture and of a flat colour. "Worse than flat" counts
decoded pictures whose squared error is above that of their mean colour.
"""

import argparse
import json
import time
import warnings

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from clic_jax import api, memory, metrics, runtime
from clic_jax.coding import plausible
from clic_jax.files import atomic, classical, container, images, streams
from clic_jax.files.pictures import ImageWarning
from experiments import cli, machine

QUALITIES = (20, 50, 80)
WORDS = "the quick brown fox jumps over a lazy dog and 0123456789 more of them again".split()


def drawn() -> dict[str, np.ndarray]:
    """Pictures that are no photographs, uint8 [H, W, 3], by name."""
    random = np.random.default_rng(0)
    found = {"text": _text(random, 640, 480), "window": _window(random), "chart": _chart(random)}
    found["drawing"] = np.asarray(Image.fromarray(_chart(random)).rotate(12, Image.Resampling.BICUBIC))
    rows, columns = np.mgrid[:256, :384]
    ramp, threshold = columns / 384, np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16
    plain = {"checkerboard": (rows + columns) % 2, "stripes": columns % 2}
    plain |= {"halftone": ramp > np.tile(threshold, (64, 96)), "noise": random.random((256, 384)) > 0.5}
    return found | {name: np.repeat(255 * x[..., None].astype(np.uint8), 3, 2) for name, x in plain.items()}


def _text(random, width: int, height: int) -> np.ndarray:
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    for y in range(16, height - 16, 14):
        pen.text((20, y), " ".join(random.choice(WORDS, width // 48)), "black")
    return np.asarray(image)


def _window(random) -> np.ndarray:
    image = Image.new("RGB", (800, 600), (236, 238, 240))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 800, 32), (40, 70, 120))
    pen.text((12, 10), "a window: file edit view help", "white")
    for i in range(8):
        pen.rounded_rectangle((12, 48 + 40 * i, 160, 78 + 40 * i), 6, (250, 250, 250), (180, 180, 190))
        pen.text((22, 56 + 40 * i), " ".join(random.choice(WORDS, 3)), (30, 30, 30))
    image.paste(Image.fromarray(_text(random, 600, 520)), (180, 56))
    return np.asarray(image)


def _chart(random) -> np.ndarray:
    image = Image.new("RGB", (640, 480), "white")
    pen = ImageDraw.Draw(image)
    for i in range(10):
        colour = tuple(int(v) for v in random.integers(0, 255, 3))
        pen.rectangle((40 + 58 * i, int(random.integers(60, 400)), 84 + 58 * i, 440), colour)
        line = [(x, int(240 + random.normal(0, 60))) for x in range(40, 640, 40)]
        pen.line(line, colour, 2)
        x, y = (int(v) for v in random.integers(40, 400, 2))
        pen.ellipse((x, y, x + 50, y + 50), outline=colour, width=3)
    return np.asarray(image)


def groups(folders: list[str], count: int) -> dict[str, dict[str, np.ndarray]]:
    """Pictures by name by group: `count` of each folder, evenly spaced, and those that are drawn here."""
    found = {}
    for folder in folders:
        paths = images.list_images(folder)
        if not paths:
            raise images.ImageError(f"{folder}: no images in this folder")
        taken = min(count, len(paths))
        paths = [paths[i * len(paths) // taken] for i in range(taken)]
        found[paths[0].parent.name] = {path.name: images.read_rgb(path) for path in paths}
    return found | {"drawn": drawn()}


def measure(codec, x: np.ndarray, qualities, name: str) -> list[dict]:
    """A row a quality."""
    alone = []
    for setting in classical.SCALES[name]:
        file = classical.encode(name, x, setting)
        shown = classical.decode(name, streams.of_file(name, file), *x.shape[:2], ours=True)
        alone.append((len(file), metrics.squared_error(x, shown)))
    flat, rows = plausible.flat_error(x), []
    for quality in qualities:
        options, seconds, files, errors = {"quality": quality, "model": codec}, [], [], []
        api.compress(x, **options)  # compiles
        for fallback in ("none", name):
            start = time.perf_counter()
            files.append(api.compress(x, **options, fallback=fallback))
            seconds.append(round(time.perf_counter() - start, 3))
            errors.append(metrics.squared_error(x, api.decompress(files[-1], model=codec)))
        about = container.peek(files[1])
        sizes = [size for size, error in alone if error <= min(errors[0], flat)]
        row = {"quality": quality, "bytes": len(files[0]), "bytes_with": len(files[1]), "seconds": seconds}
        row |= {"kept": about.get("classical"), "lossless": about.get("lossless"), "alone": min(sizes, default=None)}
        rows.append(row | {"error": errors[0], "error_with": errors[1], "flat": flat})
    return rows


def line(group: str, rows: list[dict]) -> str:
    """One of a group's rows together, in Markdown."""
    kept = sum(row["kept"] is not None and not row["lossless"] for row in rows)
    before, after = (sum(row[key] for row in rows) for key in ("bytes", "bytes_with"))
    above = [row["bytes_with"] - row["alone"] for row in rows if row["alone"] is not None]
    seconds = [np.median([row["seconds"][i] for row in rows]) for i in (0, 1)]
    worse = [sum(row[key] > row["flat"] for row in rows) for key in ("error", "error_with")]
    columns = (group, len(rows), kept, sum(bool(row["lossless"]) for row in rows), f"{before:,}", f"{after:,}")
    columns += (f"{100 * (after / before - 1):+.1f} %", f"{seconds[0]:.2f} + {seconds[1] - seconds[0]:.2f}")
    return "| " + " | ".join(map(str, (*columns, f"{max(above):+d}", f"{worse[0]} / {worse[1]}"))) + " |"


def as_text(about: dict, found: dict[str, list[dict]]) -> str:
    """JSON of `about` and, as "rows", of the rows by group, a line each."""
    groups = [f"{json.dumps(group)}: [\n" + ",\n".join(map(json.dumps, rows)) + "\n]" for group, rows in found.items()]
    return json.dumps(about, indent=1).removesuffix("\n}") + ',\n "rows": {\n' + ",\n".join(groups) + "\n}}\n"


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.fallback_gain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="*", default=[], type=cli.expanded, metavar="FOLDER", help="of photographs")
    parser.add_argument("--images", type=int, default=4, metavar="N", help="of each folder; %(default)s by default")
    parser.add_argument("--model", type=cli.expanded, help="a name of `clic-jax models`, or a published folder")
    parser.add_argument("--fallback", choices=streams.NAMES, default="avif", help="%(default)s by default")
    parser.add_argument("--qualities", type=float, nargs="+", default=QUALITIES, help="1 to 100")
    parser.add_argument("--out", type=cli.path, help="a JSON file")
    args = parser.parse_args(argv)
    if args.images < 1:
        parser.error("--images is at least 1")
    runtime.use_cache()
    memory.keep_memory()
    warnings.simplefilter("ignore", ImageWarning)  # what is worse than flat is counted
    codec, found = api.open_model(args.model), {}
    print(
        "| pictures | files | classical | lossless | bytes | with it | saved | seconds | most above | worse than flat |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for group, pictures in groups(args.data, args.images).items():
        found[group] = []
        for name, x in tqdm(pictures.items(), group, unit="picture", disable=None):
            rows = measure(codec, x, args.qualities, args.fallback)
            found[group] += [{"name": name, "width": x.shape[1], "height": x.shape[0]} | row for row in rows]
        print(line(group, found[group]), flush=True)
    if args.out:
        about = {"model_id": codec.model_id, "fallback": args.fallback, "encoder": classical.version(args.fallback)}
        atomic.write(args.out, as_text(about | {"machine": machine.describe()}, found).encode())
    return 0


if __name__ == "__main__":
    cli.run(main)
