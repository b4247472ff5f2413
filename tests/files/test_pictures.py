"""What becomes of grey, transparent, deep, CMYK, turned and annotated pictures, without any codec."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from clic_jax.files import pictures
from clic_jax.files.container import MAX_SIDE, Damaged, Header, Tag
from clic_jax.files.images import ImageError
from clic_jax.files.pictures import ImageWarning, read, show
from clic_jax.quality import Quality
from tests.conftest import photograph

RGB = photograph(20, 30)
GREY = RGB[..., 0]
ALPHA = np.arange(600, dtype=np.uint8).reshape(20, 30)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def stored(image, kind: str, **options) -> io.BytesIO:
    """An image or array as an open file."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    file.seek(0)
    return file


def back(picture) -> np.ndarray:
    """A picture as it would be shown if the codec lost nothing."""
    h, w = picture.rgb.shape[:2]
    extras = {tag: content for tag, content in picture.extras.items() if content}
    return np.asarray(show(picture.rgb, Header(w, h, Quality(5000), "0" * 8, 0, grey=picture.grey), extras))


@pytest.fixture(autouse=True)
def no_warnings():
    """A warning is a failure unless a test expects it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImageWarning)
        yield


@pytest.mark.parametrize(
    "pixels",
    [RGB, GREY, np.dstack([GREY, ALPHA]), np.dstack([RGB, ALPHA]), RGB[:1, :1], GREY[:1, :1], RGB[::2, ::-1]],
    ids=["rgb", "grey", "grey and alpha", "rgba", "one pixel", "one grey pixel", "strided"],
)
def test_arrays_come_back(pixels):
    assert np.array_equal(back(read(pixels)), pixels)
    assert np.array_equal(back(read(Image.fromarray(np.ascontiguousarray(pixels)))), pixels)


def test_files_paths_and_arrays_are_the_same(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(stored(RGB, "PNG").getvalue())
    for source in (path, str(path), open(path, "rb"), stored(RGB, "PNG"), RGB):
        assert np.array_equal(read(source).rgb, RGB)


def test_one_channel_is_grey():
    assert np.array_equal(back(read(GREY[..., None])), GREY)


def test_grey_is_the_rounded_mean():
    x = np.array([[[0, 0, 1], [0, 1, 1], [255, 255, 254], [255, 255, 255]]], np.uint8)
    assert np.asarray(show(x, Header(4, 1, Quality(5000), "0" * 8, 0, grey=True), {})).tolist() == [[0, 1, 255, 255]]


def test_opaque_alpha_is_not_stored():
    picture = read(np.dstack([RGB, np.full_like(GREY, 255)]))
    assert not picture.extras[Tag.ALPHA] and np.array_equal(back(picture), RGB)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "1"])
def test_transparency_of_every_kind(mode):
    grey = mode in ("LA", "L", "1")
    if mode in ("RGBA", "LA"):
        image = Image.fromarray(np.dstack([GREY if grey else RGB, ALPHA]))
    elif mode == "P":
        image = Image.fromarray(RGB).quantize(16)
    else:
        image = Image.fromarray(GREY if grey else RGB).convert(mode)
    key = {"P": 3, "L": int(GREY[0, 0]), "RGB": tuple(map(int, RGB[0, 0])), "1": 255}.get(mode)
    file = stored(image, "PNG", **({} if key is None else {"transparency": key}))
    expected = np.asarray(Image.open(file).convert("LA" if grey else "RGBA"))
    assert 0 < np.count_nonzero(expected[..., -1] < 255)
    file.seek(0)
    assert np.array_equal(back(read(file)), expected)


def png_of(width: int, rows: list[bytes], depth: int, colour: int, **chunks: bytes) -> io.BytesIO:
    """A PNG put together by hand, for what Pillow does not write: rows of samples, chunks by name before them."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    before = [chunk(name.encode(), content) for name, content in chunks.items()]
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return io.BytesIO(b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *before, pixels, chunk(b"IEND", b"")]))


def png16(colour: int, samples: np.ndarray, **chunks: bytes) -> io.BytesIO:
    """A PNG of 16-bit samples [H, W, C]; Pillow writes grey ones only."""
    return png_of(samples.shape[1], [row.astype(">u2").tobytes() for row in samples], 16, colour, **chunks)


@pytest.mark.parametrize("colour, channels", [(0, 1), (2, 3), (6, 4)])
def test_high_byte_of_16_bits(colour, channels):
    samples = np.random.default_rng(0).integers(0, 65536, (5, 4, channels))
    with pytest.warns(ImageWarning, match="16-bit samples are reduced"):
        picture = read(png16(colour, samples))
    expected = (samples >> 8).astype(np.uint8)
    assert np.array_equal(back(picture), expected[..., 0] if channels == 1 else expected)


def test_16_bit_tiff():
    with pytest.warns(ImageWarning):
        assert np.array_equal(back(read(stored(GREY.astype(np.uint16) * 257, "TIFF"))), GREY)


