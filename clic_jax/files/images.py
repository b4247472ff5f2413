"""Photographs as arrays: any file that Pillow reads becomes uint8 RGB, and any size becomes a multiple of 64.

Sample values are taken as they are stored: embedded colour profiles are not applied, as is usual in this field, so that
the distortion is measured on the same numbers as other codecs measure it on.
"""

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from clic_jax.errors import UserError

_EXIF_ORIENTATION = 0x0112
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap height and width


class ImageError(UserError):
    """A file that is not an image, or an image that cannot be shown as 8-bit RGB; one line that names the file."""


def read_rgb(source: str | os.PathLike | BinaryIO, name: str | None = None) -> np.ndarray:
    """The image as uint8 [H, W, 3], upright.

    The EXIF orientation is applied. Grey, palette and CMYK are converted to RGB; of 16-bit samples the high byte is
    kept; transparent parts are shown on white, as a page would show them. Of several frames the first is read.

    Args:
        source: a path, or a binary file object.
        name: what errors call the image; the path by default.

    Raises:
        ImageError: the file is missing, damaged or no image, or its samples have no agreed range (32-bit, float).
    """
    with opened(source, name) as image:
        return np.array(to_rgb(ImageOps.exif_transpose(image)))


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
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder")
    Image.init()
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
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


@contextlib.contextmanager
def opened(source, name: str | None):
    """The file opened by Pillow; whatever goes wrong until the end of the block is an ImageError."""
    try:
        with Image.open(source) as image:
            yield image
    except MemoryError:
        raise
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, struct.error, IndexError, ...
        reason = "not an image that Pillow can read" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror.lower()
        raise ImageError(f"{name or source}: {' '.join(reason.split()) or type(error).__name__}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """An upright Pillow image of any mode as mode RGB."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        samples = np.asarray(image).astype(np.int64)
        if samples.size and not 0 <= samples.min() <= samples.max() <= 65535:
            raise ValueError(f"samples from {samples.min()} to {samples.max()} do not fit in 16 bits")
        return Image.fromarray((samples >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point samples have no agreed range; convert the file to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
