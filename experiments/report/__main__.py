"""One HTML page about the results in a folder: curves, BD-rates, what the saving means, and before/after pictures.

    python -m experiments.rd_eval --data PHOTOS --model clic-tiny --codecs jpeg,webp,avif --out results/mine
    python -m experiments.report results/mine --out report.html
    python -m experiments.report results/mine --out report.html --psnr 34 --pictures-per-month 2e6 --transfer-price 0.08

The page is one file without any reference to the network; it opens from a disk, on a phone too.
"""

import argparse
import dataclasses
import math
import sys
from pathlib import Path

import numpy as np

from clic_jax import runtime
from clic_jax.checkpoints import installed
from clic_jax.files import atomic
from experiments import cli
from experiments.report import adaptation, page, pictures, results, savings, sections, viewers
from experiments.report.results import ReportError

PICTURES = 3
# what the options of `add_money` say, and what such an option is called where it is not called the same
ASSUMED = [field.name for field in dataclasses.fields(savings.Volumes) if field.name not in ("psnr", "pixels")]
OPTION = {"downloads": "downloads-per-picture"}
QUALITY = 20  # of our model in the pictures: low enough for differences to be seen


def parse(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=cli.path, metavar="DIR", help="folder of JSON that experiments.rd_eval wrote")
    parser.add_argument("--out", type=cli.path, required=True, help="the HTML file")
    parser.add_argument("--codec", help="which model of ours, where DIR has several: the name of its JSON")
    parser.add_argument("--images", type=int, default=PICTURES, help="how many pictures to show; 0 for none")
    parser.add_argument("--data", type=cli.path, help="folder of the photographs; by default the one that was measured")
    parser.add_argument(
        "--model", type=cli.expanded, help="weights for the pictures; by default the installed ones that were measured"
    )
    parser.add_argument("--quality", type=float, default=QUALITY, help="of our model in the pictures, 1 to 100")
    parser.add_argument(
        "--compare", nargs="*", choices=pictures.COMPARED, help="in the pictures; by default those that were measured"
    )
    text = "adapt.json of experiments.poc --adapt, to tell of the model before and after"
    parser.add_argument("--adaptation", type=cli.path, metavar="FILE", help=text)
    add_money(parser)
    return parser.parse_args(argv)


def add_money(parser: argparse.ArgumentParser) -> None:
    """The options that a saving in bytes is turned into money by."""
    money = parser.add_argument_group("what the saving means")
    money.add_argument("--psnr", type=float, help="dB at which sizes are compared")
    money.add_argument("--megapixels", type=_positive, help="of one picture; by default the mean of those measured")
    for field, text in (
        ("pictures_per_month", "new pictures a month"),
        ("downloads", "how often each is sent"),
        ("storage_price", "per GB and month"),
        ("transfer_price", "per GB"),
        ("compute_price", "per machine hour"),
        ("decoders", "that fetch the weights of an adapted model"),
    ):
        name, default = OPTION.get(field, field).replace("_", "-"), getattr(savings.Volumes, field)
        money.add_argument(
            f"--{name}", dest=field, type=_positive, default=default, help=f"{text} (example: {default:g})"
        )
    money.add_argument("--currency", default=savings.Volumes.currency, help="name of the prices' unit")


def money(args) -> list[str]:
    """The options of `add_money`, and --psnr, as another command line had them."""
    given = {} if args.psnr is None else {"psnr": args.psnr}
    given |= {"megapixels": args.megapixels} if args.megapixels else {}
    given |= {OPTION.get(name, name): getattr(args, name) for name in ASSUMED}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


def main(argv=None) -> int:
    """Runs the command line."""
    return make(parse(argv))


def make(args) -> int:
    """Makes the page that parsed options ask for."""
    runtime.use_cache()
    found = results.read(args.dir)
    ours, others = results.choose(found, args.codec)
    comparisons = [results.compare(ours, theirs) for theirs in others]
    adapted = adaptation.read(args.adaptation, found) if args.adaptation else None
    volumes = volumes_of(args, [ours, *others, *([adapted.before] if adapted else [])])
    shown = adaptation.section(adapted, others, volumes) if adapted else ""
    html = page.page(comparisons, ours, volumes, args.psnr is not None, _pictures(args, ours, comparisons), shown)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(args.out, html.encode())
    for comparison in comparisons:
        print(page.outcome(comparison))
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


def volumes_of(args, measured: list[results.Result]) -> savings.Volumes:
    """The reader's volumes, completed from what was measured. Raises: ReportError for a quality outside our curve."""
    ours = measured[0]
    reached = ours.psnr[ours.rising]
    low, high = results.overlap(measured) or (float(reached[0]), float(reached[-1]))
    quality = round((low + high) / 2, 1) if args.psnr is None else args.psnr
    if not reached[0] <= quality <= reached[-1]:
        raise ReportError(
            f"{ours.label} was not measured at {quality:g} dB: choose --psnr from {reached[0]:.1f} to {reached[-1]:.1f}"
        )
    pixels = 1e6 * args.megapixels if args.megapixels else ours.pixels
    return savings.Volumes(quality, pixels, **{name: getattr(args, name) for name in ASSUMED})


def _pictures(args, ours: results.Result, comparisons) -> str:
    """The section of pictures, or the sentence that says why there are none. Raises: as `pictures.make`."""
    folder = args.data or (Path(ours.data) if ours.data else None)
    if args.images < 1:
        return "<p>No pictures were asked for.</p>"
    if args.data is None and (folder is None or not folder.is_dir()):
        print(
            "experiments.report: no pictures, as the photographs are not there: name their folder with --data",
            file=sys.stderr,
        )
        return "<p>The photographs were not at hand when this page was made.</p>"
    model = args.model or next((name for name, found in installed.installed().items() if found == ours.model_id), None)
    if model is None:
        raise ReportError(
            f"the weights {ours.model_id} that were measured are not installed: name them with --model, or --images 0"
        )
    chosen = _choose(ours, comparisons, args.images)
    measured = {comparison.theirs.codec for comparison in comparisons}
    names = [name for name in pictures.COMPARED if name in measured] if args.compare is None else args.compare
    made = pictures.make(folder, chosen, ours, model=model, quality=args.quality, names=names)
    return viewers.viewers(made, args.quality)


def _choose(ours: results.Result, comparisons, count: int) -> dict[str, str]:
    """Images to show and why: from our best to our worst against the codec that is hardest for us, evenly in rank."""
    known = [c for c in comparisons if len(c.images) >= min(count, len(ours.names))]
    if not known:
        index = np.linspace(0, len(ours.names) - 1, min(count, len(ours.names))).round().astype(int)
        return {ours.names[i]: "" for i in index}
    hardest = max(known, key=lambda c: np.mean(list(c.images.values())))
    ranked = sorted(hardest.images, key=hardest.images.get)
    index = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    words = {0: "our best image", len(ranked) - 1: "our worst image"} if len(ranked) > 1 else {}
    chosen = {}
    for i in index:
        rate = sections.percent(hardest.images[ranked[i]])
        chosen[ranked[i]] = f"{words.get(int(i), 'in between')} against {hardest.theirs.label}: {rate}"
    return chosen


def _positive(text: str) -> float:
    number = float(text)
    if not (number >= 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or more")
    return number


if __name__ == "__main__":
    cli.run(main)
