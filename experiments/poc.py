"""Does it pay on your own images? Measures ours and the classical codecs on them, draws, reports, and says so plainly.

    python -m experiments.poc PHOTOS --out poc  # clic-compact against JPEG, WebP and AVIF
    python -m experiments.poc PHOTOS --out poc --model runs/mine/published --codecs jpeg,avif,jpegxl

DIR gets results/ (one JSON a codec), curves (plot_rd), report.html, per_image.csv (BD-rate of every image against every
codec) and verdict.txt. Started again, it goes on where it was stopped.
"""

import argparse
import csv
import io
import shlex
import sys
from pathlib import Path

from clic_jax import api
from clic_jax.checkpoints import installed, published
from clic_jax.errors import UserError
from clic_jax.files import atomic, images
from experiments import cli, plot_rd
from experiments.paths import CONFIGS, RESULTS
from experiments.rd_eval import __main__ as rd_eval
from experiments.report import __main__ as report
from experiments.report import page, results, sections

CODECS = "jpeg,webp,avif"
KODAK = RESULTS / "kodak"  # photographs, to tell another domain by
WORST = 5  # images named in the verdict
SHIFT = 10  # points of BD-rate worse than on photographs that are worth a word
FINE_TUNING = ("train.steps=4000", "train.learning_rate=3e-4")  # a third of the rate that training from scratch takes


class PocError(UserError):
    """A folder that cannot be measured; one line that says which files are in the way."""


def main(argv=None) -> int:
    """Runs the command line; 1 if a codec is missing or failed and the rest is there."""
    parser = argparse.ArgumentParser(
        prog="experiments.poc", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=cli.path, metavar="FOLDER", help="your images")
    parser.add_argument("--out", type=cli.path, required=True, metavar="DIR", help="folder for everything that is made")
    parser.add_argument(
        "--model", type=cli.expanded, default=installed.DEFAULT_MODEL, help="an installed model or a published folder"
    )
    parser.add_argument("--codecs", default=CODECS, help="comma-separated, as in experiments.rd_eval")
    parser.add_argument("--images", type=int, default=3, help="pictures in the report")
    args = parser.parse_args(argv)
    model_id = api.open_model(args.model).model_id
    sizes = check(args.folder)
    measured = args.out / "results"
    names = ["--data", str(args.folder), "--model", args.model, "--codecs", args.codecs]
    status = rd_eval.main([*names, "--out", str(measured), "--resume"])
    if status > 1:
        return status
    found = results.read(measured)
    ours = next((result for result in found if result.model_id == model_id), None)
    if ours is None:
        raise PocError(f"{args.model} could not be measured on {args.folder}; the lines above say why")
    comparisons = [results.compare(ours, theirs) for theirs in found if not theirs.ours]
    anchor = comparisons[0].theirs.codec if comparisons else ours.codec
    try:
        plot_rd.main([str(measured), "--out", str(args.out), "--anchor", anchor])
    except plot_rd.PlotError as error:  # the report has a chart of its own
        print(f"experiments.poc: error: {error}", file=sys.stderr)
        status = 1
    shown = ["--data", str(args.folder), "--model", args.model, "--codec", ours.codec, "--images", str(args.images)]
    report.main([str(measured), "--out", str(args.out / "report.html"), *shown])
    lines = verdict(ours, comparisons, reference(ours)) + advice(args, comparisons, sizes)
    atomic.write(args.out / "per_image.csv", per_image(ours, comparisons).encode())
    atomic.write(args.out / "verdict.txt", ("\n".join(lines) + "\n").encode())
    print("\n" + "\n".join(lines))
    return status


