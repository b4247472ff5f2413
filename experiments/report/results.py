"""Results of `experiments.rd_eval` read back and compared: curves, rates at equal quality, who wins on which image."""

import dataclasses
from pathlib import Path

import numpy as np

from clic_jax.errors import UserError
from experiments import bd_rate, plot_rd
from experiments.rd_eval import codecs


class ReportError(UserError):
    """Results of which no report can be made; one line that says what is missing."""


MEANS = ("bpp", "psnr-rgb", "encoding_time", "decoding_time")


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """One codec on one set of images. Lists over qualities are sorted by rate."""

    codec: str  # the name of the file
    label: str  # for people
    description: str
    model_id: str | None  # of ours; None for a classical codec
    quality: list[float]
    bpp: np.ndarray  # [qualities], means over images
    psnr: np.ndarray  # dB
    ms_ssim_db: np.ndarray | None  # None where it was not measured
    encoding_time: np.ndarray  # seconds an image
    decoding_time: np.ndarray
    rows: list[dict]  # per image and quality
    data: str | None  # the folder as it was given
    checksums: dict[str, str]  # CRC-32 of each image's pixels
    protocol: str
    versions: dict

    @property
    def ours(self) -> bool:
        """Whether it is a model of clic_jax."""
        return self.model_id is not None

    @property
    def names(self) -> list[str]:
        """The images, in order."""
        return list(dict.fromkeys(row["name"] for row in self.rows))

    @property
    def pixels(self) -> float:
        """Mean pixels of an image."""
        sizes = {row["name"]: row["width"] * row["height"] for row in self.rows}
        return float(np.mean(list(sizes.values())))

    def measured(self, image: str) -> int:
        """How many points an image has."""
        return sum(row["name"] == image for row in self.rows)

    @property
    def rising(self) -> slice:
        """The points that are compared, see `rising`."""
        return rising(self.psnr)

    def curve(self, image: str | None = None) -> bd_rate.Curve:
        """The part that is compared of the mean curve, or of that of one image."""
        bpp, psnr = self.bpp, self.psnr
        if image is not None:
            rows = [row for row in self.rows if row["name"] == image and row["psnr-rgb"] is not None]
            points = sorted((row["bpp"], row["psnr-rgb"]) for row in rows)
            bpp, psnr = (np.array([point[i] for point in points], float) for i in (0, 1))
        part = rising(psnr)
        return bd_rate.Curve(self.label, tuple(bpp[part]), tuple(psnr[part]))


def rising(psnr: np.ndarray) -> slice:
    """The first points of a curve, up to where the quality falls although the rate rises.

    It falls for a codec that an image has been through before: near the setting of that time it loses almost nothing,
    a little above it more. From there on no rate can be named for a quality, below there is nothing wrong.
    """
    falls = np.flatnonzero(np.diff(psnr) <= 0)
    return slice(0, int(falls[0]) + 1 if len(falls) else len(psnr))


def read(folder: Path) -> list[Result]:
    """The results in a folder that rest on real files; ours first, then as in `codecs.CODECS`.

    Raises: ReportError if there are none, or one is incomplete; PlotError if one is damaged, or of other images.
    """
    found = plot_rd.load([str(folder)])  # published curves among them, which have no rows per image
    files = {name: content for name, content in found.items() if "per_image" in content and not content.get("estimate")}
    results = [_result(name, content) for name, content in files.items()]
    if not results:
        raise ReportError(f"{folder} has no results of files: run experiments.rd_eval without --estimate")
    order = {name: i for i, name in enumerate(codecs.CODECS)}
    return sorted(results, key=lambda r: (not r.ours, order.get(r.codec, len(order)), r.codec))


def choose(results: list[Result], name: str | None) -> tuple[Result, list[Result]]:
    """(our result that the page is about, the classical ones). Raises: ReportError if that is not clear."""
    ours = {result.codec: result for result in results if result.ours}
    known = ", ".join(ours) or "none"
    if name is None and len(ours) != 1:
        raise ReportError(f"there must be one clic_jax model to report on, or a choice with --codec ({known})")
    if name is not None and name not in ours:
        raise ReportError(f"no results of a clic_jax model called {name!r} ({known})")
    return ours[name or next(iter(ours))], [result for result in results if not result.ours]


