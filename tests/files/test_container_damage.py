"""What becomes of .clic files that are damaged, foreign, or made to do harm: a named error, at once."""

import dataclasses
import time
import tracemalloc
import zlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from clic_jax.files import container
from clic_jax.files.container import Header, Tag, pack, peek, unpack
from clic_jax.quality import Quality
from tests.files.test_container import EXTRAS, GOLDEN, HEADER, STREAM, body, sealed


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
    with pytest.raises(container.UnknownVersion, match="version 3.*reads 1 to 2"):
        unpack(b"\xc1IC\x03")


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
    data = pack(Header(2**20, 2**20, Quality(5000), "00000000", 0), b"")
    with pytest.raises(container.TooLarge, match="1048576 x 1048576 .*limit of 268435456"):
        unpack(data)
    assert unpack(data, max_pixels=None)[0].width == 2**20
    small = pack(Header(20, 10, Quality(5000), "00000000", 0), b"")
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
@given(
    st.sampled_from([b"", b"\xc1IC", b"\xc1IC\x01", b"\xc1IC\x61", b"\xc1IC\x02", b"\xc1IC\x72", b"\xc1IC\x82"]),
    st.binary(max_size=200),
    st.booleans(),
)
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
