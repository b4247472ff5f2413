"""Decoded pictures as files of other formats: what these cannot hold is refused or told."""

import io
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image

from clic_jax.files import outputs
from clic_jax.files.container import Tag
from clic_jax.files.images import ImageError
from clic_jax.files.pictures import ImageWarning, read
from tests.files.test_pictures import ALPHA, GREY, PROFILE, RGB, some_exif, stored


@pytest.mark.parametrize("name, kind", [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a", "PNG"), ("a.b.webp", "WEBP")])
def test_format_of_a_name(name, kind):
    assert outputs.format_of(name) == kind


@pytest.mark.parametrize("name", ["a.txt", "a.psd", "a.clicx"])
def test_formats_that_cannot_be_written(name):
    with pytest.raises(ImageError, match="suffix"):
        outputs.format_of(name)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_encoded(kind):
    image = Image.fromarray(RGB)
    image.info |= {"icc_profile": PROFILE, "exif": read(stored(RGB, "PNG", exif=some_exif())).extras[Tag.EXIF]}
    found = Image.open(io.BytesIO(outputs.encoded(image, kind)))
    assert found.info["icc_profile"] == PROFILE and found.getexif()[ExifTags.Base.Model] == "camera"
    assert np.abs(np.asarray(found).astype(int) - RGB).max() <= (40 if kind == "JPEG" else 0)


def test_alpha_that_the_format_lacks():
    with pytest.raises(ImageError, match="cannot be written as JPEG"):
        outputs.encoded(Image.fromarray(np.dstack([RGB, ALPHA])), "JPEG")


RGBA = np.dstack([RGB, ALPHA])


def full(pixels) -> Image.Image:
    """A decoded picture with all that one can have besides pixels."""
    image = Image.fromarray(pixels)
    exif = read(stored(RGB, "PNG", exif=some_exif(), dpi=(300, 300))).extras[Tag.EXIF]
    image.info |= {"icc_profile": PROFILE, "exif": exif, "dpi": (300, 300)}
    return image


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_formats_that_keep_everything(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Image.open(io.BytesIO(outputs.encoded(full(RGBA), kind)))
    assert found.info["icc_profile"] == PROFILE and found.getexif()[ExifTags.Base.XResolution] == 300
    assert np.array_equal(np.asarray(found)[..., 3], ALPHA)


@pytest.mark.parametrize(
    "pixels, kind, lost",
    [
        (RGBA, "JPEG2000", "JPEG2000 does not keep its ICC profile and EXIF data and resolution"),
        (RGB, "PPM", "PPM does not keep its ICC profile and EXIF data and resolution"),
        (RGB, "BMP", "BMP does not keep its ICC profile and EXIF data"),
        (RGB, "PDF", "PDF does not keep its ICC profile and EXIF data and resolution"),
        (RGB, "GIF", "GIF keeps 256 of its colours"),
    ],
)
def test_what_a_format_does_not_keep_is_told(pixels, kind, lost):
    with pytest.warns(ImageWarning) as told:
        assert outputs.encoded(full(pixels), kind)
    assert lost in [str(w.message).split(":")[0] for w in told]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert outputs.encoded(Image.fromarray(GREY), "PNG" if kind == "JPEG2000" else kind)  # has none of it


@pytest.mark.parametrize(
    "pixels, kind, lost",
    [
        (RGBA, "PPM", "its transparency"),
        (RGBA, "BMP", "its transparency"),
        (RGBA, "GIF", "its transparency"),
        (np.repeat(RGB, 20, 1), "ICO", "pictures of 600 x 20 pixels"),
        (RGB, "ICNS", "pictures of 30 x 20 pixels"),
        (GREY, "SPIDER", "8-bit samples"),
    ],
)
def test_pictures_that_a_format_cannot_hold_are_refused(pixels, kind, lost):
    with pytest.raises(ImageError, match=f"^{kind} cannot hold {lost}: choose"):
        outputs.encoded(Image.fromarray(pixels), kind)


def test_exif_of_old_files_that_is_too_long():
    image = full(RGB)
    image.info["exif"] = bytes(70_000)
    with pytest.warns(ImageWarning, match="EXIF data are too long"):
        assert outputs.encoded(image, "JPEG")
