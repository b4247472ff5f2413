"""Rate-distortion curves as PNG and SVG, and a table of BD-rates in Markdown, from results of `experiments.rd_eval`.

    python -m experiments.plot_rd RESULTS --anchor jpeg --metric psnr --out DIR  # rd_psnr.png, .svg, bd_rate_psnr.md

Where the results are of the 24 Kodak images, curves that others have published of them, VTM and the CLIC paper among
them, are drawn dashed beside ours (`experiments/results/published_kodak.json` names the sources). An anchor is any of
the curves: the file name of its results, or `vtm`, `clic`, ... Needs `pip install .[report]`.
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np

from clic_jax.errors import UserError
from clic_jax.files import atomic
from experiments import bd_rate, cli
from experiments.paths import RESULTS

PUBLISHED = RESULTS / "published_kodak.json"
KODAK = {f"kodim{number:02}" for number in range(1, 25)}
MAX_BPP = 1.25  # where the chart ends at the latest
UNITS = {"psnr": "PSNR, dB", "ms-ssim": "MS-SSIM, dB", "ssimulacra2": "SSIMULACRA 2"}
# Okabe and Ito's colours, which the colour-blind can tell apart, with some of Tol's for the yellow that paper swallows
OURS = ("#000000", "#882255")
REST = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#999933", "#332288")
MARKERS, DASHES = "sD^vP*X", ((4, 2), (1, 1.5), (6, 2, 1, 2), (3, 1), (8, 3), (2, 3))


class PlotError(UserError):
    """Results that cannot be shown together, or a package that is missing."""


def load(folders: list[str]) -> dict[str, dict]:
    """Results by name, the published ones last: the file's name, with its folder's where two have the same.

    Raises: PlotError if there are none, if one cannot be read, or if they are of different images.
    """
    paths = [path for folder in folders for path in sorted(Path(folder).glob("*.json"))]
    found, stems = {}, [path.stem for path in paths]
    for path in paths:
        try:
            result = json.loads(path.read_text())
            if "bpp" not in result["results"]:
                raise LookupError
        except (ValueError, LookupError, TypeError):
            raise PlotError(f"{path} is no results file of experiments.rd_eval: move it elsewhere") from None
        twice = stems.count(path.stem) > 1
        name = f"{path.parent.name}/{path.stem}" if twice else path.stem
        found[name] = result | ({"name": f"{result['name']} ({path.parent.name})"} if twice else {})
    if not found:
        raise PlotError(
            f"no results in {', '.join(folders)}: measure some with python -m experiments.rd_eval --out DIR"
        )
    first, *others = found
    for other in others:
        if not _same_images(found[other], found[first]):
            raise PlotError(f"{first} and {other} are of different images, and cannot be compared")
    if {Path(name).stem for name in _image_names(found[first])} == KODAK:
        curves = json.loads(PUBLISHED.read_text())["curves"]
        found |= {curve["codec"]: curve for curve in curves if curve["codec"] not in found}
    return found


def _image_names(result: dict) -> set[str]:
    return set(result.get("images") or (row["name"] for row in result.get("per_image", ())))


def _same_images(result: dict, other: dict) -> bool:
    """By their pixels, or by name where results from before the checksums have no others."""
    if "images" in result and "images" in other:
        return result["images"] == other["images"]
    return _image_names(result) == _image_names(other)


def table(results: dict[str, dict], anchor: str, metric: str, method: str, bpp_range=None) -> str:
    """BD-rate and BD-PSNR of every curve against the anchor in Markdown, fewest bits first; if there is none, why."""
    curves = {name: bd_rate.curve_of(result, metric) for name, result in results.items()}
    rows, (what, _, unit) = [], UNITS[metric].partition(", ")
    for name, curve in curves.items():
        if name == anchor or not curve.bpp:
            continue
        try:
            rate = bd_rate.bd_rate(curve, curves[anchor], method=method, bpp_range=bpp_range)
            gain = bd_rate.bd_psnr(curve, curves[anchor], method=method, bpp_range=bpp_range)
        except bd_rate.NoDifference as error:
            rows.append((float("inf"), [_label(results[name]), str(error), "", "", ""]))
            continue
        cells = [f"{rate.value:+.1f} %", f"{rate.low:.1f}..{rate.high:.1f} {unit}".rstrip()]
        cells += [f"{gain.value:+.2f} {unit}".rstrip(), f"{gain.low:.2f}..{gain.high:.2f} bpp"]
        rows.append((rate.value, [_label(results[name]), *cells]))
    within = f", between {bpp_range[0]:g} and {bpp_range[1]:g} bpp" if bpp_range else ""
    lines = [
        f"Against {_label(results[anchor])}, {what}, {method}{within}. Negative BD-rates: fewer bits at equal quality.",
        "",
        f"| codec | BD-rate | over | BD-{what} | over |",
        "|---|--:|---|--:|---|",
        *(f"| {' | '.join(cells)} |" for _, cells in sorted(rows)),
    ]
    return "\n".join(lines) + "\n"


def _label(result: dict) -> str:
    return result["name"] + (", published" if "source" in result else "")


def estimates(results: dict[str, dict]) -> str:
    """What files cost more than the model's own bit count, in Markdown; empty where not both are there."""
    lines = []
    for name, result in results.items():
        guess = results.get(f"{name}-estimate")
        if guess is None:
            continue
        counted = dict(zip(guess["quality"], guess["results"]["bpp"]))
        for quality, bpp in zip(result["quality"], result["results"]["bpp"]):
            if quality in counted:
                more = 100 * (bpp / counted[quality] - 1)
                lines.append(f"| {result['name']} | {quality:g} | {bpp:.4f} | {counted[quality]:.4f} | {more:+.2f} % |")
    head = ["| model | quality | bpp of files | bpp estimated | files are |", "|---|--:|--:|--:|--:|"]
    return "\n".join(head + lines) + "\n" if lines else ""


