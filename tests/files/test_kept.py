"""What stands beside the samples, or says how to read them: kept, heeded or told, never lost in silence."""

import io
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from clic_jax.files import images
from clic_jax.files.container import Tag
from clic_jax.files.images import ImageError
from clic_jax.files.pictures import MAX_EXIF, ImageWarning, attach, read
from tests.files.test_pictures import GREY, PROFILE, RGB, back, cmyk_profile, no_warnings, png16, png_of, stored  # noqa: F401


def read_deep(file):
    """(the picture, what is told besides the loss of bits)."""
    with pytest.warns(ImageWarning) as told:
        picture = read(file)
    first, *more = (str(w.message) for w in told)
    assert "samples are reduced to 8 bits" in first
    return picture, more


def test_transparent_grey_of_16_bits():
    """Of two greys with the same high byte, the one that the file names."""
    samples = np.array([[[1000], [1001], [60000]]])
    picture, more = read_deep(png16(0, samples, tRNS=struct.pack(">H", 1000)))
    assert back(picture).tolist() == [[[3, 0], [3, 255], [234, 255]]] and not more
    assert images.read_rgb(png16(0, samples, tRNS=struct.pack(">H", 1000)))[0, :, 0].tolist() == [255, 3, 234]


@pytest.mark.parametrize(
    "depth, row, key, grey", [(1, 0b01000000, 1, 255), (2, 0b00110000, 3, 255), (4, 0x0B, 11, 187)]
)
def test_transparent_grey_of_few_bits(depth, row, key, grey):
    picture = read(png_of(2, [bytes([row])], depth, 0, tRNS=struct.pack(">H", key)))
    assert back(picture).tolist() == [[[0, 255], [grey, 0]]]


def test_transparent_colour_of_16_bits():
    """Pillow has the high bytes alone, in which colours look transparent that are not."""
    samples = np.array([[[3, 7, 11], [1000, 2000, 3000]]])
    picture, more = read_deep(png16(2, samples, tRNS=struct.pack(">3H", 3, 7, 11)))
    assert back(picture).tolist() == [[[0, 0, 0], [3, 7, 11]]]
    assert len(more) == 1 and "transparent" in more[0]


def tiff(bits: int, photometric: int, row: bytes, width: int) -> io.BytesIO:
    """A TIFF of one row of grey samples, for what Pillow does not write."""
    fields = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 122, 277: 1, 278: 1, 279: len(row)}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in fields.items())
    return io.BytesIO(b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + row)


@pytest.mark.parametrize(
    "bits, photometric, row, expected",
    [
        (12, 1, bytes([0xFF, 0xF8, 0x00]), [255, 128]),
        (16, 1, struct.pack("<2H", 65535, 32768), [255, 128]),
        (16, 0, struct.pack("<2H", 65535, 32768), [0, 127]),  # white is zero
    ],
)
def test_deep_tiffs(bits, photometric, row, expected):
    picture, more = read_deep(tiff(bits, photometric, row, 2))
    assert back(picture).tolist() == [expected] and not more
    assert images.read_rgb(tiff(bits, photometric, row, 2))[0, :, 0].tolist() == expected


def test_profiles_are_of_the_samples_that_are_kept():
    """A Lab picture becomes sRGB, so its profile goes; one that cannot be right goes, too, with a word."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = Image.fromarray(RGB).convert("RGB")
    assert not read(stored(Image.new("LAB", (5, 4), (128, 128, 128)), "TIFF", icc_profile=lab)).extras[Tag.ICC]
    for profile in (lab, cmyk_profile()):
        with pytest.warns(ImageWarning, match="its ICC profile is for (Lab|CMYK) samples and left out"):
            assert not read(stored(image, "PNG", icc_profile=profile)).extras[Tag.ICC]
    assert read(stored(GREY, "PNG", icc_profile=PROFILE)).extras[Tag.ICC] == PROFILE


def test_large_profiles_of_a_png():
    """Pillow alone refuses those of more than a megabyte, which are real."""
    profile = np.random.default_rng(0).bytes(3 * 2**20)
    assert read(stored(RGB, "PNG", icc_profile=profile)).extras[Tag.ICC] == profile


SRGB = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


@pytest.mark.parametrize(
    "chunks, told",
    [
        ({"gAMA": struct.pack(">I", 100000)}, "gamma and primaries"),
        ({"cHRM": SRGB[:8] + struct.pack(">6I", 68000, 32000, 26500, 69000, 15000, 6000)}, "gamma and primaries"),
        ({"gAMA": struct.pack(">I", 45455), "cHRM": SRGB}, None),
        ({"sRGB": b"\0", "gAMA": struct.pack(">I", 100000)}, None),  # sRGB comes first, says the standard
        ({"pHYs": struct.pack(">IIB", 2, 1, 0)}, "not square"),
    ],
)
def test_what_a_png_says_of_its_samples(chunks, told):
    file = png_of(1, [b"\x80"], 8, 0, **chunks)
    if told is None:
        read(file)
        return
    with pytest.warns(ImageWarning, match=told):
        read(file)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"dpi": (300, 150)}, (300, 150)),
        ({"dpi": (300, 150), "orientation": 6}, (150, 300)),
        ({"dpi": (72, 72)}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_resolution(kind, options, expected):
    """Kept in the EXIF data, turned with the picture; 72 dots an inch say nothing, and no bytes are spent on them."""
    exif = Image.Exif()
    if turn := options.get("orientation"):
        exif[ExifTags.Base.Orientation] = turn
    extras = read(stored(RGB, kind, **{name: options[name] for name in ("dpi",) if name in options}, exif=exif)).extras
    assert attach(Image.fromarray(RGB), {t: v for t, v in extras.items() if v}).info.get("dpi") == expected
    assert bool(extras[Tag.EXIF]) == (expected is not None)


def test_exif_that_is_too_long_for_other_files():
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * MAX_EXIF
    with pytest.warns(ImageWarning, match="EXIF data are too long"):
        assert not read(stored(RGB, "PNG", exif=exif)).extras[Tag.EXIF]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "WEBP"])
def test_limits_are_ours(kind, monkeypatch):
    """Pillow's own, of the whole process, is lifted while we read, and back afterwards."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = stored(GREY, kind)
    assert read(file, max_pixels=600).rgb.shape == RGB.shape and images.read_rgb(file).shape == RGB.shape
    for source in (file, Image.fromarray(GREY), GREY):
        with pytest.raises(ImageError, match="30 x 20 pixels are more than the limit of 599: raise the limit"):
            read(source, max_pixels=599)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(Image.DecompressionBombError):
        Image.open(file)
