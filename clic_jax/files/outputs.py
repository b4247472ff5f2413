"""Decoded pictures as files of other formats, and what these cannot hold: refused or told, never lost in silence."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from clic_jax.files.images import ImageError, opened
from clic_jax.files.pictures import MAX_EXIF, ImageWarning

_SAVE_OPTIONS = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
_MODES = ("RGB", "L", "RGBA", "LA")  # of decoded pictures; a format that gives back others has made something else
_EXTRAS = {"icc_profile": "ICC profile", "exif": "EXIF data", "dpi": "resolution"}


def format_of(path: str | os.PathLike) -> str:
    """The Pillow format that the suffix of `path` stands for, PNG without one. Raises: ImageError."""
    suffix = Path(path).suffix.lower()
    kind = Image.registered_extensions().get(suffix) if suffix else "PNG"
    if kind not in Image.SAVE:
        raise ImageError(f"{path}: no picture can be written with the suffix {suffix!r}: choose .png, for example")
    return kind


def encoded(image: Image.Image, kind: str) -> bytes:
    """The file of a decoded picture in a format of Pillow's; ICC profile, EXIF data and resolution are put into it.

    An ImageWarning tells which of them the format does not keep, and when it keeps 256 colours alone.
    Raises: ImageError where it cannot hold the size, the transparency, or the picture at all.
    """
    file, extras = io.BytesIO(), {name: image.info[name] for name in _EXTRAS if name in image.info}
    if len(extras.get("exif", b"")) > MAX_EXIF:
        del extras["exif"]
        _warn("its EXIF data are too long for other formats and left out")
    try:
        image.save(file, kind, **extras, **_SAVE_OPTIONS.get(kind, {}))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ImageError(f"cannot be written as {kind}: {error}") from error
    if kind in Image.OPEN:
        with opened(file, f"the {kind} that was written") as found:
            lost = _compared(image, found, kind, extras)
    else:
        lost = list(extras)
    if lost:
        _warn(f"{kind} does not keep its {' and '.join(_EXTRAS[name] for name in lost)}: choose .png to keep all")
    return file.getvalue()


def _compared(image: Image.Image, found: Image.Image, kind: str, extras: dict) -> list[str]:
    """Which of the extras are not in the file that `found` was read from. Raises: ImageError, as `encoded`."""
    problem = None
    if found.size != image.size:
        problem = "pictures of {} x {} pixels".format(*image.size)
    elif image.has_transparency_data and not _keeps_alpha(image, found):
        problem = "its transparency"
    elif found.mode not in (*_MODES, "P"):
        problem = "8-bit samples"
    if problem:
        raise ImageError(f"{kind} cannot hold {problem}: choose .png, for example")
    if found.mode == "P" and not np.array_equal(found.convert(image.mode), image):
        _warn(f"{kind} keeps 256 of its colours: choose .png to keep all")
    kept = {name for name in ("icc_profile", "dpi") if name in found.info} | ({"exif"} if found.getexif() else set())
    if "exif" in kept:
        kept.add("dpi")  # in the EXIF data
    return [name for name in extras if name not in kept]


def _keeps_alpha(image: Image.Image, found: Image.Image) -> bool:
    """Whether `found` is transparent as well; a palette, of which few colours are, exactly so."""
    if not found.has_transparency_data or found.mode != "P":
        return found.has_transparency_data
    return found.convert("RGBA").getchannel("A").tobytes() == image.getchannel("A").tobytes()


def _warn(text: str):
    warnings.warn(text, ImageWarning, stacklevel=3)