def draw(results: dict[str, dict], metric: str, kind: str) -> bytes:
    """The chart as a file of that kind, "png" or "svg". Raises: PlotError without matplotlib, or without a curve."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise PlotError("charts need matplotlib, which is not installed: pip install '.[report]'") from None
    shown = [(result, bd_rate.curve_of(result, metric)) for result in results.values()]
    shown = [(result, curve) for result, curve in shown if curve.bpp and curve.bpp[0] < MAX_BPP]
    if not shown:
        raise PlotError(f"no results have a {metric} value below {MAX_BPP} bpp: measure them with --metric {metric}")
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    right = min(MAX_BPP, max(curve.bpp[-1] for _, curve in shown))
    styles = _styles([result for result, _ in shown])
    for (_, curve), style in zip(shown, styles):
        axes.plot(curve.bpp, curve.quality, **style)
    axes.set(xlim=(0, right), ylim=_limits([curve for _, curve in shown], right))
    axes.set(xlabel="bits per pixel", ylabel=UNITS[metric])
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _name_curves(axes, [curve for _, curve in shown], [style["color"] for style in styles], right)
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "rd", "svg.fonttype": "none"}):  # the same file every time
        figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def _styles(results: list[dict]) -> list[dict]:
    """How each is drawn: ours thick, other codecs with markers, published curves dashed and grey, CLIC's coloured."""
    styles, ours, rest, others = [], 0, 0, 0
    for result in results:
        if result.get("model_id"):
            style = {"color": OURS[ours % len(OURS)], "linewidth": 2.6, "marker": "o", "markersize": 6, "zorder": 3}
            ours += 1
        elif "source" in result:
            color = "#D55E00" if result["codec"].startswith("clic") else "#666666"
            style = {"color": color, "linewidth": 1.2, "dashes": DASHES[others % len(DASHES)]}
            others += 1
        else:
            style = {"color": REST[rest % len(REST)], "linewidth": 1.5}
            style |= {"marker": MARKERS[rest % len(MARKERS)], "markersize": 4.5}
            rest += 1
        styles.append(style)
    return styles


