"""Classical pictures in a .clic file: bytes put together by hand, and streams that are not what the header says."""

import dataclasses
import importlib.util
import io
import random
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from clic_jax import api
from clic_jax.files import classical, container, jpegxl, streams
from clic_jax.files.container import Damaged, Header, Tag, pack, peek, unpack
from clic_jax.quality import Quality
from tests.conftest import ROOT, photograph
from tests.files.test_container import sealed

HEADER = Header(300, 200, Quality(6000), None, None, grey=True, classical="webp")
GOLDEN = bytes.fromhex(
    "c14943 72"  # magic; flags grey, WebP and extras, version 2
    "ac02 c801 3c"  # 300 and 200 as varints, quality
    "07 77777777777777"  # bytes of the stream, the stream
    "82 04 45786966  00"  # extras
    "a89a16"  # low 24 bits of the CRC-32
)
X = photograph(40, 60)
HAS_JPEGXL = importlib.util.find_spec("imagecodecs") is not None
needs_jpegxl = pytest.mark.skipif(not HAS_JPEGXL, reason="needs imagecodecs")
CODED = {
    "avif": ("avif", streams.of_file("avif", classical.encode("avif", X, 40))),
    "webp": ("webp", streams.of_file("webp", classical.encode("webp", X, 40))),
    "lossless": ("webp", streams.of_file("webp", classical.encode_exactly(X))),
}
if HAS_JPEGXL:
    CODED |= {"jpegxl": ("jpegxl", jpegxl.encode(X, 2.0)), "lossless jpegxl": ("jpegxl", jpegxl.encode(X, 0))}


def packed(kind: str, data: bytes, width: int = 60, height: int = 40) -> bytes:
    return pack(Header(width, height, Quality(5000), None, None, classical=kind), data)


def test_golden_file():
    """If this fails, the files that people have can no longer be read: a new version is needed."""
    assert pack(HEADER, b"wwwwwww", {Tag.EXIF: b"Exif"}).hex() == GOLDEN.hex()
    assert unpack(GOLDEN) == (HEADER, b"wwwwwww", {Tag.EXIF: b"Exif"})
    assert peek(GOLDEN) == {
        "width": 300,
        "height": 200,
        "quality": 60,
        "model_id": None,
        "classical": "webp",
        "lossless": False,
        "bytes": {"total": 27, "header": 13, "picture": 7, "extras": 7},
    }


def test_a_photograph_has_fifteen_bytes_beside_its_picture():
    """So it is never larger than the classical file by more."""
    for size, most in (((768, 512), 15), ((16383, 16383), 15), ((2**15, 2**13), 16)):
        assert len(packed("avif", bytes(2**20), *size)) - 2**20 <= most


def test_a_reader_of_version_1_says_so(monkeypatch):
    """Before it reads anything else: what 0.2.0 does, whose check of the version is the same."""
    monkeypatch.setattr(container, "VERSIONS", (1,))
    for size in (4, len(GOLDEN)):
        with pytest.raises(container.UnknownVersion, match="version 2, this clic_jax reads 1 .*: upgrade clic_jax$"):
            unpack(GOLDEN[:size])


def test_flags_of_the_codecs():
    """AVIF none, WebP 2, JPEG XL 8; with 2 and 8 there is none yet."""
    rest = bytes.fromhex("ac02 c801 3c 07 77777777777777")
    for flags, kind in ((0x0, "avif"), (0x2, "webp"), (0x8, "jpegxl")):
        data = sealed(b"\xc1IC" + bytes([flags << 4 | 2]) + rest)
        assert pack(Header(300, 200, Quality(6000), None, None, classical=kind), b"w" * 7) == data
        assert unpack(data)[0].classical == kind
    with pytest.raises(container.UnknownVersion, match="flag"):
        unpack(sealed(b"\xc1IC\xa2" + rest))


@pytest.mark.parametrize("change", [{"classical": "gif"}, {"model_id": "01234567"}, {"pqf_bytes": 3}], ids=str)
def test_headers_that_cannot_be(change):
    with pytest.raises(ValueError, match="classical codec"):
        dataclasses.replace(HEADER, **change)


@pytest.mark.parametrize("case", CODED)
def test_round_trip(case):
    kind, data = CODED[case]
    x_hat = classical.decode(kind, data, *X.shape[:2])
    assert np.array_equal(x_hat, X) == ("lossless" in case) == peek(packed(kind, data))["lossless"]
    assert np.square(X * 1.0 - x_hat).mean() < 150
    assert np.array_equal(api.decompress(packed(kind, data)), x_hat)  # needs no model


@pytest.mark.parametrize("case", CODED)
@pytest.mark.parametrize("width, height", [(61, 40), (40, 60), (60, 41), (2**14, 2**14)])
def test_a_picture_of_another_size(case, width, height):
    with pytest.raises(Damaged, match=f"{CODED[case][0]} picture is none of {width} x {height} pixels: copy or"):
        api.decompress(packed(*CODED[case], width, height))


@pytest.mark.parametrize("case", CODED)
def test_limits_hold_before_the_picture_is_decoded(case, monkeypatch):
    monkeypatch.setattr(classical, "decode", None)
    with pytest.raises(container.TooLarge, match="60 x 40 pixels are more than the limit of 2399"):
        api.decompress(packed(*CODED[case]), max_pixels=2399)


LARGE = np.zeros((1500, 2500, 3), np.uint8)


