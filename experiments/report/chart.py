"""The rate-distortion chart as inline SVG: drawn in classes that report.css colours, for light and dark pages alike.

The rate is logarithmic, so that the same horizontal distance is the same saving everywhere, which is what BD-rate
averages. Measured points are joined by straight lines, nothing is smoothed; every curve has a colour, a dash and a
marker of its own and carries its name at its end, so that nobody needs a legend or colour vision.
"""

from html import escape
from typing import NamedTuple

import numpy as np

TICKS = [digit * 10.0**power for power in range(-3, 2) for digit in (1, 1.5, 2, 3, 5, 7)]  # bits per pixel
LABEL_GAP = 15  # pixels between the names of two curves


class Line(NamedTuple):
    """A curve: what it is called, the number of its style in report.css (0 is ours), and its points."""

    label: str
    style: int
    bpp: np.ndarray  # [N], increasing
    value: np.ndarray  # [N], dB


class Frame(NamedTuple):
    """The plot's rectangle in pixels and in values."""

    left: float
    right: float
    top: float
    bottom: float
    low: tuple[float, float]  # smallest bpp and dB
    high: tuple[float, float]

    def x(self, bpp):
        """Pixels of a rate, on a logarithmic scale."""
        share = np.log(np.asarray(bpp) / self.low[0]) / np.log(self.high[0] / self.low[0])
        return self.left + share * (self.right - self.left)

    def y(self, value):
        """Pixels of a quality in dB."""
        return self.bottom - (np.asarray(value) - self.low[1]) / (self.high[1] - self.low[1]) * (self.bottom - self.top)


def chart(lines: list[Line], metric: str, *, width: int, mark: float | None = None) -> str:
    """The SVG of `lines`, our curve last and on top.

    Args:
      metric: what the vertical axis shows, with its unit.
      width: in pixels; text keeps its size, so that a phone gets a chart of its own, not a small copy.
      mark: a quality in dB that the page speaks about, drawn as a dashed line.
    """
    height = round(min(0.62 * width + 60, 520))
    margin = 8 + 7 * max(len(line.label) for line in lines)
    lines = [_cut(line, *_rates(lines)) for line in sorted(lines, key=lambda line: line.style == 0)]
    lines = [line for line in lines if len(line.bpp)]
    low, high = _qualities(lines)
    room = 0.04 * (high - low) + 0.1
    frame = Frame(
        34, width - margin - 18, 34, height - 42, (_rates(lines)[0], low - room), (_rates(lines)[1], high + room)
    )
    parts = [_axes(frame, metric)]
    if mark is not None and frame.low[1] < mark < frame.high[1]:
        y = float(frame.y(mark))
        parts.append(f'<path class="mark" d="M{frame.left} {y:.1f}H{frame.right:.1f}"/>')
    size = f'x="{frame.left}" y="0" width="{width - frame.left}" height="{frame.bottom}"'
    box = f"{frame.left} 0 {width - frame.left} {frame.bottom}"
    curves = "".join(_curve(frame, line) for line in lines)
    parts.append(f'<svg {size} viewBox="{box}">{curves}</svg>')  # which hides what lies below the axis
    parts += _names(frame, lines)
    title = escape(f"{metric} against bits per pixel of {', '.join(line.label for line in lines)}", quote=True)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{title}">{"".join(parts)}</svg>'
    )


def swatch(style: int) -> str:
    """A short piece of the curve of a style, for tables."""
    return (
        f'<svg class="swatch" viewBox="0 0 26 12" width="26" height="12" aria-hidden="true">'
        f'<path class="curve s{style}" d="M1 6H25"/>{_marker(style, 13, 6)}</svg>'
    )


def _rates(lines: list[Line]) -> tuple[float, float]:
    """The rates shown: those of our curve and half an octave around it, where there is one."""
    low, high = (pick([pick(line.bpp) for line in lines]) for pick in (min, max))
    ours = [line for line in lines if line.style == 0]
    if ours:
        low, high = max(low, min(ours[0].bpp) / 1.41), min(high, max(ours[0].bpp) * 1.41)
    return (low, high) if low < high else (low / 1.41, high * 1.41)  # a single point


def _qualities(lines: list[Line]) -> tuple[float, float]:
    """The qualities shown: all above, but below ours 2 dB only, since JPEG falls deep at rates where ours begins."""
    low, high = (float(pick([pick(line.value) for line in lines])) for pick in (min, max))
    ours = [line for line in lines if line.style == 0]
    return (max(low, float(min(ours[0].value)) - 2) if ours else low), high


