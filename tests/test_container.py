"""The .clic container: golden bytes put together by hand, every way to damage a file, and no file that does harm."""

import dataclasses
import io
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from clic_jax import container
from clic_jax.container import Header, Tag, pack, peek, unpack

HEADER = Header(width=300, height=200, quality=60, model_id="0123abcd", latents_check=0x563412, z_bytes=2, pqf_bytes=1)
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
    data = pack(Header(1, 1, 100, "00000000", 0), b"")
    assert len(data) == 19
    assert unpack(data) == (Header(1, 1, 100, "00000000", 0), b"", {})


@pytest.mark.parametrize("quality, pqf, expected", [(60, 300, 24), (60, None, 23), (60.25, 300, 25)])
def test_header_and_checksums_of_a_photograph(quality, pqf, expected):
    header = Header(4000, 3000, quality, "89abcdef", 0xABCDEF, z_bytes=6000, pqf_bytes=pqf)
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
    quality=st.integers(100, 10000).map(lambda hundredths: hundredths / 100),
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
    assert {k: about[k] for k in ("width", "height", "quality", "model_id")}.items() <= vars(header).items()


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 33, 100, 4095, 123_456, 507_904, 600_000])
def test_sizes_of_parts_are_rounded_down(size):
    data = pack(dataclasses.replace(HEADER, z_bytes=size, pqf_bytes=None), bytes(size))
    assert unpack(data)[0].z_bytes == rounded_down(size)
    assert rounded_down(size) > 0.94 * size or not 0 < size < 507_904


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
        assert peek(source) == expected


def test_unpack_takes_any_bytes_and_returns_bytes():
    for data in (bytearray(GOLDEN), memoryview(GOLDEN), np.frombuffer(GOLDEN, np.uint8)):
        assert unpack(data) == (HEADER, STREAM, EXTRAS)


# What can be wrong with a file


def test_every_truncation_says_so():
    for size in range(len(GOLDEN)):
        with pytest.raises(container.Truncated):
            unpack(GOLDEN[:size])


def test_every_flipped_bit_is_noticed():
    kinds = [set() for _ in GOLDEN]
    for bit in range(8 * len(GOLDEN)):
        data = bytearray(GOLDEN)
        data[bit // 8] ^= 1 << bit % 8
        for read in (unpack, peek):
            with pytest.raises(container.FormatError) as caught:
                read(bytes(data))
            kinds[bit // 8].add(caught.type)
    assert set.union(*kinds[:3]) == {container.NotClic}
    assert container.UnknownVersion in kinds[3]
    structure = {container.Damaged, container.Truncated}
    assert set.union(*kinds[4:]) == structure, "a size that is wrong may look like a short file"
    contents = [*range(4, 8), *range(15, 25)]  # of the model id, the latents and the stream
    assert set.union(*(kinds[i] for i in contents)) == {container.Damaged}


def test_a_changed_byte_is_damage_wherever_it_is_in_a_large_stream():
    data = bytearray(pack(dataclasses.replace(HEADER, pqf_bytes=None), np.random.default_rng(0).bytes(100_000)))
    for at in np.random.default_rng(1).integers(30, len(data), 300):
        data[at] ^= 0x10
        with pytest.raises(container.Damaged):
            unpack(data)
        data[at] ^= 0x10
    unpack(data)


@pytest.mark.parametrize("more", [b"\0", b"\n", GOLDEN, bytes(100_000)])
def test_trailing_bytes(more):
    with pytest.raises(container.TrailingBytes, match=f"{len(more)} bytes too many.*cut the file to {len(GOLDEN)} "):
        unpack(GOLDEN + more)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n", b"\xff\xd8\xff\xe0", b"hello", b"\0", GOLDEN[1:]])
def test_other_kinds_of_files(data):
    with pytest.raises(container.NotClic, match="not a .clic file"):
        unpack(data)


def test_a_newer_version_is_named_before_anything_else_is_read():
    with pytest.raises(container.UnknownVersion, match="version 2.*reads 1"):
        unpack(b"\xc1IC\x02")


def test_a_flag_without_meaning_needs_a_newer_version():
    unpack(sealed(body()))
    with pytest.raises(container.UnknownVersion, match="flag"):
        unpack(sealed(body(version=b"\x81")))


def test_unknown_optional_chunk_is_skipped():
    data = sealed(body(version=b"\x41", rest=b"\x01\x02al" + b"\x90\x03???" + b"\0"))
    assert unpack(data)[2] == {Tag.ALPHA: b"al"}
    assert peek(data)["bytes"]["extras"] == 10


def test_unknown_required_chunk_is_refused_though_info_can_read_the_file():
    data = sealed(body(version=b"\x41", rest=b"\x10\x03???" + b"\0"))
    with pytest.raises(container.UnknownVersion, match="feature 16"):
        unpack(data)
    assert peek(data)["bytes"]["extras"] == 6


@pytest.mark.parametrize(
    "change",
    {
        "overlong width": {"width": b"\x88\x00"},
        "overlong zero": {"size": b"\x80\x00"},
        "endless width": {"width": b"\xff" * 12},
        "width 0": {"width": b"\x00"},
        "height 0": {"height": b"\x00"},
        "quality 0": {"quality": b"\x00"},
        "quality 0.50": {"quality": b"\x80\x32"},
        "quality 100.01": {"quality": b"\xe4\x01"},
        "quality 101": {"quality": b"\x65"},
        "100 hundredths": {"quality": b"\xb2\x64"},
        "z larger than the stream": {"parts": b"\x01"},
        "extras without chunks": {"version": b"\x41", "rest": b"\0"},
        "chunks out of order": {"version": b"\x41", "rest": b"\x02\x00\x01\x00\0"},
        "a chunk twice": {"version": b"\x41", "rest": b"\x01\x00\x01\x00\0"},
        "ICC not deflated": {"version": b"\x41", "rest": b"\x81\x04????\0"},
        "ICC cut short": {"version": b"\x41", "rest": b"\x81\x05" + zlib.compress(b"profile")[:5] + b"\0"},
        "ICC and more": {"version": b"\x41", "rest": b"\x81\x0a" + zlib.compress(b"") + b"??\0"},
    }.items(),
    ids=lambda change: change[0],
)
def test_what_pack_never_writes_is_refused(change):
    with pytest.raises(container.Damaged, match="copy or download"):
        unpack(sealed(body(**change[1])))


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**21 - 1, 2**21, 2**62, 2**63 - 1])
def test_varints(value):
    digits, rest = [], value
    while rest > 127:
        digits.append(rest % 128 + 128)
        rest //= 128
    assert container._varint(value) == bytes([*digits, rest])
    assert container._Reader(container._varint(value)).varint() == value