@pytest.mark.parametrize("kind", ["avif", "webp", pytest.param("jpegxl", marks=needs_jpegxl)])
def test_a_large_picture_behind_a_small_header_makes_no_room(kind, monkeypatch):
    """A decoder of AVIF makes 8192 x 8192 pixels of a file of 1 kB that says 60 x 40, and scales them."""
    stream = streams.of_file(kind, classical.encode(kind, LARGE, 5))
    monkeypatch.setattr(classical, "_PLUGINS", None)
    monkeypatch.setattr(jpegxl, "decode_foreign", None)
    with pytest.raises(Damaged, match="none of 60 x 40"):
        classical.decode(kind, stream, 40, 60)


def test_an_avif_whose_second_header_is_of_another_size():
    """No OBU is left over in which it could stand, before the frame or behind it."""
    small, large = CODED["avif"][1], streams.of_file("avif", classical.encode("avif", LARGE, 5))
    header = large[: 2 + large[1]]
    for stream in (small + header, small + large, header + small, small[: 2 + small[1]] + large):
        with pytest.raises(Damaged, match="none of 60 x 40"):
            classical.decode("avif", stream, 40, 60)


MEMORY = """
import sys
from clic_jax.files import classical, format_errors
try:
    classical.decode(sys.argv[1], open(sys.argv[2], "rb").read(), 40, 60)
except format_errors.Damaged:
    pass
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind, large", [("avif", (6144, 8192)), ("webp", (12288, 12288))])
def test_memory_of_a_hostile_stream(kind, large, tmp_path):
    """The size is right in the header that is checked, and the rest is of a large picture. 60 MB are Python's."""
    large = streams.of_file(kind, classical.encode(kind, np.zeros((*large, 3), np.uint8), 5))
    small = CODED[kind][1]
    keep = (2 + small[1], 2 + large[1]) if kind == "avif" else (10, 10)
    (tmp_path / "x").write_bytes(small[: keep[0]] + large[keep[1] :])
    command = [sys.executable, "-c", MEMORY, kind, str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 120e3


@needs_jpegxl
def test_jpegxl_has_limits_of_memory_and_of_time(monkeypatch):
    stream = CODED["jpegxl"][1]
    assert np.array_equal(jpegxl.decode_foreign(stream, *X.shape[:2]), jpegxl.decode(stream))
    with monkeypatch.context() as patch:
        patch.setattr(jpegxl, "_MEMORY", 2**24)
        with pytest.raises(Damaged, match="its jpegxl picture cannot be read"):
            classical.decode("jpegxl", stream, 40, 60)
    monkeypatch.setattr(jpegxl, "_SECONDS", 0.001)
    with pytest.raises(Damaged, match="its jpegxl picture cannot be read"):
        classical.decode("jpegxl", stream, 40, 60)


def test_pictures_of_another_kind():
    """Whole files, which may hold anything, and streams of another codec."""
    for kind in {kind for kind, _ in CODED.values()}:
        for other, stream in CODED.values():
            file = streams.to_file(other, stream, 60, 40)
            for wrong in {file, stream} if other != kind else {file} - {stream}:
                with pytest.raises(Damaged, match="none of 60 x 40"):
                    api.decompress(packed(kind, wrong))


def test_files_that_hold_more_are_no_streams():
    """With transparency, which the extras of a .clic file hold, or in another format."""
    for kind in ("avif", "webp"):
        file = io.BytesIO()
        Image.fromarray(np.dstack([X, X[..., :1]])).save(file, kind)
        for wrong in (file.getvalue(), b"", b"RIFF", bytes(100), file.getvalue()[:100]):
            with pytest.raises(ValueError, match=f"a file of {kind}"):
                streams.of_file(kind, wrong)


@pytest.mark.parametrize("kind", ["avif", "webp", pytest.param("jpegxl", marks=needs_jpegxl)])
@pytest.mark.parametrize("height, width", [(1, 1), (40, 60), (7, 8), (1, 3000), (301, 300), (65, 33), (256, 512)])
def test_streams_are_what_the_files_show(kind, height, width):
    x = photograph(height, width)
    for quality in (5, 20):
        file = classical.encode(kind, x, quality)
        stream = streams.of_file(kind, file)
        assert streams.size_of(kind, stream) == (width, height) and len(stream) <= len(file)
        shown = classical.decode(kind, stream, height, width, ours=True)
        if kind != "jpegxl":
            assert np.array_equal(shown, Image.open(io.BytesIO(file)))
        if kind == "webp":
            assert streams.to_file(kind, stream, width, height) == file
        for end in range(min(len(stream), 12)):
            assert streams.size_of(kind, stream[:end]) in (None, (width, height))
            assert streams.is_lossless(kind, stream[:end]) in (True, False)


@pytest.mark.parametrize("case", CODED)
def test_damaged_pictures_with_a_right_checksum(case):
    """Forgeries: a picture of that size, or a Damaged of one line."""
    kind, data = CODED[case]
    rng, refused = random.Random(case), 0
    for i in range(40 if kind == "jpegxl" else 150):  # a process each
        mutant = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(mutant))
            mutant[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        mutant = mutant[: rng.randint(0, len(mutant))] if i % 5 == 0 else mutant
        try:
            assert api.decompress(packed(kind, bytes(mutant))).shape == X.shape
        except Damaged as error:
            refused += 1
            assert "\n" not in str(error) and kind in str(error)
    assert refused > 5


def test_a_pillow_that_lacks_the_codec(monkeypatch):
    monkeypatch.setattr(classical.features, "check", lambda name: name != "avif")
    with pytest.raises(classical.MissingCodec, match="^the codec avif is not installed .*: pip install --upgrade pill"):
        api.decompress(packed(*CODED["avif"]))
    api.decompress(packed(*CODED["webp"]))


def test_scales_have_each_file_once():
    x = photograph(24, 24)
    files = [classical.encode("avif", x, quality) for quality in range(101)]
    changes = [q for q in range(101) if not q or files[q] != files[q - 1]]
    assert tuple(changes) == classical.SCALES["avif"]
