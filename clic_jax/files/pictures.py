"""Pictures of any kind as what a .clic file holds, 8-bit RGB and extras, and back.

What becomes of a picture that is not plain 8-bit RGB:

    grey            coded as RGB; decoded to grey, as the rounded mean of the three channels
    transparency    kept exactly, as a PNG of the 8-bit alpha plane, unless all is opaque. The colour of pixels that
                    cannot be seen is coded as any other, so it comes back roughly
    16 bits         the high byte is kept, of 12 bits the upper eight, with an ImageWarning; 32-bit and floating-point
                    samples are refused
    CMYK, Lab       converted to RGB, CMYK through its ICC profile where that works; the profile is then left out
    others          palettes, YCbCr and one bit become RGB or grey; of several frames the first is kept, with a warning
    ICC profile     kept and put back; sample values are coded as they are, not converted. One for other samples, and
                    the gamma and primaries of a PNG that are not those of sRGB, are left out, with a warning
    orientation     the EXIF orientation is applied first, then forgotten
    EXIF            kept but for the orientation, the thumbnail, maker notes and pixel counts, unless it is too long;
                    XMP and comments are not
    resolution      kept in the EXIF data, unless it is the 72 dots an inch that stand for none
"""

import contextlib
import io
import os
import re
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from clic_jax.files.container import MAX_ICC, MAX_PIXELS, MAX_SIDE, Damaged, Header, Tag
from clic_jax.files.images import ImageError, check_pixels, eight_bits, opened, samples_of, to_rgb

MAX_EXIF = 65533  # bytes, the most that a JPEG can hold

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
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
_SRGB_GAMMA = 1 / 2.2
_SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # x, y of white, red, green, blue, as cHRM has them


class ImageWarning(UserWarning):
    """Something of a picture cannot be kept; one line."""


class Picture(NamedTuple):
    """A picture as the codec and the container take it."""

    rgb: np.ndarray  # uint8 [H, W, 3]
    grey: bool
    extras: dict[Tag, bytes]  # empty bytes where there is nothing to keep


def read(source, max_pixels: int | None = MAX_PIXELS) -> Picture:
    """The picture in a path, an open binary file, a Pillow image, or a uint8 array [H, W], [H, W, 1 to 4].

    Two and four channels are grey and RGB with alpha. What cannot be kept is told by an ImageWarning.
    max_pixels: larger pictures are refused, files by their header; None for no limit but MAX_SIDE.
    Raises: ImageError for what is not a picture, has no pixels or too many, or samples without an agreed range.
    """
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "the image")
        with opened(source, name) as image:
            return _from_image(image, max_pixels)
    if isinstance(source, Image.Image):
        try:
            return _from_image(source, max_pixels)
        except MemoryError:
            raise
        except Exception as error:  # Pillow decodes lazily, and raises anything on damaged files
            raise ImageError(f"the image: {error}") from error
    array = np.asarray(source)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.ndim == 3 and not 1 <= array.shape[2] <= 4:
        raise ImageError(f"an array must be uint8 [H, W] or [H, W, 1 to 4], not {array.dtype} {list(array.shape)}")
    if not array.size:
        raise ImageError(f"an image of no pixels: an array of shape {list(array.shape)}")
    array = array[..., 0] if array.shape[2:] == (1,) else np.ascontiguousarray(array)
    try:
        return _from_image(Image.fromarray(array), max_pixels)
    except ValueError as error:
        raise ImageError(f"the image: {error}") from error


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
    """`image` with the ICC profile, EXIF data and resolution (dpi) of a file's extras in its `info`."""
    names = {"icc_profile": Tag.ICC, "exif": Tag.EXIF}
    image.info.update({name: extras[tag] for name, tag in names.items() if tag in extras})
    with contextlib.suppress(Exception):  # on damaged EXIF data Pillow raises SyntaxError, struct.error, KeyError, ...
        exif = Image.Exif()
        exif.load(extras.get(Tag.EXIF, b""))
        if dpi := _dpi(exif):
            image.info["dpi"] = dpi
    return image


