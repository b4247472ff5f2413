"""A model before and after it was adapted to pictures: what it gains on others of their kind, and when that pays."""

import dataclasses
import json
from html import escape
from pathlib import Path

from experiments.rd_eval.results import to_json
from experiments.report import savings, sections
from experiments.report.results import Comparison, ReportError, Result, compare, rate_at
from experiments.report.savings import GB, MILLION, STORED_MONTHS, Volumes

SAME = 0.5  # percent of bits within which nothing is gained
KEPT = ("model", "minutes", "spent_seconds", "steps", "weights_bytes", "machine", "halves")


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """What was done, as `experiments.poc --adapt` tells it in adapt.json, and both measurements."""

    before: Result
    after: Result
    minutes: float
    steps: int
    seconds: float  # of computing: training with its compilation, publishing, exporting
    weights: int  # bytes that a decoder fetches
    machine: str
    halves: dict[str, list[str]]  # names of the pictures to learn from, to choose by, to judge by

    @property
    def comparison(self) -> Comparison:
        """After against before."""
        return compare(self.after, self.before)


@dataclasses.dataclass(frozen=True)
class BreakEven:
    """Money of a first year, in `Volumes.currency`."""

    computing: float
    weights: float  # fetched by every decoder, and stored
    saved: float  # by a picture a month: twelve in the year
    gigabytes: float  # saved by a million pictures

    @property
    def pictures(self) -> float | None:
        """A month, from which on the year saves more than it costs; None where nothing is saved."""
        return (self.computing + self.weights) / self.saved if self.saved > 0 else None


def read(path: Path, found: list[Result]) -> Adaptation:
    """The adaptation that adapt.json tells of, with its two results out of `found`. Raises: ReportError."""
    try:
        about = json.loads(path.read_text())
        told = {key: about[key] for key in KEPT}
    except (OSError, ValueError, LookupError, TypeError):
        raise ReportError(f"{path} tells of no finished adaptation: make one with experiments.poc --adapt") from None
    ours = {result.codec: result for result in found if result.ours}
    names = told["model"], f"{told['model']}-adapted"
    if missing := [name for name in names if name not in ours]:
        raise ReportError(f"the adaptation of {path} is of {missing[0]}, of which there is no result")
    before, after = (ours[name] for name in names)
    parts = {part: list(names) for part, names in told["halves"].items()}
    numbers = told["minutes"], told["steps"], told["spent_seconds"], told["weights_bytes"]
    return Adaptation(before, after, *numbers, told["machine"], parts)


def break_even(adaptation: Adaptation, volumes: Volumes) -> BreakEven | None:
    """When it pays; None where one of the curves was not measured at `volumes.psnr`."""
    rates = [rate_at(r.bpp[r.rising], r.psnr[r.rising], volumes.psnr) for r in (adaptation.before, adaptation.after)]
    if None in rates:
        return None
    gigabytes = (rates[0] - rates[1]) * volumes.pixels / 8 * MILLION / GB
    a_month = STORED_MONTHS * volumes.storage_price + 12 * volumes.downloads * volumes.transfer_price
    weights = adaptation.weights / GB
    return BreakEven(
        computing=adaptation.seconds / 3600 * volumes.compute_price,
        weights=weights * (volumes.decoders * volumes.transfer_price + 12 * volumes.storage_price),
        saved=gigabytes / MILLION * a_month,
        gigabytes=gigabytes,
    )


def worth(adaptation: Adaptation) -> bool:
    """Whether the adapted weights need fewer bits on pictures that they did not see, over all and on most of them."""
    comparison = adaptation.comparison
    rate, most = comparison.rate, 2 * len(comparison.lost) < len(comparison.images)
    return rate is not None and rate.value < -SAME and most


def verdict(adaptation: Adaptation, others: list[Result], volumes: Volumes) -> list[str]:
    """Plain sentences: which weights to use, against whom that changes what, and from how many pictures on it pays."""
    comparison, name = adaptation.comparison, adaptation.before.label
    rate, count = comparison.rate, len(adaptation.after.names)
    time = f"{adaptation.minutes:g} minutes ({adaptation.steps:,} steps) on {len(adaptation.halves['train'])} pictures"
    if rate is None:
        lines = [f"Keep the weights of {name}: before and after cannot be compared, {comparison.reason}."]
    elif worth(adaptation):
        lines = [
            f"Use the adapted weights: after {time}, {count} others need {sections.percent(rate.value)} than with "
            f"{name} at equal quality."
        ]
    elif rate.value > SAME:
        lines = [
            f"Keep the weights of {name}: after {time}, {count} others need {sections.percent(rate.value)} at equal "
            "quality. More pictures to learn from, or more minutes, may change that."
        ]
    elif rate.value < -SAME:
        lines = [
            f"Keep the weights of {name}: after {time}, {count} others need {sections.percent(rate.value)} taken "
            "together, but no more than half of them do."
        ]
    else:
        lines = [
            f"Keep the weights of {name}: {time} change nothing on {count} others ({sections.percent(rate.value)}). "
            "More pictures to learn from, or more minutes, may change that."
        ]
    if comparison.lost:
        total = len(comparison.images)
        lines.append(f"  {len(comparison.lost)} of {total} pictures need more bits than before.")
    for other in others:
        before, after = (compare(ours, other).rate for ours in (adaptation.before, adaptation.after))
        if before and after:
            lines.append(
                f"  Against {other.label}: {sections.percent(before.value)} before, "
                f"{sections.percent(after.value)} after."
            )
    return lines + ["  " + pays(adaptation, volumes)]


