"""Does it pay on your own images? Measures ours and the classical codecs on them, draws, reports, and says so plainly.

    python -m experiments.poc PHOTOS --out poc  # clic-compact-detail against JPEG, WebP and AVIF
    python -m experiments.poc PHOTOS --out poc --model runs/mine/published --codecs jpeg,avif,jpegxl

DIR gets results/ (one JSON a codec), curves (plot_rd), report.html, per_image.csv (BD-rate of every image against every
codec) and verdict.txt. Started again, it goes on where it was stopped.

    python -m experiments.poc PHOTOS --out poc --adapt 30  # and what half an hour of fine-tuning on them brings

Half of the images are then learnt from, and all figures are of the other half: docs/adapting.md.
"""

import argparse
import csv
import io
import shlex
import sys

from clic_jax import api, runtime
from clic_jax.checkpoints import installed, published
from clic_jax.errors import UserError
from clic_jax.files import atomic
from experiments import cli, plot_rd
from experiments.adapt import halves
from experiments.adapt import run as adapt
from experiments.clusters import health
from experiments.paths import RESULTS
from experiments.rd_eval import __main__ as rd_eval
from experiments.report import __main__ as report
from experiments.report import adaptation, page, results, sections

CODECS = "jpeg,webp,avif"
KODAK = RESULTS / "kodak"  # photographs, to tell another domain by
WORST = 5  # images named in the verdict
SHIFT = 10  # points of BD-rate worse than on photographs that are worth a word
ADVISED = 30  # minutes of fine-tuning


class PocError(UserError):
    """A model that could not be measured; one line."""


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
    text = "fine-tune the model for so long on half of the images, and measure before and after on the other half"
    parser.add_argument("--adapt", type=adapt.minutes, metavar="MINUTES", help=text)
    report.add_money(parser)
    args = parser.parse_args(argv)
    model_id = api.open_model(args.model).model_id
    pictures = halves.look(args.folder)
    folder, model, codecs, measured = args.folder, args.model, args.codecs, args.out / "results"
    status, more = 0, []
    if args.adapt is not None:
        status, folder, published_folder = adapt.adapt(args, pictures, model_id)
        if status > 1:
            return status
        model, codecs, more = str(published_folder), "", ["--adaptation", str(args.out / adapt.STATE)]
        model_id = api.open_model(model).model_id
    names = ["--data", str(folder), "--model", model, "--codecs", codecs]
    status = max(status, rd_eval.main([*names, "--out", str(measured), "--resume"]))
    if status > 1:
        return status
    found = results.read(measured)
    ours = next((result for result in found if result.model_id == model_id), None)
    if ours is None:
        raise PocError(f"{model} could not be measured on {folder}; the lines above say why")
    comparisons = [results.compare(ours, theirs) for theirs in found if not theirs.ours]
    anchor = comparisons[0].theirs.codec if comparisons else ours.codec
    try:
        plot_rd.main([str(measured), "--out", str(args.out), "--anchor", anchor])
    except plot_rd.PlotError as error:  # the report has a chart of its own
        print(f"experiments.poc: error: {error}", file=sys.stderr)
        status = 1
    shown = ["--data", str(folder), "--model", model, "--codec", ours.codec, "--images", str(args.images)]
    page_of = report.parse([str(measured), "--out", str(args.out / "report.html"), *shown, *more, *report.money(args)])
    report.make(page_of)
    lines = verdict(ours, comparisons, reference(ours)) + clusters(args.model, folder)
    if args.adapt is None:
        lines += advice(args, comparisons, pictures)
    else:
        lines = adapted(args, page_of, found, comparisons) + [""] + lines
    atomic.write(args.out / "per_image.csv", per_image(ours, comparisons).encode())
    atomic.write(args.out / "verdict.txt", ("\n".join(lines) + "\n").encode())
    print("\n" + "\n".join(lines))
    return status


def adapted(args, page_of, found: list[results.Result], comparisons: list[results.Comparison]) -> list[str]:
    """What adapting has brought, in sentences, and in figures in before_after.json."""
    others = [comparison.theirs for comparison in comparisons]
    told = adaptation.read(args.out / adapt.STATE, found)
    volumes = report.volumes_of(page_of, [told.after, *others, told.before])
    atomic.write(args.out / "before_after.json", adaptation.figures(told, others, volumes))
    return adaptation.verdict(told, others, volumes)


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


def clusters(model: str, folder) -> list[str]:
    """A warning for each stage whose clusters collapse on the folder, against those of held-out photographs."""
    config, params, model_id = published.load_published(model)
    usual = health.reference(model, model_id)
    if not usual:
        return []
    with runtime.usual_settings():
        pictures = health.measure(config.model, params, map(health.middle, health.some(folder)))
    return [
        f"Warning: the clusters of {stage} collapse on these images: the entropy of the assignment is {now:.2f} of 1, "
        f"and {before:.2f} on photographs (domain shift)."
        for stage, (now, before) in health.collapsed(pictures, usual).items()
    ]


def advice(args, comparisons: list[results.Comparison], pictures: dict[str, halves.Picture]) -> list[str]:
    """The command that fine-tunes the model on the folder, where there is something to win."""
    if not any(comparison.lost for comparison in comparisons):
        return ["No image is lost to any of these codecs: fine-tuning is not needed, though it may save more."]
    told = "Fine-tuning on your own images is the way to win them back"
    try:
        halves.divide(args.folder, pictures)
    except halves.FolderError as error:
        return [f"{told}, but {error}."]
    out = args.out.with_name(f"{args.out.name}-adapted")
    options = ["--model", args.model, "--out", str(out), "--adapt", str(ADVISED)]
    command = shlex.join(["python", "-m", "experiments.poc", str(args.folder), *options])
    return [
        f"{told}, and this says what it brings on half of them that it does not see; more images help.",
        f"  {command}",
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