def _from_image(image: Image.Image, max_pixels: int | None) -> Picture:
    """A Pillow image, which is not changed, as the codec takes it. Raises: ValueError and whatever Pillow raises."""
    check_pixels(image, max_pixels)
    raw_modes, samples = str([tile.args for tile in getattr(image, "tile", ())]), samples_of(image)
    if image.mode.startswith("I") or re.search(";16[BLN]", raw_modes):
        _warn(f"its {samples.bits}-bit samples are reduced to 8 bits")
    if samples.key is None and "transparency" in image.info:
        _warn("the colour that is transparent in it cannot be told in 8 bits: all of it is opaque")
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a JPEG whose other frames are extras
        _warn(f"only the first of its {image.n_frames} frames is kept")
    if not (image.width and image.height):
        raise ValueError("an image of no pixels")
    if max(image.size) > MAX_SIDE:
        raise ValueError(f"a side has more than {MAX_SIDE} pixels, the most that a .clic file can say")
    turn = getattr(image, "tag_v2", {}).get(ExifTags.Base.Orientation)  # of a TIFF, which Pillow turns when it loads it
    image.load()
    try:
        exif = _exif(image, turn)
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data: Pillow raises SyntaxError, struct.error, TypeError, KeyError, ...
        exif = b""
        _warn("its EXIF data are damaged and left out")
    if len(exif) > MAX_EXIF:
        exif = b""
        _warn("its EXIF data are too long to be put into other files again, and left out")
    profile = _profile(image)
    if image.mode == "CMYK":
        image, profile = _from_cmyk(image, profile), b""
    elif image.mode == "LAB":
        profile = b""  # of the samples as they were; Pillow converts them to sRGB
    image = eight_bits(image, samples)
    grey, alpha = image.mode in _GREY_MODES, b""
    if profile[36:40] == b"acsp" and profile[16:20] not in (b"RGB ", b"GRAY" if grey else b"RGB "):
        _warn(f"its ICC profile is for {profile[16:20].decode('ascii', 'replace').strip()} samples and left out")
        profile = b""
    if image.has_transparency_data:
        image = image.convert("LA" if grey else "RGBA")
        alpha = _write_alpha(image.getchannel("A"))
        image = image.convert("L" if grey else "RGB")
    return Picture(np.array(to_rgb(image)), grey, {Tag.ALPHA: alpha, Tag.ICC: profile, Tag.EXIF: exif})


def _profile(image: Image.Image) -> bytes:
    """Its ICC profile; b"" where there is none, with a warning where colours are told in another way."""
    info = image.info
    profile = info.get("icc_profile") or b""
    if len(profile) > MAX_ICC:
        _warn("its ICC profile is too large to be true and left out")
        return b""
    told = [info.get("gamma", _SRGB_GAMMA), *info.get("chromaticity", _SRGB_PRIMARIES)]
    if not profile and "srgb" not in info and not np.allclose(told, [_SRGB_GAMMA, *_SRGB_PRIMARIES], atol=0.002):
        _warn("its gamma and primaries are not those of sRGB and left out: convert it to sRGB to keep its colours")
    if len(set(info.get("aspect", (1, 1)))) > 1:
        _warn("its pixels are not square, which is not kept")
    return profile


def _from_cmyk(image: Image.Image, profile: bytes) -> Image.Image:
    if profile:
        try:
            srgb, how = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
            flags = ImageCms.Flags.BLACKPOINTCOMPENSATION  # the usual default of programs that show pictures
            return ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, how, "RGB", flags=flags)
        except (ImageCms.PyCMSError, OSError):
            _warn("its ICC profile cannot be used, so its CMYK colours are only roughly right")
    return image.convert("RGB")


def _exif(image: Image.Image, turn: int | None) -> bytes:
    """What is kept of the EXIF data, as a block of its own; b"" where there are none.

    turn: the orientation, where the EXIF data no longer have it.
    """
    source, kept = image.getexif(), Image.Exif()
    for tag in sorted(_EXIF_TAGS & set(source)):
        kept[tag] = source[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        values = {tag: v for tag, v in source.get_ifd(directory).items() if tag not in _EXIF_LEFT_OUT}
        if values:
            kept[directory] = values
    if dpi := image.info.get("dpi") or _dpi(source):
        x, y = (round(float(value), 1) for value in dpi)  # a PNG counts dots a metre
        if (turn or source.get(ExifTags.Base.Orientation)) in _TURNED:
            x, y = y, x
        if 1 < min(x, y) and max(x, y) < 1e6 and (x, y) != (72, 72):  # Pillow says 1 for a TIFF without
            kept.update({ExifTags.Base.XResolution: x, ExifTags.Base.YResolution: y, ExifTags.Base.ResolutionUnit: 2})
    return kept.tobytes() if len(kept) else b""


def _dpi(exif: Image.Exif) -> tuple[float, float] | None:
    """The resolution in dots an inch, across and down, of EXIF data that have both."""
    x, y = (exif.get(tag) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution))
    unit = {2: 1.0, 3: 2.54}.get(exif.get(ExifTags.Base.ResolutionUnit, 2))  # inch, cm
    return None if None in (x, y, unit) else (float(x) * unit, float(y) * unit)


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
