"""Bjontegaard differences between two rate-distortion curves: percent of bits at equal quality, dB at equal rate.

Source: Bjontegaard 2001, "Calculation of average PSNR differences between RD-curves" (VCEG-M33), whose cubic polynomial
is the method "cubic"; "pchip" (the default, monotone) and "akima" pass through the points, as JCT-VC and JVET do it.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from clic_jax.errors import UserError

METHODS = ("pchip", "akima", "cubic")
# what a metric is called in results; the first two are in dB, the last is a score up to 100
QUALITY = {"psnr": "psnr-rgb", "ms-ssim": "ms-ssim-rgb-db", "ssimulacra2": "ssimulacra2"}


class NoDifference(UserError):
    """Two curves that no BD-rate can be computed of; says why."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Points of a codec in the order of their rate: bits per pixel, and quality, which must both increase."""

    name: str
    bpp: tuple[float, ...]
    quality: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Difference:
    """A BD-rate in percent (negative: fewer bits than the anchor) or a BD-PSNR in dB (positive: better).

    low, high: what it is the mean over, which both curves cover: quality for a BD-rate, bits per pixel for a BD-PSNR.
    """

    value: float
    low: float
    high: float


def curve_of(result: dict, metric: str = "psnr") -> Curve:
    """The curve in a results JSON, without points that lack a value; MS-SSIM as -10 log10(1 - mean)."""
    values = result["results"].get(QUALITY[metric], [])
    points = sorted((bpp, quality) for bpp, quality in zip(result["results"]["bpp"], values) if quality is not None)
    bpp, quality = zip(*points) if points else ((), ())
    return Curve(result["name"], bpp, quality)


def bd_rate(curve: Curve, anchor: Curve, *, method: str = "pchip", bpp_range: Sequence[float] | None = None):
    """The mean difference of log rate over the qualities that both curves cover, as a Difference in percent.

    Args:
      method: one of METHODS.
      bpp_range: (low, high); only qualities that each curve has at these rates, interpolated where they fall between
        two points. All points shape the curves in any case.
    Raises: NoDifference for curves that do not overlap or increase, or with too few points; UserError without scipy.
    """
    low, high = _overlap(curve, anchor, bpp_range, method)
    if not low < high:
        raise NoDifference(_apart("BD-rate", curve, anchor, "quality", "", bpp_range))
    areas = [_integral(c.quality, np.log10(c.bpp), low, high, method) for c in (curve, anchor)]
    return Difference(100 * (10 ** ((areas[0] - areas[1]) / (high - low)) - 1), low, high)


def bd_psnr(curve: Curve, anchor: Curve, *, method: str = "pchip", bpp_range: Sequence[float] | None = None):
    """The mean difference of quality over the log rates that both curves cover, as a Difference in dB.

    Arguments and errors are those of `bd_rate`.
    """
    for c in (curve, anchor):
        _check(c, method)
    limits = bpp_range or (0, math.inf)
    low = max(curve.bpp[0], anchor.bpp[0], limits[0])
    high = min(curve.bpp[-1], anchor.bpp[-1], limits[1])
    if not low < high:
        raise NoDifference(_apart("BD-PSNR", curve, anchor, "bpp", "bpp", bpp_range))
    ends = np.log10([low, high])
    areas = [_integral(np.log10(c.bpp), c.quality, *ends, method) for c in (curve, anchor)]
    return Difference(float((areas[0] - areas[1]) / (ends[1] - ends[0])), low, high)


def _overlap(curve: Curve, anchor: Curve, bpp_range, method: str) -> tuple[float, float]:
    """(low, high) of the qualities that both have, within the range of rates; low >= high if there are none."""
    lows, highs = [], []
    for c in (curve, anchor):
        _check(c, method)
        low, high = bpp_range or (c.bpp[0], c.bpp[-1])
        if high <= c.bpp[0] or low >= c.bpp[-1]:
            return math.inf, -math.inf
        ends = np.log10(np.clip([low, high], c.bpp[0], c.bpp[-1]))
        found = _interpolator(np.log10(c.bpp), c.quality, method)(ends) if bpp_range else (c.quality[0], c.quality[-1])
        lows.append(float(found[0]))
        highs.append(float(found[1]))
    return max(lows), min(highs)


def _check(curve: Curve, method: str):
    """Raises: NoDifference for a curve that the method cannot follow."""
    least = 4 if method == "cubic" else 2
    if len(curve.bpp) < least:
        raise NoDifference(f"no BD-rate: {curve.name} has {len(curve.bpp)} points, and {method} needs {least}")
    rising = np.diff(curve.bpp) > 0, np.diff(curve.quality) > 0
    if not (np.all(rising) and curve.bpp[0] > 0):
        raise NoDifference(f"no BD-rate: the quality of {curve.name} does not increase from each rate to the next")


def _interpolator(x, y, method: str):
    """A function through (or, for a cubic polynomial, near) the points, with x increasing; it has an antiderivative."""
    try:
        from scipy import interpolate
    except ImportError:
        raise UserError("BD-rates need scipy, which is not installed: pip install '.[report]'") from None
    if method == "cubic":
        return np.polynomial.Polynomial.fit(x, y, 3)
    return {"pchip": interpolate.PchipInterpolator, "akima": interpolate.Akima1DInterpolator}[method](x, y)


def _integral(x, y, low: float, high: float, method: str) -> float:
    function = _interpolator(x, y, method)
    primitive = function.integ() if method == "cubic" else function.antiderivative()
    return float(primitive(high) - primitive(low))


def _apart(what: str, curve: Curve, anchor: Curve, field: str, unit: str, bpp_range) -> str:
    """Why there is none, as an error's text."""
    spans = [
        f"{c.name} covers {getattr(c, field)[0]:.4g}..{getattr(c, field)[-1]:.4g} {unit}".rstrip()
        for c in (curve, anchor)
    ]
    within = f" between {bpp_range[0]:g} and {bpp_range[1]:g} bpp" if bpp_range else ""
    return f"no {what}: {' and '.join(spans)}, which do not overlap{within}"
