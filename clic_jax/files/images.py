"""Photographs as arrays: any file that Pillow reads becomes uint8 RGB, and any size becomes a multiple of 64.

Sample values are taken as they are stored: embedded colour profiles are not applied, as is usual in this field, so that
the distortion is measured on the same numbers as other codecs measure it on.
"""

import contextlib
import os
import threading
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from clic_jax.errors import UserError
from clic_jax.files.container import MAX_ICC, MAX_PIXELS

_EXIF_ORIENTATION = 0x0112
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap height and width


class ImageError(UserError):
    """A file that is not an image, or an image that cannot be shown as 8-bit RGB; one line that names the file."""


def read_rgb(source: str | os.PathLike | BinaryIO, name: str | None = None) -> np.ndarray:
    """The image as uint8 [H, W, 3], upright.

    The EXIF orientation is applied. Grey, palette and CMYK are converted to RGB; of 16-bit samples the high byte is
    kept, of 12-bit ones the upper eight bits; transparent parts are shown on white, as a page would show them. Of
    several frames the first is read.

    Args:
        source: a path, or a binary file object.
        name: what errors call the image; the path by default.

    Raises:
        ImageError: the file is missing, damaged or no image, or its samples have no agreed range (32-bit, float).
    """
    with opened(source, name) as image:
        check_pixels(image, MAX_PIXELS)
        samples = samples_of(image)
        return np.array(to_rgb(eight_bits(ImageOps.exif_transpose(image), samples)))


def image_size(source: str | os.PathLike | BinaryIO, name: str | None = None) -> tuple[int, int]:
    """(height, width) in pixels as `read_rgb` would give it, from the header only.

    Raises: ImageError for a file that is missing or no image. A damaged body is not noticed.
    """
    with opened(source, name) as image:
        # Pillow has already turned the size of a TIFF; and the EXIF block of a PNG may stand behind its pixels, where
        # asking for it would decode the whole file
        known = image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info)
        turned = not known and image.getexif().get(_EXIF_ORIENTATION) in _TRANSPOSED
        return image.size if turned else image.size[::-1]


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Every image in `folder` and the folders below it, sorted by path; hidden files and folders are left out.

    An image is a file with a suffix, in either case, of a format that this Pillow can open.
    Raises: ImageError if `folder` is not a folder.
    """
    return list_files(folder, suffixes())


def suffixes() -> set[str]:
    """The suffixes, in lower case and with their dots, of the formats that this Pillow can open."""
    Image.init()
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def list_files(folder: str | os.PathLike, suffixes: set[str]) -> list[Path]:
    """Every file in `folder` and the folders below it with one of these suffixes, otherwise as `list_images`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in found if not any(p.startswith(".") for p in path.relative_to(folder).parts))


def pad_to_multiple(x, multiple: int = 64):
    """`x` [..., H, W, C] with its last row and column repeated until H and W are multiples of `multiple`.

    Works on NumPy and JAX arrays, inside jit too. `pad_to_multiple(x)[..., :H, :W, :]` is `x`.
    """
    for axis in (-3, -2):
        size = x.shape[axis]
        if size < 1:
            raise ValueError(f"cannot pad an image without pixels: shape {x.shape}")
        padded = -(-size // multiple) * multiple
        if padded != size:
            index = np.minimum(np.arange(padded), size - 1)
            x = x[..., index, :, :] if axis == -3 else x[..., index, :]
    return x


def check_pixels(image: Image.Image, most: int | None):
    """Raises: ValueError for a picture of more pixels than `most`, by its header; None is no limit."""
    if most is not None and image.width * image.height > most:
        size = f"{image.width} x {image.height} pixels"
        raise ValueError(f"{size} are more than the limit of {most}: raise the limit if you trust the file")


@contextlib.contextmanager
def opened(source, name: str | None):
    """The file opened by Pillow, whatever its size (`check_pixels`); what goes wrong in the block is an ImageError."""
    try:
        with _own_limits, Image.open(source) as image:
            yield image
    except (MemoryError, ImageError):
        raise
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, struct.error, IndexError, ...
        reason = "not an image that Pillow can read" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror.lower()
        raise ImageError(f"{name or source}: {' '.join(reason.split()) or type(error).__name__}") from error


class _OwnLimits:
    """Lifts limits that Pillow has for a whole process while a `with` lasts, in any number of threads at a time.

    They are of pixels, in whose stead `check_pixels` stands, and of ICC profiles in a PNG, which may have MAX_ICC.
    """

    def __init__(self):
        self._lock, self._inside, self._before = threading.Lock(), 0, ()

    def __enter__(self):
        with self._lock:
            if not self._inside:
                self._before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
                Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, MAX_ICC
            self._inside += 1

    def __exit__(self, *_):
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = self._before


_own_limits = _OwnLimits()


class Samples(NamedTuple):
    """What Pillow does not tell of a file once its pixels are loaded, and does not heed itself."""

    bits: int  # of deep grey samples that lie in 16
    white_is_zero: bool  # of them
    key: int | tuple | None  # the one grey or colour that is transparent, as the samples say it; None for none


def samples_of(image: Image.Image) -> Samples:
    """The `Samples` of an image that is not loaded yet."""
    raw = str([tile.args for tile in getattr(image, "tile", ())])
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    deep = image.mode.startswith("I;16") and image.format == "TIFF"
    bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0] if deep else 16
    key = image.info.get("transparency")
    if isinstance(key, int) and image.mode == "L":
        key *= {"L;2": 85, "L;4": 17}.get(raw.strip("['(,)]"), 1)  # the samples are spread to 8 bits, the key is not
    if isinstance(key, int) and image.mode == "1":
        key = 255 * bool(key)  # Pillow 11 says 1 where 12 says 255, as its samples are
    if ";16" in raw and not isinstance(key, int):
        key = None  # a colour of 16 bits, of which Pillow keeps the high bytes
    return Samples(bits, deep and tags.get(ExifTags.Base.PhotometricInterpretation) == 0, key)


def eight_bits(image: Image.Image, samples: Samples) -> Image.Image:
    """`image` with deep grey samples as L or LA, and a transparent grey or colour as its pixels have it."""
    if not image.mode.startswith("I"):
        if image.info.get("transparency") != samples.key:
            image = image.copy()
            image.info["transparency"] = samples.key
            if samples.key is None:
                del image.info["transparency"]
        return image
    values = np.asarray(image).astype(np.int64)
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError(f"samples from {values.min()} to {values.max()} do not fit in 16 bits")
    grey = Image.fromarray((values >> samples.bits - 8).astype(np.uint8) ^ np.uint8(255 * samples.white_is_zero))
    if samples.key is not None:
        grey.putalpha(Image.fromarray(np.where(values == samples.key, 0, 255).astype(np.uint8)))
    return grey


def to_rgb(image: Image.Image) -> Image.Image:
    """An upright Pillow image of any mode that `eight_bits` gives, as mode RGB."""
    if image.mode == "F":
        raise ValueError("floating-point samples have no agreed range; convert the file to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
