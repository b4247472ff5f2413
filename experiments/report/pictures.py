"""The pictures of the page: one photograph by ours and by the classical codecs in files of the same size.

What is shown is never resampled: a crop of at most 512x512 pixels around the region with the most detail, stored
lossless. Bytes and PSNR are those of the whole file and the whole picture.
"""

import base64
import dataclasses
import io
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from clic_jax import api, metrics
from clic_jax.files import images
from experiments.rd_eval import codecs
from experiments.report.results import ReportError, Result

CROPS = (512, 448, 384, 320, 256, 192, 128)  # sides, the first with which the page stays below its limit
MAX_BYTES = 14_000_000  # of all pictures as they stand in the page
COMPARED = ("jpeg", "webp", "avif")  # codecs whose quality is a whole number, larger for larger files


@dataclasses.dataclass(frozen=True)
class Version:
    """A picture as one codec shows it."""

    key: str
    label: str
    pixels: np.ndarray  # uint8 [H, W, 3], whole
    setting: str  # of the codec
    bytes: int | None  # of the file; None for the original
    psnr: float | None  # dB, of the whole picture


@dataclasses.dataclass(frozen=True)
class Picture:
    """A photograph and its versions, the original first, ours second."""

    name: str
    why: str  # it was chosen
    versions: list[Version]


def make(folder: Path, chosen: dict[str, str], ours: Result, *, model, quality: float, names) -> list[Picture]:
    """The pictures of `chosen` ({name in folder: why}) at `quality` of our model, and by the codecs `names`.

    Raises: ReportError for other pixels than were measured; ImageError; CheckpointError; MissingCodec; QualityError.
    """
    compared = [codecs.open_codec(name) for name in names]
    pictures = []
    for name, why in tqdm(chosen.items(), desc="pictures", unit="image", disable=None):
        x = images.read_rgb(folder / name)
        if ours.checksums.get(name, check := f"{zlib.crc32(x.tobytes()):08x}") != check:
            raise ReportError(f"{folder / name} is not the image that was measured: name that folder with --data")
        content = api.compress(x, quality=quality, model=model)
        versions = [
            Version("original", "Original", x, "", None, None),
            _version(
                "ours",
                ours.label,
                x,
                content,
                api.decompress(content, model=model, max_pixels=None),
                f"quality {quality:g}",
            ),
        ]
        for codec in compared:
            setting, coded = same_size(codec, x, len(content))
            versions.append(_version(codec.name, codec.label, x, coded, codec.decode(coded), f"quality {setting}"))
        pictures.append(Picture(name, why, versions))
    return pictures


def same_size(codec: codecs.Codec, x: np.ndarray, size: int) -> tuple[int, bytes]:
    """(quality, file) of the codec's largest file of at most `size` bytes, found by bisection.

    Sizes need not rise strictly with the quality: the answer is the best of the files tried, and the file of the next
    quality above was too large. Where even the lowest quality is too large, that file.
    """
    low, high = (int(limit) for limit in codec.limits)
    best = (low, codec.encode(x, low))
    while len(best[1]) <= size and low < high:
        middle = (low + high + 1) // 2
        coded = codec.encode(x, middle)
        if len(coded) > size:
            high = middle - 1
            continue
        low = middle
        if len(coded) >= len(best[1]):
            best = (middle, coded)
    return best


def detail(x: np.ndarray, side: int) -> tuple[slice, slice]:
    """Rows and columns of the `side` x `side` crop with the largest sum of differences between neighbours.

    x: uint8 [H, W, 3]. A shorter side is taken whole.
    """
    grey = x.astype(np.int64).sum(-1)
    change = np.zeros(grey.shape, np.int64)
    change[1:] += np.abs(np.diff(grey, axis=0))
    change[:, 1:] += np.abs(np.diff(grey, axis=1))
    total = np.pad(change.cumsum(0).cumsum(1), [(1, 0), (1, 0)])
    height, width = (min(side, length) for length in grey.shape)
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    row, column = np.unravel_index(sums.argmax(), sums.shape)
    return slice(int(row), int(row) + height), slice(int(column), int(column) + width)


def embedded(pictures: list[Picture], limit: int = MAX_BYTES) -> tuple[int, list[list[str]]]:
    """(side, data URIs of each picture's versions): crops of the largest side with which all stay below `limit` bytes.

    Raises: ReportError if the smallest crops are still too much.
    """
    for side in CROPS:
        uris = []
        for picture in pictures:
            place = detail(picture.versions[0].pixels, side)
            uris.append([_data_uri(version.pixels[place]) for version in picture.versions])
        if sum(len(uri) for row in uris for uri in row) <= limit:
            return side, uris
    raise ReportError(f"{len(pictures)} pictures do not fit in one page: ask for fewer with --images")


def _version(key: str, label: str, x: np.ndarray, coded: bytes, decoded: np.ndarray, setting: str) -> Version:
    x_hat = decoded[: x.shape[0], : x.shape[1]]
    return Version(key, label, x_hat, setting, len(coded), float(metrics.psnr(x, x_hat)))


def _data_uri(x: np.ndarray) -> str:
    """The pixels as lossless WebP inside a data: URI."""
    file = io.BytesIO()
    Image.fromarray(x).save(file, "WEBP", lossless=True, exact=True, quality=50, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
