"""The page: fills template.html with what was measured, of which all that comes from files or options is escaped."""

from html import escape
from pathlib import Path
from string import Template

from experiments.report import sections
from experiments.report.chart import Line, chart
from experiments.report.results import Comparison, Result
from experiments.report.savings import Volumes

HERE = Path(__file__).parent
WIDTHS = {"wide": 952, "narrow": 328}  # of the charts, in pixels: a screen's and a phone's
SMALL_SAMPLE = 10  # fewer images prove little
SAME = 0.5  # percent of bits within which two codecs count as equal


def page(
    comparisons: list[Comparison], ours: Result, volumes: Volumes, own_psnr: bool, pictures: str, adaptation: str = ""
) -> str:
    """The HTML.

    Args:
      comparisons: ours against every other codec.
      own_psnr: whether the quality in `volumes` was asked for.
      pictures: the section of pictures as HTML, of `viewers.viewers` or a sentence.
      adaptation: `adaptation.section`, or nothing.
    """
    others = [comparison.theirs for comparison in comparisons]
    results, count = [ours, *others], len(ours.names)
    parts = {
        "title": escape(f"{ours.label} against {_listing([r.label for r in others])}" if others else ours.label),
        "lead": escape(lead(ours)),
        "verdicts": "\n".join(_card(comparison) for comparison in comparisons),
        "images": f"{count} image" + "s" * (count != 1),
        "charts": _charts(results, "PSNR, dB", [r.psnr for r in results], volumes.psnr),
        "similarity": _similarity(results),
        "points": sections.points(results),
        "bd": sections.bd_rates(ours, comparisons),
        "saving": sections.saving(results, volumes, own_psnr),
        "each": sections.each(comparisons),
        "pictures": pictures,
        "adaptation": adaptation,
        "protocol": sections.protocol(results),
        "css": (HERE / "report.css").read_text(),
        "js": (HERE / "report.js").read_text(),
    }
    return Template((HERE / "template.html").read_text()).substitute(parts)


def outcome(comparison: Comparison) -> str:
    """Ours against one codec over the whole set, in a plain sentence."""
    rate, mine, other = comparison.rate and comparison.rate.value, comparison.ours.label, comparison.theirs.label
    if rate is None:
        return f"{mine} and {other} cannot be compared: {comparison.reason}."
    if abs(rate) < SAME:
        return f"{mine} is as good as {other} ({sections.percent(rate)} at equal quality)."
    if rate < 0:
        return f"{mine} saves {-rate:.1f}\u00a0% of the bits of {other} at equal quality."
    return f"{mine} loses to {other}: it needs {rate:.1f}\u00a0% more bits at equal quality."


def lead(ours: Result) -> str:
    """What was measured, and how far it can be trusted."""
    count = len(ours.names)
    if count == 1:
        return "Measured on one image only, which proves little: other images can turn out quite differently."
    few = " So few are a first impression, no proof." if count < SMALL_SAMPLE else ""
    return f"Measured on {count} images; every size is the length of a real file.{few}"


def _card(comparison: Comparison) -> str:
    """The outcome as large as it deserves."""
    rate, label = comparison.rate and comparison.rate.value, escape(comparison.theirs.label)
    if rate is None:
        return f"<li><b>No comparison</b>with {label}: {escape(comparison.reason)}</li>"
    if abs(rate) < SAME:
        return f"<li><b>Equal</b>to {label} within {SAME:g}\u00a0% of its bits</li>"
    if rate < 0:
        return f'<li class="good"><b>{-rate:.1f}\u00a0% fewer bits</b>than {label} at equal PSNR</li>'
    return f'<li class="bad"><b>{rate:.1f}\u00a0% more bits</b>than {label} at equal PSNR: we\u00a0lose</li>'


def _charts(results: list[Result], metric: str, values: list, mark: float | None = None) -> str:
    """The chart for a screen and for a phone."""
    lines = [Line(r.label, sections.style(r), r.bpp, value) for r, value in zip(results, values)]
    return "\n".join(
        f'<figure class="{name}">{chart(lines, metric, width=width, mark=mark)}</figure>'
        for name, width in WIDTHS.items()
    )


def _similarity(results: list[Result]) -> str:
    """The curves in MS-SSIM, where all were measured so."""
    values = [result.ms_ssim_db for result in results]
    if any(value is None for value in values):
        return ""
    charts = _charts(results, "MS-SSIM, dB", values)
    return f"<details>\n<summary>The same curves by MS-SSIM</summary>\n{charts}\n</details>"


def _listing(labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
