"""Pictures of any kind as what a .clic file holds, 8-bit RGB and extras, and back.

What becomes of a picture that is not plain 8-bit RGB:

    grey            coded as RGB; decoded to grey, as the rounded mean of the three channels
    transparency    kept exactly, as a PNG of the 8-bit alpha plane, unless all is opaque. The colour of pixels that
                    cannot be seen is coded as any other, so it comes back roughly
    16 bits         the high byte is kept, with an ImageWarning; 32-bit and floating-point samples are refused
    CMYK            converted to RGB, through its ICC profile where that works; the profile is then left out
    others          palettes, YCbCr and one bit become RGB or grey; of several frames the first is kept, with a warning
    ICC profile     kept and put back; sample values are coded as they are, not converted
    orientation     the EXIF orientation is applied first, then forgotten
    EXIF            kept but for the orientation, the thumbnail, maker notes and pixel counts; XMP and comments are not
"""

import io
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from clic_jax.files.container import MAX_ICC, MAX_SIDE, Damaged, Header, Tag
from clic_jax.files.images import ImageError, opened, to_rgb

_GREY_MODES = ("1", "L", "LA", "La")
_EXIF_TAGS = {  # of the first directory; the others describe how the samples were stored
    *(ExifTags.Base[name] for name in ("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist")),
    *(ExifTags.Base[name] for name in ("HostComputer", "Copyright", "Rating", "RatingPercent")),
    *(ExifTags.Base[name] for name in ("XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject")),
}
_EXIF_LEFT_OUT = {  # of the Exif directory: large and useless elsewhere, wrong once turned, or a directory of its own
    *(ExifTags.Base[name] for name in ("MakerNote", "ExifImageWidth", "ExifImageHeight")),
    ExifTags.IFD.Interop,
}
_SAVE_OPTIONS = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}


class ImageWarning(UserWarning):
    """Something of a picture cannot be kept; one line."""


class Picture(NamedTuple):
    """A picture as the codec and the container take it."""

    rgb: np.ndarray  # uint8 [H, W, 3]
    grey: bool
    extras: dict[Tag, bytes]  # empty bytes where there is nothing to keep


def read(source) -> Picture:
    """The picture in a path, an open binary file, a Pillow image, or a uint8 array [H, W], [H, W, 1 to 4].

    Two and four channels are grey and RGB with alpha. What cannot be kept is told by an ImageWarning.
    Raises: ImageError for what is not a picture, has no pixels or too many, or samples without an agreed range.
    """
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "the image")
        with opened(source, name) as image:
            return _from_image(image)
    if isinstance(source, Image.Image):
        try:
            return _from_image(source)
        except MemoryError:
            raise
        except Exception as error:  # Pillow decodes lazily, and raises anything on damaged files
            raise ImageError(f"the image: {error}") from error
    array = np.asarray(source)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.ndim == 3 and not 1 <= array.shape[2] <= 4:
        raise ImageError(f"an array must be uint8 [H, W] or [H, W, 1 to 4], not {array.dtype} {list(array.shape)}")
    if not array.size:
        raise ImageError(f"an image of no pixels: an array of shape {list(array.shape)}")
    return _from_image(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else np.ascontiguousarray(array)))


