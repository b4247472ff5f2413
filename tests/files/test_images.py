"""Reading, listing and padding images: every expected array is written down by hand, not by the code under test."""

import struct
import zlib

import jax
import numpy as np
import pytest
from PIL import Image, features

from clic_jax.files import images


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


UPRIGHT = {  # EXIF orientation: what a viewer shows of the stored array
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_exif_orientation_is_applied_to_pixels_and_size(tmp_path, pixels, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif, lossless=True)
    expected = UPRIGHT[orientation](pixels)
    np.testing.assert_array_equal(images.read_rgb(path), expected)
    assert images.image_size(path) == expected.shape[:2]


def test_array_is_writable_contiguous_uint8(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = images.read_rgb(tmp_path / "a.png")
    assert read.dtype == np.uint8 and read.flags.c_contiguous and read.flags.writeable


@pytest.mark.parametrize(
    "mode, value, expected",
    [
        ("L", 77, (77, 77, 77)),
        ("1", 255, (255, 255, 255)),
        ("LA", (77, 0), (255, 255, 255)),  # transparent: white
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_modes_become_rgb(tmp_path, mode, value, expected):
    path = tmp_path / "a.tif"
    Image.new(mode, (6, 4), value).save(path)
    np.testing.assert_array_equal(images.read_rgb(path), np.broadcast_to(np.uint8(expected), (4, 6, 3)))


def test_half_transparent_is_half_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 100, 200, 128)).save(tmp_path / "a.png")
    share = 128 / 255
    expected = share * np.array([0, 100, 200]) + (1 - share) * 255
    np.testing.assert_allclose(images.read_rgb(tmp_path / "a.png")[0, 0], expected, atol=1)


def test_transparent_palette_entry_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=1)
    np.testing.assert_array_equal(images.read_rgb(tmp_path / "a.png"), [[[255, 0, 0], [255, 255, 255]]])


def test_16_bit_grey_keeps_the_high_byte(tmp_path):
    samples = np.array([[0, 255, 256, 0x1234, 65535]], np.uint16)
    Image.fromarray(samples).save(tmp_path / "a.png")
    read = images.read_rgb(tmp_path / "a.png")
    np.testing.assert_array_equal(read, np.repeat([[[0], [0], [1], [0x12], [255]]], 3, axis=2))


def test_16_bit_colour_keeps_the_high_byte(tmp_path):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + struct.pack(">6H", 0, 0x1234, 0xFFFF, 0x00FF, 0x0100, 0x8000)  # filter byte, then two pixels
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    np.testing.assert_array_equal(images.read_rgb(tmp_path / "a.png"), [[[0, 0x12, 0xFF], [0, 1, 0x80]]])


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif(tmp_path):
    ramp = np.add.outer(np.arange(64) * 2, np.arange(96))[..., None] + np.array([0, 10, 20])
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "a.avif", quality=95, subsampling="4:4:4")
    assert images.image_size(tmp_path / "a.avif") == (64, 96)
    assert np.abs(images.read_rgb(tmp_path / "a.avif") - ramp).mean() < 3


@pytest.mark.parametrize("samples", [np.full((2, 2), 0.5, np.float32), np.full((2, 2), 70000, np.int32)])
def test_samples_without_an_agreed_range_are_refused(tmp_path, samples):
    Image.fromarray(samples).save(tmp_path / "odd.tif")
    with pytest.raises(images.ImageError, match="odd.tif: .*(floating|16 bits)"):
        images.read_rgb(tmp_path / "odd.tif")


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "missing", "folder"])
def test_unreadable_files_give_one_line_that_names_them(tmp_path, pixels, kind):
    path = tmp_path / "bad.png"
    if kind in ("text", "empty"):
        path.write_text("hello\n" if kind == "text" else "")
    elif kind == "truncated":
        Image.fromarray(pixels).save(path)
        path.write_bytes(path.read_bytes()[:80])  # of about 160
        assert images.image_size(path) == (5, 7)  # only the header is read
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(images.ImageError) as caught:
        images.read_rgb(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(images.ImageError, match="^record 7: "):
        images.read_rgb(path, "record 7")


def test_list_images_is_sorted_recursive_and_picks_by_suffix(tmp_path):
    for name in ("b.PNG", "a.jpg", "sub/deep/c.webp", "notes.txt", "Makefile", ".hidden.png", ".git/d.png", "e.pdf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in images.list_images(tmp_path)] == [
        "a.jpg",
        "b.PNG",
        "sub/deep/c.webp",
    ]
    with pytest.raises(images.ImageError, match="nowhere: no such folder"):
        images.list_images(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "shape, padded",
    [
        ((1, 1, 3), (64, 64, 3)),
        ((64, 64, 3), (64, 64, 3)),
        ((65, 130, 3), (128, 192, 3)),
        ((2, 63, 64, 1), (2, 64, 64, 1)),
        ((3, 2, 64, 65, 3), (3, 2, 64, 128, 3)),
    ],
)
def test_padding_repeats_the_edge_and_crop_undoes_it(shape, padded):
    x = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    height, width = shape[-3:-1]
    amounts = [(0, 0)] * (len(shape) - 3) + [(0, padded[-3] - height), (0, padded[-2] - width), (0, 0)]
    expected = np.pad(x, amounts, mode="edge")
    result = images.pad_to_multiple(x)
    assert result.shape == padded
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(jax.jit(images.pad_to_multiple)(x), expected)
    np.testing.assert_array_equal(result[..., :height, :width, :], x)


def test_padding_to_another_multiple_and_of_nothing():
    assert images.pad_to_multiple(np.zeros((17, 5, 3)), 16).shape == (32, 16, 3)
    with pytest.raises(ValueError, match="without pixels"):
        images.pad_to_multiple(np.zeros((0, 5, 3)))
