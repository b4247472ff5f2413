"""The .clic file, versions 1 and 2: what is in it byte for byte, and everything that can be wrong with one.

    | C1 49 43 | v | model id | width | height | quality | size | z | pqf | latents | stream | extras | check |
         3       1       4      varint  varint   varint  varint  1   0,1      3       size      0..       3   bytes

    v         low half: version 1; high half, flags: 1 the source was grey, 2 has pqf, 4 has extras, 8 unused
    model id  the 8 hex digits of `clic_jax.checkpoints.arrays.model_id`
    width     and height of the picture in pixels, before padding, 1 to 2^20
    quality   its whole part, 1 to 100, plus 128 times its hundredths: one byte for a whole quality
    size      bytes of the stream: z, y and the PQF coefficients, which the flag pqf announces, in the codec's order
    z, pqf    about how many bytes of the stream are theirs, for `info` alone: 0 to 31 are exact, more is rounded down
              to five significant bits; a high half E > 0 and a low half M mean (16 + M) 2^(E-1)
    latents   checksum of the decoded latents, by which a decoder finds out that it is out of step
    extras    | tag 1 | size varint | bytes | in rising order of tags, then 00. An unknown tag is skipped if its high
              bit is set, and makes the file unreadable if not
    check     checksum of all the bytes before it

In version 2 the stream is of a classical codec (`clic_jax.files.streams`), and no model is needed: AVIF, WebP with flag
2, JPEG XL with flag 8, never both flags. The quality is that of the model whose place it took.

    | C1 49 43 | v | width | height | quality | size | stream | extras | check |

A photograph of 12 megapixels has 24 bytes beside its stream and extras; one more for a fractional quality, one less
without PQF. Numbers are little-endian. A varint has seven bits a byte, the high bit set in all but the last one, and no
more bytes than it needs (LEB128). Checksums are the low 24 bits of zlib's CRC-32: other damage passes one in 17 million
times, a single flipped bit never in files up to 9 MB; a picture has to pass both. Only the deflated ICC profile can be
written in two ways.
"""

import contextlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from clic_jax.files import streams
from clic_jax.files.format_errors import (
    Damaged,
    Desync,
    FormatError,
    ModelMismatch,
    NotClic,
    TooLarge,
    TrailingBytes,
    Truncated,
    UnknownVersion,
)
from clic_jax.quality import Quality

__all__ = ["Damaged", "Desync", "FormatError", "ModelMismatch", "NotClic", "TooLarge", "TrailingBytes", "Truncated"]
__all__ += ["UnknownVersion", "Header", "Tag", "checksum", "pack", "peek", "unpack"]

MAGIC = b"\xc1IC"  # no text: C1 never occurs in UTF-8
VERSIONS = LEARNED, CLASSICAL = (1, 2)
MAX_SIDE = 2**20  # pixels
MAX_PIXELS = 2**28  # the largest picture read by default, 16384 x 16384
MAX_ICC = 2**24  # bytes of a profile; real ones have 3 MB at most
MAX_EXIF = 2**24  # bytes that are read; no more than 65,533 are written
_GREY, _PQF, _EXTRAS, _UNUSED = 1, 2, 4, 8  # flags of version 1
_CODECS = {"avif": 0, "webp": 2, "jpegxl": 8}  # flags of version 2, whose other flags are those of version 1
_AGAIN = "copy or download the file again"


class Tag(IntEnum):
    """Chunks of the extras. A reader that does not know the tag skips it from 128 on, and gives up below."""

    ALPHA = 1  # the transparency plane as an image file of its own, lossless
    ICC = 129  # colour profile, deflated in the file
    EXIF = 130


