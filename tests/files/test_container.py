"""The .clic container: golden bytes put together by hand, every way to damage a file, and no file that does harm."""

import dataclasses
import io
import pickle
import struct
import subprocess
import sys
import zlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from clic_jax.files import container
from clic_jax.files.container import Header, Tag, pack, peek, unpack
from clic_jax.files.contents import contents
from clic_jax.quality import Quality

HEADER = Header(
    width=300, height=200, quality=Quality(6000), model_id="0123abcd", latents_check=0x563412, z_bytes=2, pqf_bytes=1
)
STREAM, EXTRAS = b"zzyyyyp", {Tag.ALPHA: b"alpha", Tag.EXIF: b"Exif"}
GOLDEN = bytes.fromhex(
    "c14943 61"  # magic; flags pqf and extras, version 1
    "0123abcd ac02 c801 3c"  # model id, 300 and 200 as varints, quality
    "07 02 01 123456"  # bytes of the stream, of z, of pqf; checksum of the latents
    "7a7a7979797970"  # stream
    "01 05 616c706861  82 04 45786966  00"  # extras
    "638dbd"  # low 24 bits of the CRC-32
)


def sealed(body: bytes) -> bytes:
    """`body` with the right checksum behind it, whatever it says."""
    return body + struct.pack("<I", zlib.crc32(body))[:3]


def body(
    version=b"\x01", width=b"\x08", height=b"\x04", quality=b"\x32", size=b"\x00", parts=b"\x00", rest=b""
) -> bytes:
    """A file without its checksum, from encoded fields."""
    return b"\xc1IC" + version + b"\1\2\3\4" + width + height + quality + size + parts + b"\0\0\0" + rest


def test_golden_file():
    """If this fails, the files that people have can no longer be read: a new version is needed."""
    assert pack(HEADER, STREAM, EXTRAS).hex() == GOLDEN.hex()
    assert unpack(GOLDEN) == (HEADER, STREAM, EXTRAS)


def test_smallest_file_has_19_bytes():
    data = pack(Header(1, 1, Quality(10000), "00000000", 0), b"")
    assert len(data) == 19
    assert unpack(data) == (Header(1, 1, Quality(10000), "00000000", 0), b"", {})


@pytest.mark.parametrize("quality, pqf, expected", [(60, 300, 24), (60, None, 23), (60.25, 300, 25)])
def test_header_and_checksums_of_a_photograph(quality, pqf, expected):
    header = Header(4000, 3000, Quality.of(quality), "89abcdef", 0xABCDEF, z_bytes=6000, pqf_bytes=pqf)
    stream = bytes(6000 + 300_000 + (pqf or 0))
    assert len(pack(header, stream)) - len(stream) == expected
    assert peek(pack(header, stream))["bytes"]["header"] == expected
    with_extras = peek(pack(header, stream, {Tag.EXIF: bytes(30_000), Tag.ICC: bytes(3144)}))["bytes"]
    assert with_extras["header"] == expected and with_extras["extras"] > 30_000


def rounded_down(size: int) -> int:
    """Five significant bits, by trying: the largest number below that is 16 to 31 times a power of two, or below 16."""
    return max(x for x in [*range(16), *(m << e for m in range(16, 32) for e in range(15))] if x <= size)


headers = st.builds(
    Header,
    width=st.integers(1, 2**20) | st.sampled_from([1, 127, 128, 16383, 16384, 2**20]),
    height=st.integers(1, 2**20),
    quality=st.integers(100, 10000).map(Quality),
    model_id=st.binary(min_size=4, max_size=4).map(bytes.hex),
    latents_check=st.integers(0, 2**24 - 1),
    grey=st.booleans(),
    z_bytes=st.integers(0, 100),
    pqf_bytes=st.none() | st.integers(0, 100),
)
extras = st.dictionaries(st.sampled_from(Tag), st.binary(max_size=300))


