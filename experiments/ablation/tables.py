"""What a study has found: BD-rates against the full model, their spread over seeds; as JSON, Markdown and a chart."""

import io
import json
import math
from pathlib import Path

import numpy as np

from clic_jax.errors import UserError
from clic_jax.files import atomic
from experiments import bd_rate
from experiments.ablation.evaluation import ESTIMATE
from experiments.ablation.study import FULL
from experiments.plot_rd import PlotError

POOLED = 2  # seeds: two alone say next to nothing about a spread, so that of all variants serves
NOT_RESOLVED = "not resolved"


def differences(points: dict[str, dict[int, dict]], variant: str) -> tuple[list[float], str]:
    """(BD-rates in percent against the full model, seed by seed, why any is missing)."""
    found, why = [], ""
    for seed, row in sorted(points.get(variant, {}).items()):
        if (full := points[FULL].get(seed)) is None:
            continue
        curves = [bd_rate.Curve(name, *_increasing(r)) for name, r in ((variant, row), (FULL, full))]
        try:
            found.append(bd_rate.bd_rate(*curves).value)
        except bd_rate.NoDifference as error:
            why = str(error)
    return found, why


def _increasing(row: dict) -> tuple[tuple[float, ...], tuple[float, ...]]:
    order = np.argsort(row["bpp"])
    return tuple(np.array(row["bpp"])[order].tolist()), tuple(np.array(row["psnr"])[order].tolist())


def interval(values: list[float], others: list[list[float]] = ()) -> tuple[float, float] | None:
    """(mean, half the 95 % confidence interval of the mean over seeds), infinite for one seed; None for none.

    others: the values of all variants, whose common variance stands for that of two values (`POOLED`).
    Raises: UserError without scipy.
    """
    try:
        from scipy import stats
    except ImportError:
        raise UserError("confidence needs scipy, which is not installed: pip install '.[report]'") from None
    if not values:
        return None
    if len(values) == 1:
        return values[0], math.inf
    sets = [values] if len(values) > POOLED else [found for found in others if len(found) > 1] or [values]
    freedom = sum(len(found) - 1 for found in sets)
    variance = sum((len(found) - 1) * np.var(found, ddof=1) for found in sets) / freedom
    point = stats.t.ppf(0.975, freedom)
    return float(np.mean(values)), float(point * math.sqrt(variance / len(values)))


def rows(points: dict, costs: dict[str, dict], published: dict[str, float | None]) -> list[dict]:
    """A row a variant, in the order of `costs`."""
    result = []
    every = {name: ([], "") if name == FULL else differences(points, name) for name in costs}
    for name, cost in costs.items():
        found, why = every[name]
        mean_and_half = interval(found, [values for values, _ in every.values()])
        kinds = {row["rates"] for row in points.get(name, {}).values()}
        row = {"variant": name, **cost, "rates": "/".join(sorted(kinds)), "bd_rate": found, "why": why}
        row |= {"mean": None, "half": None, "resolved": None, "published": published[name]}
        if mean_and_half:
            mean, half = mean_and_half
            resolved = bool(abs(mean) > half)
            row |= {"mean": mean, "half": half if math.isfinite(half) else None, "resolved": resolved}
        result.append(row)
    return result


def markdown(result: dict) -> str:
    """The table, and what it is of."""
    study, lines = result["study"], []
    for row in result["rows"]:
        if row["variant"] == FULL:
            said, spread = "0", ""
        elif row["mean"] is None:
            said, spread = row["why"] or "no result", ""
        else:
            said = f"{row['mean']:+.1f} %" if row["resolved"] else f"{NOT_RESOLVED} ({row['mean']:+.1f} %)"
            spread = "one seed" if row["half"] is None else f"±{row['half']:.1f}"
        paper = "" if row["published"] is None else f"{row['published']:+.1f} %"
        cells = [
            f"`{row['variant']}`",
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['encode']:.1f}",
            f"{row['decode']:.1f}",
        ]
        seconds = "" if row["seconds_per_step"] is None else f"{row['seconds_per_step']:.3f}"
        lines.append(" | ".join(["", *cells, seconds, row["rates"], said, spread, paper, ""]).strip())
    head = "| variant | parameters | kMAC/px, encode | decode | s/step | rates | BD-rate | spread | published |"
    about = (
        f"`{study['base']}`, {study['steps']} steps, {study['seeds']} seed{'' if study['seeds'] == 1 else 's'}, valid "
        f"{study['valid']} ({result['images']} images). BD-rate in PSNR against the full model of the same seed "
        "(pchip, positive: more bits), mean over seeds; spread: half its 95 % confidence interval (Student's t; of two "
        "seeds with the variance that all variants have in common). "
        f'"{NOT_RESOLVED}": that interval holds 0, or there is one seed. Rates: `files`, real ones, with the '
        f"coefficients of GuidedPQF, or `{ESTIMATE}`, bits that the model counts, without them. Seconds: the median of "
        "this machine while it trained. Published: the paper's figure, at one rate near 0.2 bpp on Kodak."
    )
    return "\n".join([about, "", head, "|---|--:|--:|--:|--:|---|--:|--:|--:|", *lines]) + "\n"


def draw(result: dict, kind: str) -> bytes:
    """Bars of the BD-rates with their intervals, the paper's figures beside them. Raises: PlotError."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise PlotError("charts need matplotlib, which is not installed: pip install '.[report]'") from None
    shown = [row for row in result["rows"] if row["mean"] is not None]
    figure = Figure(figsize=(9, 1.5 + 0.4 * len(shown)), layout="constrained")
    axes, places = figure.subplots(), np.arange(len(shown))
    colors = ["#0072B2" if row["resolved"] else "#BBBBBB" for row in shown]
    axes.barh(places, [row["mean"] for row in shown], color=colors, height=0.6, label="ours (grey: not resolved)")
    spread = [(row["mean"], place, row["half"]) for place, row in zip(places, shown) if row["half"] is not None]
    if spread:
        mean, place, half = zip(*spread)
        axes.errorbar(mean, place, xerr=half, fmt="none", ecolor="#000000", capsize=3)
    paper = [(row["published"], place) for place, row in zip(places, shown) if row["published"] is not None]
    if paper:
        axes.plot(*zip(*paper), "D", color="#D55E00", label="the paper's, fully trained")
    axes.set_yticks(places, [row["variant"] for row in shown])
    axes.invert_yaxis()
    axes.axvline(0, color="#000000", linewidth=0.8)
    axes.set_xlabel("% of bits at equal PSNR, against the full model")
    axes.spines[["top", "right"]].set_visible(False)
    if shown:
        axes.legend(loc="best", frameon=False)
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "ablation", "svg.fonttype": "none"}):  # the same file every time
        figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def write(out: Path, result: dict) -> list[str]:
    """Writes ablation.json, .md, and, where matplotlib is there, .png and .svg; returns their names."""
    files = {"ablation.json": json.dumps(result, indent=1).encode(), "ablation.md": markdown(result).encode()}
    try:
        files |= {f"ablation.{kind}": draw(result, kind) for kind in ("png", "svg")}
    except PlotError as error:
        print(f"no chart: {error}")
    for name, content in files.items():
        atomic.write(out / name, content)
    return list(files)