def show(x: np.ndarray, header: Header, extras: Mapping[Tag, bytes]) -> Image.Image:
    """Undoes `read`: a Pillow image of mode RGB, L, RGBA or LA, ICC profile and EXIF data in its `info`.

    Args: x: uint8 [H, W, 3]. Raises: Damaged for an alpha plane that does not fit.
    """
    if header.grey:
        x = ((x.sum(-1, dtype=np.uint16) + 1) // 3).astype(np.uint8)
    image = Image.fromarray(x)
    if Tag.ALPHA in extras:
        image.putalpha(_read_alpha(extras[Tag.ALPHA], image.size))
    return attach(image, extras)


def attach(image: Image.Image, extras: Mapping[Tag, bytes]) -> Image.Image:
    """`image` with the ICC profile and EXIF data of a file's extras in its `info`."""
    names = {"icc_profile": Tag.ICC, "exif": Tag.EXIF}
    image.info.update({name: extras[tag] for name, tag in names.items() if tag in extras})
    return image


def format_of(path: str | os.PathLike) -> str:
    """The Pillow format that the suffix of `path` stands for, PNG without one. Raises: ImageError."""
    suffix = Path(path).suffix.lower()
    kind = Image.registered_extensions().get(suffix) if suffix else "PNG"
    if kind not in Image.SAVE:
        raise ImageError(f"{path}: no picture can be written with the suffix {suffix!r}: choose .png, for example")
    return kind


def encoded(image: Image.Image, kind: str) -> bytes:
    """The file of an image in a format of Pillow's, its ICC profile and EXIF data included. Raises: ImageError."""
    file = io.BytesIO()
    extras = {name: image.info[name] for name in ("icc_profile", "exif") if name in image.info}
    try:
        image.save(file, kind, **extras, **_SAVE_OPTIONS.get(kind, {}))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ImageError(f"cannot be written as {kind}: {error}") from error
    return file.getvalue()


def _from_image(image: Image.Image) -> Picture:
    """A Pillow image, which is not changed, as the codec takes it. Raises: ValueError and whatever Pillow raises."""
    raw_modes = str([tile.args for tile in getattr(image, "tile", ())])
    if image.mode.startswith("I") or re.search(";16[BLN]", raw_modes):
        _warn("its 16-bit samples are reduced to 8 bits")
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a JPEG whose other frames are extras
        _warn(f"only the first of its {image.n_frames} frames is kept")
    if not (image.width and image.height):
        raise ValueError("an image of no pixels")
    if max(image.size) > MAX_SIDE:
        raise ValueError(f"a side has more than {MAX_SIDE} pixels, the most that a .clic file can say")
    image.load()
    try:
        exif = _exif(image)
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data: Pillow raises SyntaxError, struct.error, TypeError, KeyError, ...
        exif = b""
        _warn("its EXIF data are damaged and left out")
    profile = image.info.get("icc_profile") or b""
    if len(profile) > MAX_ICC:
        profile = b""
        _warn("its ICC profile is too large to be true and left out")
    if image.mode == "CMYK":
        image, profile = _from_cmyk(image, profile), b""
    grey, alpha = image.mode in _GREY_MODES or image.mode.startswith("I"), b""
    if image.has_transparency_data and not image.mode.startswith("I"):
        image = image.convert("LA" if grey else "RGBA")
        alpha = _write_alpha(image.getchannel("A"))
        image = image.convert("L" if grey else "RGB")
    return Picture(np.array(to_rgb(image)), grey, {Tag.ALPHA: alpha, Tag.ICC: profile, Tag.EXIF: exif})


def _from_cmyk(image: Image.Image, profile: bytes) -> Image.Image:
    if profile:
        try:
            srgb, how = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
            flags = ImageCms.Flags.BLACKPOINTCOMPENSATION  # the usual default of programs that show pictures
            return ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, how, "RGB", flags=flags)
        except (ImageCms.PyCMSError, OSError):
            _warn("its ICC profile cannot be used, so its CMYK colours are only roughly right")
    return image.convert("RGB")


def _exif(image: Image.Image) -> bytes:
    """What is kept of the EXIF data, as a block of its own; b"" where there are none."""
    source, kept = image.getexif(), Image.Exif()
    for tag in sorted(_EXIF_TAGS & set(source)):
        kept[tag] = source[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        values = {tag: v for tag, v in source.get_ifd(directory).items() if tag not in _EXIF_LEFT_OUT}
        if values:
            kept[directory] = values
    return kept.tobytes() if len(kept) else b""


def _write_alpha(plane: Image.Image) -> bytes:
    """The alpha plane [H, W] as a PNG; b"" when all of it is opaque."""
    if plane.getextrema() == (255, 255):
        return b""
    file = io.BytesIO()
    plane.save(file, "PNG", optimize=True)
    return file.getvalue()


def _read_alpha(png: bytes, size: tuple[int, int]) -> Image.Image:
    """Undoes `_write_alpha`. Raises: Damaged."""
    try:
        plane = PngImagePlugin.PngImageFile(io.BytesIO(png))  # Image.open would judge a size that is checked here
        if plane.mode == "L" and plane.size == size:
            plane.load()
            return plane
    except MemoryError:
        raise
    except Exception:  # whatever Pillow raises on damaged files
        pass
    raise Damaged("damaged, for its transparency plane cannot be read: copy or download the file again")


def _warn(text: str):
    warnings.warn(text, ImageWarning, stacklevel=2)