def pays(adaptation: Adaptation, volumes: Volumes) -> str:
    """The break-even in a sentence."""
    found, unit = break_even(adaptation, volumes), volumes.currency
    if found is None:
        return f"At {volumes.psnr:g} dB not both were measured, so that no break-even can be told: choose --psnr."
    cost = (
        f"{adaptation.seconds / 3600:.2f} hours of computing and new weights of {adaptation.weights / 1e6:.1f} MB for "
        f"{volumes.decoders:,.0f} decoders cost {found.computing + found.weights:.2f} {unit} in the first year"
    )
    if found.pictures is None or not worth(adaptation):
        return f"It does not pay, however many pictures there are: {cost}, and nothing can be counted on to be saved."
    return (
        f"It pays from {_round(found.pictures):,} pictures a month on: {cost}; a million pictures are "
        f"{found.gigabytes:.2f} GB smaller at {volumes.psnr:g} dB."
    )


def section(adaptation: Adaptation, others: list[Result], volumes: Volumes) -> str:
    """The part of the page, as HTML."""
    said = "".join(f"<li>{escape(line.strip())}</li>" for line in verdict(adaptation, others, volumes))
    rows = []
    for other in others:
        rates = [compare(ours, other).rate for ours in (adaptation.before, adaptation.after)]
        cells = ["–" if rate is None else sections.signed(rate.value, ".1f") + "\u00a0%" for rate in rates]
        rows.append(sections.row(other, cells))
    table = sections.table("Before and after", ("BD-rate against", "Before", "After"), rows)
    money = savings.adapting(volumes, adaptation.weights, adaptation.seconds, adaptation.machine)
    listed = "".join(f"<li>{escape(line)}</li>" for line in money)
    verbs = {"train": "Learnt from", "valid": "Checkpoints chosen by", "test": "Judged by, and seen by no training"}
    names = "".join(
        f"<details><summary>{verb}: {len(adaptation.halves[part])}</summary>"
        f'<ul class="names">{"".join(f"<li>{escape(n)}</li>" for n in adaptation.halves[part])}</ul></details>'
        for part, verb in verbs.items()
    )
    return (
        '<section aria-labelledby="adaptation">\n<h2 id="adaptation">Before and after adapting</h2>\n'
        f"<ul>{said}</ul>{table}"
        "<p>All figures of this page are of the half of the pictures that no training has seen: every other one in the "
        "order of names, equal ones counted as one. Pictures taken one after the other may still be alike.</p>"
        f'{names}<h3>What the break-even assumes</h3><ul class="note">{listed}</ul>\n</section>'
    )


def figures(adaptation: Adaptation, others: list[Result], volumes: Volumes) -> bytes:
    """All of it as JSON: BD-rates in percent, of all pictures that judge and of each; the break-even and its basis."""

    def rate(ours: Result, theirs: Result) -> float | None:
        found = compare(ours, theirs).rate
        return None if found is None else round(found.value, 2)

    both, found = {"before": adaptation.before, "after": adaptation.after}, break_even(adaptation, volumes)
    told = {
        "model": adaptation.before.codec,
        "model_id": adaptation.before.model_id,
        "adapted_id": adaptation.after.model_id,
        "minutes": adaptation.minutes,
        "steps": adaptation.steps,
        "computing_seconds": round(adaptation.seconds),
        "machine": adaptation.machine,
        "weights_bytes": adaptation.weights,
        "halves": adaptation.halves,
        "bd_rate_after_against_before": rate(adaptation.after, adaptation.before),
        "bd_rate": {other.codec: {name: rate(r, other) for name, r in both.items()} for other in others},
        "each_after_against_before": {name: round(value, 2) for name, value in adaptation.comparison.images.items()},
        "curves": {
            r.codec: {"bpp": [round(b, 4) for b in r.bpp], "psnr": [round(p, 3) for p in r.psnr]}
            for r in (*both.values(), *others)
        },
        "worth": worth(adaptation),
        "pictures_a_month": found and worth(adaptation) and found.pictures or None,
        "break_even": found and dataclasses.asdict(found),
        "assumptions": dataclasses.asdict(volumes),
    }
    return to_json(told)


def _round(number: float) -> int:
    """Two digits: more would be pretence."""
    return int(float(f"{number:.2g}")) or 1