@settings(max_examples=500, deadline=None)
@given(headers, st.binary(max_size=300), extras, st.randoms())
def test_round_trip(header, tail, extras, random):
    stream = bytes(header.z_bytes + (header.pqf_bytes or 0)) + tail
    shuffled = dict(random.sample(list(extras.items()), len(extras)))
    data = pack(header, stream, shuffled)
    assert data == pack(header, stream, extras), "the order of a dict is not to be seen in the file"
    pqf = None if header.pqf_bytes is None else rounded_down(header.pqf_bytes)
    stored = dataclasses.replace(header, z_bytes=rounded_down(header.z_bytes), pqf_bytes=pqf)
    assert unpack(data, max_pixels=None) == (stored, stream, extras)
    assert pack(stored, stream, extras) == data
    about = peek(data)
    parts = about["bytes"]
    assert parts["total"] == len(data) == sum(parts[k] for k in ("header", "z", "y", "pqf", "extras"))
    assert parts["z"] + parts["y"] + parts["pqf"] == len(stream)
    assert min(parts.values()) >= 0 and parts["header"] <= 29
    assert about["quality"] == float(header.quality)
    assert {k: about[k] for k in ("width", "height", "model_id")}.items() <= vars(header).items()


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 33, 100, 4095, 123_456, 507_904, 600_000])
def test_sizes_of_parts_are_rounded_down(size):
    data = pack(dataclasses.replace(HEADER, z_bytes=size, pqf_bytes=None), bytes(size))
    stored = unpack(data)[0].z_bytes
    assert stored == rounded_down(size)
    assert 0.94 * min(size, 507_904) <= stored <= size  # the largest that is stored


def test_peek_reads_paths_and_open_files(tmp_path):
    (tmp_path / "a.clic").write_bytes(GOLDEN)
    expected = {
        "width": 300,
        "height": 200,
        "quality": 60,
        "model_id": "0123abcd",
        "bytes": {"total": 43, "header": 22, "z": 2, "y": 4, "pqf": 1, "extras": 14},
    }
    assert peek(GOLDEN) == expected
    for source in (tmp_path / "a.clic", str(tmp_path / "a.clic"), io.BytesIO(GOLDEN), bytearray(GOLDEN)):
        assert peek(contents(source)) == expected


def test_unpack_takes_any_bytes_and_returns_bytes():
    for data in (bytearray(GOLDEN), memoryview(GOLDEN), np.frombuffer(GOLDEN, np.uint8)):
        assert unpack(data) == (HEADER, STREAM, EXTRAS)


# What can be wrong with a file


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"height": 2**20 + 1},
        {"model_id": "123"},
        {"model_id": "0123ABCD"},
        {"model_id": "01 3abcd"},
        {"latents_check": 2**24},
        {"latents_check": -1},
        {"z_bytes": -1},
    ],
    ids=str,
)
def test_header_refuses_what_a_file_cannot_hold(change):
    with pytest.raises(ValueError, match=next(iter(change)).split("_")[0]):
        dataclasses.replace(HEADER, **change)


def test_pack_refuses_wrong_parts_and_unknown_tags():
    with pytest.raises(ValueError, match="stream of 2 bytes"):
        pack(HEADER, b"zz")
    with pytest.raises(ValueError, match="16"):
        pack(HEADER, STREAM, {16: b""})


def test_checksum_of_joined_parts_and_arrays():
    assert container.checksum(b"123456789") == 0xCBF43926 & 0xFFFFFF  # the check value of CRC-32
    assert container.checksum(b"1234", b"", b"56789") == container.checksum(b"123456789")
    latents = np.arange(-6, 6, dtype="<i2").reshape(1, 2, 6)
    assert container.checksum(latents) == container.checksum(latents.tobytes())


@pytest.mark.parametrize(
    "error, words",
    [
        (container.ModelMismatch("0123abcd", "89abcdef", "give it"), ["needs model 0123abcd, not 89abcdef: give it"]),
        (container.Desync(0xABCDEF, 0x12, "jax 0.10.0, cpu"), ["report", "abcdef", "000012", "jax 0.10.0, cpu"]),
    ],
)
def test_errors_of_the_codec(error, words):
    assert isinstance(error, container.FormatError)
    for copy in (error, pickle.loads(pickle.dumps(error))):
        assert all(word in str(copy) for word in words) and "\n" not in str(copy)


def test_reading_headers_needs_no_jax():
    code = "import sys, clic_jax.files.container; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