def checksum(*parts) -> int:
    """The low 24 bits of the CRC-32 of `parts`, bytes or contiguous arrays, as if they were joined."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc & 0xFFFFFF


@dataclass(frozen=True)
class Header:
    """What a file says about itself. Raises ValueError for values that a file cannot hold."""

    width: int  # pixels, 1 to MAX_SIDE
    height: int
    quality: Quality
    model_id: str | None  # 8 hex digits, lower case; None: `classical` says what the stream is
    latents_check: int | None  # `checksum` of the decoded latents
    grey: bool = False  # the picture is to be decoded to grey
    z_bytes: int = 0  # of the stream; rounded down in the file, as `pqf_bytes` is
    pqf_bytes: int | None = None  # None: there are no PQF coefficients
    classical: str | None = None  # of `streams.NAMES`: the stream is of that codec

    def __post_init__(self):
        for name, _, _, low, high, *_ in _FIELDS:
            value = getattr(self, name, None)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, not {value}")
        if self.classical is None and not re.fullmatch("[0-9a-f]{8}", self.model_id):
            raise ValueError(f"a model id has 8 hex digits: {self}")
        learned = self.model_id or self.pqf_bytes is not None
        if self.classical is not None and (self.classical not in _CODECS or learned):
            raise ValueError(f"a classical codec is one of {', '.join(_CODECS)}, and has no model: {self}")


def pack(header: Header, stream: bytes, extras: Mapping[Tag, bytes] | None = None) -> bytes:
    """The bytes of a file with `stream` as the codec wrote it, and extras by tag (the ICC profile is deflated here).

    Raises: ValueError if z and pqf have more bytes than the stream, for an unknown tag, or for a profile over MAX_ICC.
    """
    extras = dict(extras or {})
    if header.z_bytes + (header.pqf_bytes or 0) > len(stream) or len(extras.get(Tag.ICC, b"")) > MAX_ICC:
        raise ValueError(f"parts larger than the stream of {len(stream)} bytes, or a profile over {MAX_ICC}: {header}")
    if Tag.ICC in extras:
        extras[Tag.ICC] = zlib.compress(extras[Tag.ICC], 9)
    version = LEARNED if header.classical is None else CLASSICAL
    coded_as = (header.pqf_bytes is not None) * _PQF if header.classical is None else _CODECS[header.classical]
    flags = header.grey * _GREY | coded_as | bool(extras) * _EXTRAS
    values = vars(header) | {"stream_bytes": len(stream)}
    fields = [write(values[name]) for name, write, *_ in _fields(version, flags)]
    chunks = [bytes([Tag(tag)]) + _varint(len(extras[tag])) + extras[tag] for tag in sorted(extras)]
    out = [MAGIC, bytes([flags << 4 | version]), *fields, stream, *chunks, b"\0" * bool(extras)]
    return b"".join([*out, _check(checksum(*out))])


def unpack(data: bytes, *, max_pixels: int | None = MAX_PIXELS) -> tuple[Header, bytes, dict[Tag, bytes]]:
    """The header, the stream and the extras of a file; undoes `pack`, but for the rounding of the header's byte counts.

    Time and memory are proportional to `data`, plus MAX_ICC. Optional chunks that this version does not know are left
    out. `max_pixels`: refuse larger pictures; None for no limit but MAX_SIDE.
    Raises: a FormatError of its own kind for each thing that can be wrong, ModelMismatch and Desync excepted.
    """
    header, stream, chunks, _ = _parse(bytes(data))
    if max_pixels is not None and header.width * header.height > max_pixels:
        size = f"{header.width} x {header.height} pixels"
        raise TooLarge(f"{size} are more than the limit of {max_pixels}: raise the limit if you trust the file")
    extras = {Tag(tag): content for tag, content in chunks.items() if tag in set(Tag)}
    unknown = [tag for tag in chunks if tag < 128 and tag not in extras]
    if unknown:
        raise UnknownVersion(f"the file needs the feature {unknown[0]}, which this clic_jax lacks: upgrade clic_jax")
    if Tag.ICC in extras:
        extras[Tag.ICC] = _inflate(extras[Tag.ICC])
    if len(extras.get(Tag.EXIF, b"")) > MAX_EXIF:
        raise Damaged(f"damaged, for its EXIF data have more than {MAX_EXIF} bytes: {_AGAIN}")
    return header, stream, extras


def peek(data: bytes) -> dict[str, Any]:
    """What `info` prints of a file: width, height, quality, model_id and bytes, by part.

    The parts add up to the total: z and pqf are rounded down (see the top of this module), y is the rest of the stream.
    A classical picture has no model_id, but "classical" (avif, webp or jpegxl) and "lossless", and its bytes together.
    Raises: FormatError as `unpack`, but neither for large pictures nor for unknown features.
    """
    header, stream, _, extras = _parse(data)
    z, pqf = header.z_bytes, header.pqf_bytes or 0
    parts = {"z": z, "y": len(stream) - z - pqf, "pqf": pqf}
    about = {"width": header.width, "height": header.height, "quality": float(header.quality)}
    about |= {"model_id": header.model_id}
    if header.classical:
        about |= {"classical": header.classical, "lossless": streams.is_lossless(header.classical, stream)}
        parts = {"picture": len(stream)}
    parts = {"header": len(data) - len(stream) - extras, **parts, "extras": extras}
    return about | {"bytes": {"total": len(data), **parts}}


def _parse(data: bytes) -> tuple[Header, bytes, dict[int, bytes], int]:
    """(header, stream, chunks as stored by tag, bytes of the extras), all checked but `max_pixels` and tags."""
    if data[:3] != MAGIC[: len(data)]:
        raise NotClic("not a .clic file: it starts with other bytes (if it is a picture, compress it first)")
    reader = _Reader(data)
    flags, version = divmod(reader.take(4)[3], 16)
    if version not in VERSIONS:
        text = f"the file has format version {version}, this clic_jax reads {LEARNED} to {VERSIONS[-1]}"
        raise UnknownVersion(f"{text}: upgrade clic_jax")
    values = {name: read(reader) for name, _, read, *_ in _fields(version, flags)}
    stream = reader.take(values.pop("stream_bytes"))
    start = reader.at
    chunks = _read_chunks(reader) if flags & _EXTRAS else {}
    end = reader.at
    if reader.check() != checksum(memoryview(data)[:end]):  # before judging values
        raise Damaged(f"damaged, for its checksum is wrong: {_AGAIN}")
    if reader.at < len(data):
        raise TrailingBytes(f"{len(data) - reader.at} bytes too many at the end: cut the file to {reader.at} bytes")
    codec = next((name for name, flag in _CODECS.items() if flags & (_PQF | _UNUSED) == flag), None)
    if codec is None or (version == LEARNED and flags & _UNUSED):
        raise UnknownVersion("the file has a flag that this clic_jax does not know: upgrade clic_jax")
    if max(values["width"], values["height"]) > MAX_SIDE:
        raise TooLarge(f"a side has more than {MAX_SIDE} pixels: no version of clic_jax writes such a file")
    if version == CLASSICAL:
        values |= {"model_id": None, "latents_check": None, "classical": codec}
    if values.get("z_bytes", 0) + values.get("pqf_bytes", 0) > len(stream):
        raise Damaged(f"damaged, for parts of its stream are larger than the stream: {_AGAIN}")
    try:
        header = Header(**values | {"quality": Quality(values["quality"])}, grey=bool(flags & _GREY))
        return header, stream, chunks, end - start
    except ValueError as error:
        raise Damaged(f"damaged, for {error}: {_AGAIN}") from error


class _Reader:
    """Takes numbers and bytes from the front of `data`."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise Truncated(f"cut short, {len(self.data)} of at least {self.at} bytes are there: {_AGAIN}")
        return self.data[start : self.at]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte == 0 < shift:
                break  # a second way to write a shorter number
            if byte < 128:
                return value
        raise Damaged(f"damaged, for the number that ends at byte {self.at} has too many digits: {_AGAIN}")

    def rough(self) -> int:
        exponent, mantissa = divmod(self.take(1)[0], 16)
        return (16 + mantissa) << (exponent - 1) if exponent else mantissa

    def quality(self) -> int:
        hundredths, whole = divmod(self.varint(), 128)
        return 100 * whole + hundredths if hundredths < 100 else 0  # 0 is refused after the checksum

    def check(self) -> int:
        return int.from_bytes(self.take(3), "little")