def cmyk_profile() -> bytes:
    """A CMYK profile (ICC.1, lut8Type) under which only black ink can be seen: L* = 100 (1 - K)."""
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    clut = bytes([255, 128, 128, 0, 128, 128]) * 2**3
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + clut + identity * 3
    about = struct.pack(">I4sI4s4s4s", 144 + len(lut), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    white = struct.pack(">3i", 63190, 65536, 54061)
    header = (about + bytes(28) + white).ljust(128, b"\0")
    return header + struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut


def test_cmyk():
    image = Image.fromarray(RGB).convert("CMYK")
    file = stored(image, "TIFF")
    assert np.array_equal(back(read(file)), np.asarray(image.convert("RGB")))
    half = Image.merge("CMYK", [*image.split()[:3], Image.new("L", image.size, 128)])
    picture = read(stored(half, "TIFF", icc_profile=cmyk_profile()))
    assert not picture.extras[Tag.ICC]  # it says nothing about RGB
    assert np.abs(picture.rgb.astype(int) - 118).max() <= 2  # sRGB of L* = 50
    with pytest.warns(ImageWarning, match="roughly"):
        assert np.array_equal(back(read(stored(image, "TIFF", icc_profile=PROFILE))), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_icc_profile_is_kept(kind):
    assert read(stored(RGB, kind, icc_profile=PROFILE)).extras[Tag.ICC] == PROFILE


def some_exif(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Model] = "camera"
    exif[ExifTags.Base.XResolution] = 300.0
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "2020:01:02 03:04:05",
        ExifTags.Base.MakerNote: bytes(5000),
        ExifTags.Base.ExifImageWidth: 30,
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSAltitude: 12.0}
    return exif.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_is_kept_and_orientation_applied(kind):
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    picture = read(stored(RGB, kind, exif=some_exif(), **lossless))
    assert np.abs(picture.rgb.astype(int) - np.rot90(RGB, -1)).max() <= (9 if kind == "JPEG" else 0)
    kept = Image.Exif()
    kept.load(picture.extras[Tag.EXIF])
    assert ExifTags.Base.Orientation not in kept and kept[ExifTags.Base.Model] == "camera"
    assert set(kept) == {ExifTags.Base.Model, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
    assert dict(kept.get_ifd(ExifTags.IFD.Exif)) == {ExifTags.Base.DateTimeOriginal: "2020:01:02 03:04:05"}
    assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSAltitude] == 12
    assert len(picture.extras[Tag.EXIF]) < 300


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation):
    turns = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.swapaxes(0, 1),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(RGB),
    }
    assert np.array_equal(read(stored(RGB, "PNG", exif=some_exif(orientation))).rgb, turns[orientation])


def test_orientation_turns_alpha_too():
    rgba = np.dstack([RGB, ALPHA])
    assert np.array_equal(back(read(stored(rgba, "PNG", exif=some_exif(8)))), np.rot90(rgba))


def test_damaged_exif_does_not_stop_us():
    with pytest.warns(ImageWarning, match="EXIF"):
        picture = read(stored(RGB, "PNG", exif=b"Exif\0\0rubbish and more of it"))
    assert np.array_equal(picture.rgb, RGB) and not picture.extras[Tag.EXIF]


def test_source_is_not_changed():
    image = Image.open(stored(np.dstack([RGB, ALPHA]), "PNG", exif=some_exif(), icc_profile=PROFILE))
    before = image.tobytes(), dict(image.info), dict(image.getexif())
    read(image)
    assert (image.tobytes(), dict(image.info), dict(image.getexif())) == before


def test_first_frame():
    frames = [Image.fromarray(RGB[..., k]) for k in range(3)]
    file = stored(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.warns(ImageWarning, match="first of its 3 frames"):
        assert read(file).rgb.shape == RGB.shape


def test_profiles_of_absurd_size_are_left_out(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_ICC", 100)
    with pytest.warns(ImageWarning, match="ICC"):
        assert not read(stored(RGB, "PNG", icc_profile=PROFILE)).extras[Tag.ICC]


@pytest.mark.parametrize(
    "source, message",
    [
        (np.zeros((4, 5, 3)), "uint8"),
        (np.zeros((4, 5, 3), np.uint16), "uint8"),
        (np.zeros(4, np.uint8), "uint8"),
        (np.zeros((4, 5, 5), np.uint8), "uint8"),
        (np.zeros((2, 4, 5, 3), np.uint8), "uint8"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (Image.new("L", (MAX_SIDE + 1, 1)), "more than"),
        (Image.new("F", (5, 5)), "floating-point"),
        (io.BytesIO(b"no picture"), "the image: not an image"),
        ("nowhere/x.png", "nowhere/x.png: no such file"),
        (io.BytesIO(stored(RGB, "PNG").getvalue()[:300]), "the image: "),
        (Image.open(io.BytesIO(stored(RGB, "PNG").getvalue()[:300])), "the image: "),
        (None, "uint8"),
    ],
)
def test_what_is_no_picture(source, message):
    with pytest.raises(ImageError, match=message):
        read(source)


@pytest.mark.parametrize(
    "png",
    [
        b"",
        b"rubbish",
        stored(GREY[1:], "PNG").getvalue(),
        stored(RGB, "PNG").getvalue(),
        stored(GREY, "WEBP").getvalue(),
        stored(GREY, "PNG").getvalue()[:200],
    ],
    ids=["empty", "rubbish", "size", "mode", "format", "cut"],
)
def test_alpha_that_does_not_fit(png):
    with pytest.raises(Damaged, match="transparency"):
        show(RGB, Header(30, 20, Quality(5000), "0" * 8, 0), {Tag.ALPHA: png})