def check(folder: Path) -> list[tuple[int, int]]:
    """(height, width) of every image, each decoded once, so that nothing fails after an hour of measuring.

    Raises: ImageError for no folder; PocError for one without images, or with some that cannot be read, all of them
      named.
    """
    paths = images.list_images(folder)
    if not paths:
        raise PocError(f"{folder} has no images that Pillow can read: name a folder of photographs")
    sizes, damaged = [], []
    for path in paths:
        try:
            sizes.append(images.read_rgb(path, path.relative_to(folder).as_posix()).shape[:2])
        except images.ImageError as error:
            damaged.append(str(error))
    if damaged:
        raise PocError(
            f"{len(damaged)} of {len(paths)} images in {folder} cannot be read ({'; '.join(damaged[:WORST])}"
            f"{'; ...' * (len(damaged) > WORST)}): move them away, or repair them"
        )
    return sizes


def reference(ours: results.Result) -> dict[str, float]:
    """BD-rate of the same model on Kodak by codec, from the results in this repository; empty where it was not run."""
    try:
        found = results.read(KODAK)
    except UserError:
        return {}
    same = next((result for result in found if result.model_id == ours.model_id), None)
    rates = {r.codec: results.compare(same, r).rate for r in found if not r.ours} if same else {}
    return {codec: rate.value for codec, rate in rates.items() if rate}


def verdict(ours: results.Result, comparisons: list[results.Comparison], photographs: dict[str, float]) -> list[str]:
    """Plain sentences: over all images, image by image, and against what the model does on photographs."""
    lines = [page.lead(ours)]
    for comparison in comparisons:
        lines += [page.outcome(comparison), "  " + sections.count(comparison) + "."]
        named = [f"{name} ({sections.percent(comparison.images[name])})" for name in comparison.lost[:WORST]]
        if named:
            lines.append(f"  Worst: {', '.join(named)}.")
        if comparison.uneven:
            lines.append(f"  {sections.before(comparison)}")
        rate, usual = comparison.rate and comparison.rate.value, photographs.get(comparison.theirs.codec)
        if rate is not None and usual is not None and rate > usual + SHIFT:
            lines.append(
                f"  On the photographs of Kodak the same weights need {sections.percent(usual)}: these images are of "
                "another kind than those that they learned from (domain shift)."
            )
    return lines


def advice(args, comparisons: list[results.Comparison], sizes: list[tuple[int, int]]) -> list[str]:
    """The command that fine-tunes the model on the folder, where there is something to win."""
    if not any(comparison.lost for comparison in comparisons):
        return ["No image is lost to any of these codecs: fine-tuning is not needed, though it may save more."]
    config = published.load_published(args.model)[0]
    path = CONFIGS / f"{config.name}.py"
    path = f"experiments/configs/{path.name}" if path.is_file() else "THE_FILE_IT_WAS_TRAINED_WITH.py"
    settings = list(FINE_TUNING)
    largest = max(min(size) for size in sizes)
    if largest < config.train.crop:
        settings.append(f"train.crop={max(64, largest // 64 * 64)}")
    out = Path("runs") / f"finetuned-{args.folder.resolve().name}"
    options = ["--config", path, "--init", args.model, "--data", f"folder:{args.folder}", "--out", str(out)]
    command = shlex.join(["python", "-m", "experiments.train", *options, *(x for s in settings for x in ("--set", s))])
    again = shlex.join(
        ["python", "-m", "experiments.poc", "HELD_OUT", "--model", str(out / "published"), "--out", "DIR"]
    )
    return [
        "Fine-tuning on your own images is the way to win them back. Keep some images out of the folder, or the next "
        "measurement flatters; more and larger images than these help.",
        f"  {command}",
        f"  {again}",
    ]


def per_image(ours: results.Result, comparisons: list[results.Comparison]) -> str:
    """CSV: an image a row, BD-rate in percent against each codec (empty: no overlap), and whom it loses to."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", *(f"bd_rate_vs_{c.theirs.codec}" for c in comparisons), "loses_to"])
    for name in ours.names:
        rates = [comparison.images.get(name) for comparison in comparisons]
        lost = [c.theirs.codec for c, rate in zip(comparisons, rates) if rate is not None and rate > 0]
        writer.writerow([name, *("" if rate is None else f"{rate:.2f}" for rate in rates), " ".join(lost)])
    return file.getvalue()


if __name__ == "__main__":
    cli.run(main)