def _read_chunks(reader: _Reader) -> dict[int, bytes]:
    chunks = {}
    while (tag := reader.take(1)[0]) > max(chunks, default=0):
        chunks[tag] = reader.take(reader.varint())
    if tag or not chunks:
        raise Damaged(f"damaged, for its extras are empty or not in order: {_AGAIN}")
    return chunks


def _inflate(deflated: bytes) -> bytes:
    inflater = zlib.decompressobj()
    with contextlib.suppress(zlib.error):
        content = inflater.decompress(deflated, MAX_ICC + 1)
        if inflater.eof and not inflater.unused_data and len(content) <= MAX_ICC:
            return content
    raise Damaged(f"damaged, for its ICC profile has more than {MAX_ICC} bytes or is not deflated: {_AGAIN}")


def _varint(value: int) -> bytes:
    digits = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(digit | 128 for digit in digits[:-1]), digits[-1]])


def _rough(size: int) -> bytes:
    size = min(size, 31 << 14)  # the most that a byte can say
    exponent = max(size.bit_length() - 5, 0)
    return bytes([(exponent << 4) + (size >> exponent)])  # the leading one of `size` makes the exponent one larger


def _quality(quality: Quality) -> bytes:
    whole, hundredths = divmod(quality.hundredths, 100)
    return _varint(whole + 128 * hundredths)


def _check(check: int) -> bytes:
    return check.to_bytes(3, "little")


_FIELDS = (  # in the order of the file: name, write, read, lowest and highest legal value, flag and versions with it
    ("model_id", bytes.fromhex, lambda reader: reader.take(4).hex(), "0" * 8, "f" * 8, 0, (LEARNED,)),
    ("width", _varint, _Reader.varint, 1, MAX_SIDE, 0, VERSIONS),
    ("height", _varint, _Reader.varint, 1, MAX_SIDE, 0, VERSIONS),
    ("quality", _quality, _Reader.quality, Quality(100), Quality(10000), 0, VERSIONS),
    ("stream_bytes", _varint, _Reader.varint, 0, 2**63, 0, VERSIONS),
    ("z_bytes", _rough, _Reader.rough, 0, 2**63, 0, (LEARNED,)),
    ("pqf_bytes", _rough, _Reader.rough, 0, 2**63, _PQF, (LEARNED,)),
    ("latents_check", _check, _Reader.check, 0, 2**24 - 1, 0, (LEARNED,)),
)


def _fields(version: int, flags: int) -> list[tuple]:
    """The rows of _FIELDS that a file of that version with these flags has."""
    return [row for row in _FIELDS if version in row[-1] and not row[-2] & ~flags]
