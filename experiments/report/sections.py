"""The sections of the page that are tables and sentences, as HTML."""

from html import escape

from experiments.report import savings
from experiments.report.chart import swatch
from experiments.report.results import Comparison, Result

STYLES = ("jpeg", "webp", "avif", "jpegxl", "jpeg2000", "hevc", "vvc")  # styles 1 to 7 of report.css; 0 is ours
NOTHING = "<p>No other codec was measured, so that there is nothing to compare with.</p>"


def style(result: Result) -> int:
    """The number of a codec's style in report.css."""
    if result.ours:
        return 0
    return 1 + (STYLES.index(result.codec) if result.codec in STYLES else sum(result.codec.encode()) % len(STYLES))


def percent(value: float) -> str:
    """Bits of ours in words: -26.2 is "26.2 % fewer bits"."""
    return f"{abs(value):.1f}\u00a0% {'fewer' if value < 0 else 'more'} bits"


def points(results: list[Result]) -> str:
    """Every measured point."""
    rows = []
    for result in results:
        for i, quality in enumerate(result.quality):
            similarity = "–" if result.ms_ssim_db is None else f"{result.ms_ssim_db[i]:.2f}"
            cells = (f"{quality:g}", f"{result.bpp[i]:.4f}", f"{result.psnr[i]:.2f}", similarity)
            times = (f"{result.encoding_time[i]:.3f}", f"{result.decoding_time[i]:.3f}")
            rows.append(row(result, cells + times))
    head = ("Codec", "Setting", "Bits per pixel", "PSNR, dB", "MS-SSIM, dB", "Encode, s", "Decode, s")
    return table("Every measured point", head, rows)


def bd_rates(ours: Result, comparisons: list[Comparison]) -> str:
    """BD-rate and BD-PSNR against each codec, or the reason why there is none."""
    if not comparisons:
        return NOTHING
    rows = []
    for comparison in comparisons:
        rate, gain, known = comparison.rate, comparison.gain, len(comparison.images)
        worse = f"{len(comparison.lost)} of {known}" if known else "–"
        if rate is None:
            rows.append(row(comparison.theirs, (escape(comparison.reason), worse), ("text", ""), (3, 1)))
            continue
        kind = "good" if rate.value < 0 else "bad"
        psnr = signed(gain.value, ".2f") if gain else "–"
        cells = (signed(rate.value, ".1f") + "\u00a0%", psnr, f"{rate.low:.1f}–{rate.high:.1f}", worse)
        rows.append(row(comparison.theirs, cells, (kind, "", "", "")))
    head = ("Against", "BD-rate", "BD-PSNR, dB", "Overlap, dB", "Images lost")
    return (
        f"<p>BD-rate is how many more (+) or fewer (−) bits {escape(ours.label)} needs than the other codec at equal "
        "PSNR, averaged over the qualities that both reach (Bjøntegaard, PCHIP). BD-PSNR is the difference "
        "in quality at equal size.</p>" + table("BD-rate", head, rows)
    )


def saving(results: list[Result], volumes: savings.Volumes, own_psnr: bool) -> str:
    """Bytes and money at equal quality; ours is the first of `results`."""
    costs = [savings.cost(result, volumes) for result in results]
    rows = []
    for result, cost in zip(results, costs):
        if cost is None:
            rows.append(row(result, (f"not measured at {volumes.psnr:g} dB",), ("text",), (6,)))
            continue
        numbers = (cost.gigabytes, cost.storage, cost.transfer, cost.hours, cost.encoding, cost.year)
        rows.append(row(result, [f"{number:,.2f}" if number < 100 else f"{number:,.0f}" for number in numbers]))
    sentences = "".join(f"<li>{escape(savings.sentence(costs[0], cost, volumes))}</li>" for cost in costs[1:] if cost)
    unit = escape(volumes.currency)
    head = ("Codec", "GB", f"Storage, {unit} a month", f"Transfer, {unit}", "Encoding, hours", f"Encoding, {unit}")
    listed = "".join(f"<li>{escape(line)}</li>" for line in savings.assumptions(volumes, own_psnr))
    return (
        f"<ul>{sentences}</ul>"
        + table("A million pictures at that quality, and a first year", (*head, f"First year, {unit}"), rows)
        + f'<h3>What this assumes</h3><ul class="note">{listed}</ul>'
    )


def each(comparisons: list[Comparison]) -> str:
    """How many images we lose to each codec, and which."""
    if not comparisons:
        return NOTHING
    parts = [
        "<p>The same comparison for every image alone: a mean can hide images for which we are the worse choice.</p>"
    ]
    for comparison in comparisons:
        sentence = escape(count(comparison))
        items = "".join(f"<li>{escape(n)}: {percent(comparison.images[n])}</li>" for n in comparison.lost)
        listed = f'<details><summary>{sentence}</summary><ul class="names">{items}</ul></details>'
        parts.append(listed if items else f"<p>{sentence}</p>")
        if comparison.uneven:
            parts.append(f'<p class="note">{escape(before(comparison))}</p>')
    return "\n".join(parts)


def count(comparison: Comparison) -> str:
    """On how many images ours loses to a codec."""
    total, mine, other = len(comparison.images), comparison.ours.label, comparison.theirs.label
    if not total:
        return f"{other}: no image has curves that can be compared"
    rest = f"; on {len(comparison.unknown)} more the curves cannot be compared" if comparison.unknown else ""
    return f"{other}: {mine} needs more bits on {len(comparison.lost)} of {total} image{'s' * (total != 1)}{rest}"


def before(comparison: Comparison) -> str:
    """What it means that a codec's quality does not rise with its rate."""
    return (
        f"On {len(comparison.uneven)} of {len(comparison.ours.names)} images the quality of {comparison.theirs.label} "
        "does not rise with the size throughout, or nothing is lost: so it is with images that have been through that "
        "codec before, which flatters it. Curves are compared up to there; originals that have not would be fairer."
    )


def protocol(results: list[Result]) -> str:
    """How it was measured, with which settings and versions."""
    rows = []
    for result in results:
        versions = ", ".join(f"{key} {value}" for key, value in result.versions.items())
        text = "; ".join(filter(None, (result.description, versions, result.ours and f"model {result.model_id}")))
        rows.append(f"<dt>{escape(result.label)}</dt><dd>{escape(text)}</dd>")
    return f"<p>{escape(results[0].protocol)}</p><dl>{''.join(rows)}</dl>"


def signed(value: float, form: str) -> str:
    """With + or a true minus."""
    return ("+" if value >= 0 else "−") + format(abs(value), form)


def row(result: Result, cells, kinds=None, spans=None) -> str:
    """A codec's row; `cells` are HTML."""
    kinds, spans = kinds or [""] * len(cells), spans or [1] * len(cells)
    columns = "".join(
        f"<td{f' class={kind}' * bool(kind)}{f' colspan={span}' * (span > 1)}>{cell}</td>"
        for cell, kind, span in zip(cells, kinds, spans)
    )
    mine = ' class="mine"' * result.ours
    return f'<tr{mine}><th scope="row">{swatch(style(result))}{escape(result.label)}</th>{columns}</tr>'


def table(name: str, head, rows: list[str]) -> str:
    """A table that scrolls inside its own box where the screen is narrow."""
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f"<table><thead><tr>{cells}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )
