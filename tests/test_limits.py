"""Limits hold at every entry: the library, the Pillow plugin, the command line. One line, and exit status 2."""

# ruff: noqa: F811

import io
import json
import shutil
import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import clic_jax.pillow
from clic_jax import api
from clic_jax.coding import tiles
from clic_jax.errors import UserError
from clic_jax.files import container, contents, pictures
from clic_jax.files.container import Header, Tag, pack
from clic_jax.quality import Quality
from tests.fuzz.files import lying_picture
from tests.test_main import X, data, folder, run, save  # noqa: F401

FILE = pack(Header(64, 64, Quality(5000), "00000000", 0), bytes(2000))


class Endless(io.RawIOBase):
    """A stream that starts as a .clic file and never ends; counts what is taken."""

    def __init__(self):
        self.taken = 0

    def readable(self):
        return True

    def read(self, size=-1):
        assert size >= 0, "all of it"
        start, self.taken = self.taken, self.taken + size
        return (container.MAGIC + bytes(size))[start : start + size].ljust(size, b"\1")


def test_an_endless_stream_is_read_to_the_limit_and_no_further(monkeypatch):
    monkeypatch.setattr(contents, "MAX_BYTES", 10_000)
    for read in (api.decompress, api.decompress_image, clic_jax.pillow.ClicImageFile):
        stream = Endless()
        with pytest.raises(container.TooLarge, match="more than 10000 bytes"):
            read(stream)
        assert stream.taken < 10_100


def test_a_file_up_to_the_limit_is_read(monkeypatch, tmp_path):
    (tmp_path / "x.clic").write_bytes(FILE)
    monkeypatch.setattr(contents, "MAX_BYTES", len(FILE))
    assert contents.contents(tmp_path / "x.clic") == FILE
    monkeypatch.setattr(contents, "MAX_BYTES", len(FILE) - 4)
    with pytest.raises(container.TooLarge):
        contents.contents(tmp_path / "x.clic")
    assert contents.contents(FILE) == FILE  # they are in memory already


def test_the_command_reads_no_more_than_the_limit(run, monkeypatch):
    monkeypatch.setattr(contents, "MAX_BYTES", 10_000)
    for command in (["info"], ["decompress", "-o", "y.png"], ["compress", "-o", "y.clic"]):
        stream = Endless()
        status, out, err = run(command[0], "-", *command[1:], stdin=stream)
        assert (status, out, len(err)) == (2, b"", 1) and "more than 10000 bytes" in err[0], err
        assert stream.taken < 10_100 and not list(Path().glob("y.*"))


@pytest.mark.parametrize("tile", [0, 7, 255, -256, 300, 256.0, "256", None, float("nan")])
def test_tiles(tile, published_micro):
    """Also where nothing is tiled: a classical picture."""
    x = np.zeros((8, 8, 3), np.uint8)
    flat = api.compress(x, model=published_micro, fallback="webp")
    for call in (lambda: api.compress(x, model=published_micro, tile=tile), lambda: api.decompress(flat, tile=tile)):
        with pytest.raises(tiles.TileError, match="multiple of 64 pixels, 256 or more"):
            call()


def test_exif_data_are_read_to_the_limit_and_no_further(monkeypatch):
    header = Header(64, 64, Quality(5000), "00000000", 0)
    monkeypatch.setattr(container, "MAX_EXIF", 1000)
    assert container.unpack(pack(header, b"", {Tag.EXIF: bytes(1000)}))
    with pytest.raises(container.Damaged, match="EXIF data have more than 1000 bytes"):
        container.unpack(pack(header, b"", {Tag.EXIF: bytes(1001)}))


def overlapping_exif(size: int, count: int) -> bytes:
    """EXIF data of `size` bytes, nearly all of which each of `count` tags says are its own."""
    entries = b"".join(struct.pack("<HHII", tag + 1, 7, size - 20 - 12 * count, 8) for tag in range(count))
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4)
    return block + bytes(size - len(block))


def test_exif_data_that_would_unfold(published_micro):
    """A thousand tags of a megabyte each in one megabyte, in a .clic file and in a picture to be compressed."""
    exif, file = overlapping_exif(2**20, 1000), io.BytesIO()
    Image.fromarray(X).save(file, "PNG", exif=exif)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pictures.attach(Image.new("L", (1, 1)), {Tag.EXIF: exif})
            pictures.read(io.BytesIO(file.getvalue()))
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_pillow_refuses_large_pictures_by_their_header():
    """By its own limit, which is of 179 million pixels."""
    data = pack(Header(2**14, 2**14, Quality(5000), "00000000", 0), bytes(2000))
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_pictures_whose_metadata_lie(rng):
    """EXIF data and profiles that lie, and damage, in what `compress` reads: a picture, or a UserError of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert pictures.read(io.BytesIO(lying_picture(rng)[1]), 10_000).rgb.size <= 30_000
        except UserError as error:
            assert str(error) and "\n" not in str(error)


# Folders of weights, as the command takes them


def hostile(folder: Path, name: str, change) -> str:
    """A published folder with one JSON file changed."""
    path = folder / name
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize("command", [["models", "hostile"], ["compress", "a.png"], ["decompress", "x.clic"]])
@pytest.mark.parametrize(
    "name, change, text",
    [
        ("config.json", lambda config: config["model"].update(widths=[16, 2**40]), "at most 8192"),
        ("checkpoint.json", lambda about: about.clear(), "if it is damaged, fetch or publish it again"),
        ("params/_METADATA", lambda about: about.update(use_ocdbt=False), "not in one OCDBT database"),
        ("coding.json", lambda coding: coding.pop("prior"), "has the id"),
    ],
)
def test_the_command_refuses_hostile_folders(run, data, published_micro, command, name, change, text):
    shutil.copytree(published_micro, "hostile")
    hostile(Path("hostile"), name, change)
    save("a.png")
    Path("x.clic").write_bytes(data)
    model = [] if command[0] == "models" else ["--model", "hostile", "-o", "out"]
    status, out, err = run(*command, *model)
    assert (status, out, len(err)) == (2, b"", 1) and text in err[0], err
    assert err[0].startswith("clic-jax: error: ") and not Path("out").exists()