def rate_at(rate, psnr, quality: float) -> float | None:
    """The rate of a curve at a quality in dB, PCHIP of the logarithm of the rate; None outside the measured points.

    rate, psnr: [N], psnr increasing; `rate` is any positive quantity, such as bits or seconds.
    """
    from scipy.interpolate import PchipInterpolator

    if not psnr[0] <= quality <= psnr[-1]:
        return None
    log = np.log(rate)
    return float(np.exp(PchipInterpolator(psnr, log)(quality) if len(psnr) > 1 else log[0]))


def overlap(results: list[Result]) -> tuple[float, float] | None:
    """The qualities in dB that all curves reach; None where there are none."""
    parts = [r.psnr[r.rising] for r in results]
    low, high = max(part[0] for part in parts), min(part[-1] for part in parts)
    return (float(low), float(high)) if low < high else None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Ours against one codec. BD-rates are percent of bits: negative where ours needs fewer."""

    ours: Result
    theirs: Result
    rate: bd_rate.Difference | None  # of the mean curves
    gain: bd_rate.Difference | None  # BD-PSNR in dB
    reason: str  # why there is no rate
    images: dict[str, float]  # BD-rate of each image
    unknown: list[str]  # images that have none, as their curves do not overlap
    uneven: list[str]  # images on which the other codec's quality does not rise with the rate, or is perfect

    @property
    def lost(self) -> list[str]:
        """Images on which ours needs more bits, the worst first."""
        return sorted((name for name, value in self.images.items() if value > 0), key=lambda name: -self.images[name])


def compare(ours: Result, theirs: Result) -> Comparison:
    """Ours against one codec, over all images and image by image."""
    images = {name: _bd_rate(ours.curve(name), theirs.curve(name))[0] for name in ours.names}
    rate, reason = _bd_rate(ours.curve(), theirs.curve())
    try:
        gain = bd_rate.bd_psnr(ours.curve(), theirs.curve())
    except bd_rate.NoDifference:
        gain = None
    known = {name: found.value for name, found in images.items() if found}
    unknown = [name for name in images if name not in known]
    uneven = [name for name in ours.names if len(theirs.curve(name).bpp) < theirs.measured(name)]
    return Comparison(ours, theirs, rate, gain, reason, known, unknown, uneven)


def _bd_rate(curve: bd_rate.Curve, anchor: bd_rate.Curve) -> tuple[bd_rate.Difference | None, str]:
    """(BD-rate, ""), or (None, why not)."""
    try:
        return bd_rate.bd_rate(curve, anchor), ""
    except bd_rate.NoDifference as error:
        return None, str(error)


def _result(codec: str, content: dict) -> Result:
    """A Result of parsed JSON. Raises: ReportError."""
    try:
        means, rows = content["results"], content["per_image"]
        use = [i for i, value in enumerate(means["psnr-rgb"]) if value is not None]  # None: some image was lossless
        order = sorted(use, key=lambda i: means["bpp"][i])
        curves = {key: _column(means[key], order) for key in MEANS}
        similarity = means.get("ms-ssim-rgb-db", [None] * len(means["bpp"]))
        known = all(similarity[i] is not None for i in order)
        if not order or not all(np.isfinite(curve).all() for curve in curves.values()) or min(curves["bpp"]) <= 0:
            raise ValueError("no point with a PSNR and a rate")
        if not all(row["name"] and row["width"] * row["height"] > 0 and row["bpp"] > 0 for row in rows):
            raise ValueError("rows without a size")
        return Result(
            codec=codec,
            label=str(content["name"]),
            description=str(content.get("description", "")),
            model_id=content.get("model_id"),
            quality=[content["quality"][i] for i in order],
            bpp=curves["bpp"],
            psnr=curves["psnr-rgb"],
            ms_ssim_db=_column(similarity, order) if known else None,
            encoding_time=curves["encoding_time"],
            decoding_time=curves["decoding_time"],
            rows=rows,
            data=content.get("data"),
            checksums=content.get("images") or {},
            protocol=str(content.get("protocol", "")),
            versions=content.get("versions") or {},
        )
    except (ValueError, LookupError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ReportError(
            f"{codec}.json is incomplete ({reason}): measure it again with experiments.rd_eval"
        ) from error


def _column(values: list, order: list[int]) -> np.ndarray:
    return np.array([values[i] for i in order], float)