def _end(curve: bd_rate.Curve, right: float) -> tuple[float, float, float]:
    """(bpp, quality) where a curve ends or leaves the chart, and the quality it heads for at the right edge."""
    slope = 0.0 if len(curve.bpp) < 2 else np.diff(curve.quality[-2:])[0] / np.diff(curve.bpp[-2:])[0]
    quality = float(np.interp(right, curve.bpp, curve.quality))
    return min(curve.bpp[-1], right), quality, quality + slope * max(right - curve.bpp[-1], 0)


def _limits(curves: list[bd_rate.Curve], right: float) -> tuple[float, float]:
    """Of the vertical axis: a curve that starts far below most of the others does not squeeze them."""
    starts = sorted(curve.quality[0] for curve in curves)
    return max(starts[0], starts[len(starts) // 2] - 2) - 0.5, max(_end(curve, right)[1] for curve in curves) + 0.5


def _name_curves(axes, curves: list[bd_rate.Curve], colors: list[str], right: float):
    """Writes each curve's name right of the chart, as near as there is room to the height that it heads for."""
    low, high = axes.get_ylim()
    gap = (high - low) / 32
    order = sorted(range(len(curves)), key=lambda i: _end(curves[i], right)[2])
    heights = []
    for i in order:  # upwards, none nearer than the gap to the one below
        heights.append(max(_end(curves[i], right)[2], heights[-1] + gap if heights else low))
    for place in reversed(range(len(order))):  # and down again from the top of the chart
        heights[place] = min(heights[place], heights[place + 1] - gap if place + 1 < len(order) else high)
    for i, height in zip(order, heights):
        bpp, quality, _ = _end(curves[i], right)
        leader = {"color": colors[i], "linewidth": 0.6, "alpha": 0.6, "clip_on": False, "zorder": 1}
        axes.plot([bpp, right * 1.025], [quality, height], **leader)
        axes.text(right * 1.03, height, curves[i].name, color=colors[i], va="center", fontsize=9)


def parse(argv=None) -> argparse.Namespace:
    """The command line. Raises: SystemExit."""
    parser = argparse.ArgumentParser(
        prog="experiments.plot_rd", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="+", type=cli.expanded, metavar="DIR", help="where experiments.rd_eval has written"
    )
    parser.add_argument("--anchor", default="jpeg", help="the curve that others are compared with")
    parser.add_argument("--metric", choices=bd_rate.QUALITY, default="psnr")
    parser.add_argument("--method", choices=bd_rate.METHODS, default="pchip", help="interpolation of the BD-rate")
    parser.add_argument("--range", type=float, nargs=2, metavar="BPP", help="lowest and highest rate of the BD-rate")
    parser.add_argument("--out", type=cli.path, required=True, metavar="DIR", help="folder for the chart and the table")
    return parser.parse_args(argv)


def main(argv=None) -> int:
    """Runs the command line."""
    args = parse(argv)
    results = load(args.folders)
    if args.anchor not in results:
        raise PlotError(f"no results of {args.anchor!r} to compare with: --anchor is one of {', '.join(results)}")
    text = table(results, args.anchor, args.metric, args.method, args.range)
    text = "\n".join(filter(None, (text, estimates(results))))
    args.out.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):
        atomic.write(args.out / f"rd_{args.metric}.{kind}", draw(results, args.metric, kind))
    atomic.write(args.out / f"bd_rate_{args.metric}.md", text.encode())
    print(text, end="")
    print(f"{args.out}: rd_{args.metric}.png, rd_{args.metric}.svg, bd_rate_{args.metric}.md")
    return 0


if __name__ == "__main__":
    cli.run(main)