# Files that mean harm


def test_too_many_pixels_are_refused_before_they_are_decoded():
    data = pack(Header(2**20, 2**20, 50, "00000000", 0), b"")
    with pytest.raises(container.TooLarge, match="1048576 x 1048576 .*limit of 268435456"):
        unpack(data)
    assert unpack(data, max_pixels=None)[0].width == 2**20
    small = pack(Header(20, 10, 50, "00000000", 0), b"")
    assert unpack(small, max_pixels=200)
    with pytest.raises(container.TooLarge):
        unpack(small, max_pixels=199)


def test_a_side_beyond_the_format_is_refused_without_any_limit():
    with pytest.raises(container.TooLarge, match="side"):
        unpack(sealed(body(width=b"\x80\x80\x80\x80\x80\x80\x80\x80\x10")), max_pixels=None)


@pytest.mark.parametrize(
    "bomb",
    [
        sealed(body(size=b"\x80\x80\x80\x80\x80\x80\x80\x80\x10")),  # a stream of 2^60 bytes
        sealed(body(version=b"\x41", rest=b"\x01\x80\x80\x80\x80\x80\x80\x80\x80\x10")),  # such a chunk
        b"\xc1IC\x01" + b"\xff" * 100_000,
        b"\xc1IC\x41" + bytes(100_000),
    ],
    ids=["stream", "chunk", "ones", "zeros"],
)
def test_declared_sizes_allocate_nothing(bomb):
    assert peak_bytes(bomb) < 10_000


def test_a_profile_that_inflates_without_end_is_stopped(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(container, "MAX_ICC", 2**27)
        bomb = pack(HEADER, STREAM, {Tag.ICC: bytes(2**27)})
    assert len(bomb) < 2**18
    assert peak_bytes(bomb) < 2.5 * container.MAX_ICC


def peak_bytes(bomb: bytes) -> int:
    """Memory allocated at most while `bomb` is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(container.FormatError):
            unpack(bomb)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_profile_inflates_to_the_limit_and_no_further(monkeypatch):
    monkeypatch.setattr(container, "MAX_ICC", 1000)
    data = pack(HEADER, STREAM, {Tag.ICC: bytes(1000)})
    assert unpack(data)[2] == {Tag.ICC: bytes(1000)}
    with pytest.raises(ValueError, match="profile"):
        pack(HEADER, STREAM, {Tag.ICC: bytes(1001)})
    monkeypatch.setattr(container, "MAX_ICC", 999)
    with pytest.raises(container.Damaged, match="more than 999 bytes"):
        unpack(data)


def only_format_errors(data: bytes):
    """Reads `data` in every way: a header or a FormatError of one line, soon."""
    start = time.perf_counter()
    for read in (unpack, peek):
        try:
            read(data)
        except container.FormatError as error:
            assert str(error) and "\n" not in str(error)
    assert time.perf_counter() - start < 5  # 0.1 ms, but other work may stop this process


@settings(max_examples=2000, deadline=None)
@given(st.sampled_from([b"", b"\xc1IC", b"\xc1IC\x01", b"\xc1IC\x61"]), st.binary(max_size=200), st.booleans())
def test_garbage_raises_nothing_but_format_errors(start, garbage, seal):
    only_format_errors(sealed(start + garbage) if seal else start + garbage)


@settings(max_examples=2000, deadline=None)
@given(st.data())
def test_mutated_files_with_a_right_checksum_raise_nothing_but_format_errors(data):
    mutant = bytearray(pack(HEADER, STREAM, EXTRAS | {Tag.ICC: b"profile"})[:-3])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutant)))
        mutant[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    only_format_errors(sealed(bytes(mutant)))


def test_parsing_takes_time_in_proportion_to_the_file():
    large = pack(dataclasses.replace(HEADER, pqf_bytes=None), bytes(20_000_000))
    start = time.perf_counter()
    unpack(large)
    assert time.perf_counter() - start < 5  # 20 ms on an idle machine


# The rest of the interface


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"height": 2**20 + 1},
        {"quality": 0.99},
        {"quality": 100.01},
        {"quality": 50.001},
        {"quality": float("nan")},
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
        (container.ModelMismatch("0123abcd", "89abcdef"), ["needs model 0123abcd", "not 89abcdef", "clic-jax models"]),
        (container.Desync(0xABCDEF, 0x12, "jax 0.10.0, cpu"), ["report", "abcdef", "000012", "jax 0.10.0, cpu"]),
    ],
)
def test_errors_of_the_codec(error, words):
    assert isinstance(error, container.FormatError)
    for copy in (error, pickle.loads(pickle.dumps(error))):
        assert all(word in str(copy) for word in words) and "\n" not in str(copy)


def test_reading_headers_needs_no_jax():
    code = "import sys, clic_jax.container; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