def _cut(line: Line, low: float, high: float) -> Line:
    """The part of a curve inside the rates shown; where it is cut, the end lies on the straight line drawn."""
    log, value = np.log(line.bpp), line.value
    inside = (line.bpp >= low * (1 - 1e-9)) & (line.bpp <= high * (1 + 1e-9))
    ends = [end for end in np.log([low, high]) if log[0] < end < log[-1] and not np.isclose(log, end).any()]
    cut_log = np.concatenate([log[inside], ends])
    cut_value = np.concatenate([value[inside], np.interp(ends, log, value)])
    order = np.argsort(cut_log)
    return line._replace(bpp=np.exp(cut_log[order]), value=cut_value[order])


def _axes(frame: Frame, metric: str) -> str:
    """Hairlines, their numbers, and the names of both axes."""
    step = next(s for s in (0.2, 0.5, 1, 2, 5, 10, 20) if (frame.high[1] - frame.low[1]) / s <= 8 or s == 20)
    parts = []
    for value in np.arange(np.ceil(frame.low[1] / step) * step, frame.high[1], step):
        y = float(frame.y(value))
        parts.append(f'<path class="grid" d="M{frame.left} {y:.1f}H{frame.right:.1f}"/>')
        parts.append(f'<text class="tick" x="{frame.left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    last = -np.inf
    for bpp in TICKS:
        x = float(frame.x(bpp))
        if frame.left - 1 <= x <= frame.right + 1 and x - last > 34:
            last = x
            parts.append(f'<path class="grid" d="M{x:.1f} {frame.top}V{frame.bottom}"/>')
            parts.append(f'<text class="tick" x="{x:.1f}" y="{frame.bottom + 17}" text-anchor="middle">{bpp:g}</text>')
    parts.append(f'<path class="axis" d="M{frame.left} {frame.bottom}H{frame.right:.1f}"/>')
    parts.append(f'<text class="name" x="4" y="16">{escape(metric)}</text>')
    parts.append(
        f'<text class="name" x="{frame.right:.1f}" y="{frame.bottom + 35}" text-anchor="end">'
        "bits per pixel, logarithmic</text>"
    )
    return "".join(parts)


def _curve(frame: Frame, line: Line) -> str:
    """Lines between the points, and a marker on each."""
    points = list(zip(frame.x(line.bpp), frame.y(line.value)))
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    markers = "".join(_marker(line.style, float(x), float(y)) for x, y in points)
    return f'<g><path class="curve s{line.style}" d="{path}"/>{markers}</g>'


def _marker(style: int, x: float, y: float) -> str:
    """Circle, square, triangle or diamond, by style."""
    shapes = (
        "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
        "M-3.4-3.4h6.8v6.8h-6.8z",
        "M0-4.4L4.4 3.4h-8.8z",
        "M0-4.6L4.6 0L0 4.6L-4.6 0z",
    )
    return f'<path class="point s{style}" transform="translate({x:.1f} {y:.1f})" d="{shapes[style % 4]}"/>'


def _names(frame: Frame, lines: list[Line]) -> list[str]:
    """The curves' names in the right margin, apart from each other, each with a hairline to the end of its curve."""
    ends = [(float(frame.y(line.value[-1])), float(frame.x(line.bpp[-1])), line) for line in lines]
    ends.sort(key=lambda end: end[0])
    places = [y for y, _, _ in ends]
    for i in range(1, len(places)):  # down, where the one above is too near
        places[i] = max(places[i], places[i - 1] + LABEL_GAP)
    limit = frame.bottom
    for i in reversed(range(len(places))):  # and up again, where that left the plot
        places[i] = min(places[i], limit)
        limit = places[i] - LABEL_GAP
    parts = []
    for place, (y, x, line) in zip(places, ends):
        style = "ours" if line.style == 0 else "theirs"
        parts.append(
            f'<path class="leader s{line.style}" d="M{x + 6:.1f} {y:.1f}L{frame.right + 14:.1f} {place:.1f}"/>'
        )
        parts.append(
            f'<text class="label {style}" x="{frame.right + 18:.1f}" y="{place + 4:.1f}">{escape(line.label)}</text>'
        )
    return parts
