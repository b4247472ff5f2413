r"""The .clic file, version 1: what is in it byte for byte, and everything that can be wrong with one.

    +----------+-----+----------+-------+--------+---------+--------+---+-----+---------+ - - - - +- - - - - -+--------+
    | C1 49 43 | f v | model id | width | height | quality | stream | z | pqf | latents | stream  : extras    | check  |
    +----------+-----+----------+-------+--------+---------+--------+---+-----+---------+ - - - - +- - - - - -+--------+
     magic 3     1     4          varint  varint   varint    varint   1   0, 1  3         the data  if flagged   3 bytes

    f v      low half: version 1. High half, flags: 1 source was grey, 2 PQF coefficients, 4 extras, 8 must be clear
    model id of `clic_jax.published`, its 8 hex digits
    width    and height of the picture in pixels, before padding, 1 to 2^20
    quality  whole part, 1 to 100, plus 128 times the hundredths: one byte for a whole quality
    stream   bytes of the one entropy-coded stream with z, y and the PQF coefficients, in the codec's own order
    z, pqf   about how many bytes of the stream are theirs, one byte each: 0 to 31 are exact, then 5 significant bits,
             rounded down. Only `info` reads them; pqf is absent without its flag
    latents  checksum of the decoded latents, by which a decoder finds out that it went out of step
    extras   chunks in rising order of their tags, then 00:   | tag 1 | length varint | bytes |
             An unknown tag is skipped if its high bit is set, and otherwise makes the file unreadable
    check    checksum of all bytes before it

A 12-megapixel photograph of whole quality has 24 bytes that are not stream or extras. Numbers are little-endian. A
varint is seven bits a byte, the lowest first, the high bit set in all but the last byte; no longer than it need be
(LEB128). Checksums are the low 24 bits of the CRC-32 of zlib: one damaged file in 17 million passes the second, and
then has to pass the first. There is one way to write a file, but for the deflated ICC profile.
"""

import os
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from clic_jax.errors import UserError

MAGIC = b"\xc1IC"  # C1 occurs in no UTF-8 text
VERSION = 1
MAX_SIDE = 2**20  # pixels
MAX_PIXELS = 2**28  # the largest picture read by default: 16384 x 16384
MAX_ICC = 2**24  # bytes of an inflated ICC profile; real ones have up to some 3 MB
_GREY, _PQF, _EXTRAS, _RESERVED = 1, 2, 4, 8  # flags


class Tag(IntEnum):
    """Chunks of the extras; those from 128 on may be skipped by a reader that does not know them."""

    ALPHA = 1  # the transparency plane, an image file of its own, lossless
    TILES = 2  # the picture is coded in tiles: how, as the codec writes it
    ICC = 129  # colour profile, deflated in the file
    EXIF = 130


class FormatError(UserError):
    """A file that cannot be decoded; the message is one line with the remedy."""


class NotClic(FormatError):
    """The file is of another kind."""


class UnknownVersion(FormatError):
    """The file needs a newer clic_jax."""


class Truncated(FormatError):
    """The file ends too early."""


class TrailingBytes(FormatError):
    """A whole .clic file, and something behind it."""


class Damaged(FormatError):
    """Bytes of the file have changed, or it was never written as this module describes."""


class TooLarge(FormatError):
    """The picture has more pixels than the caller allows."""


class ModelMismatch(FormatError):
    """The codec was given another model (id `found`) than the one that wrote the file (id `expected`)."""

    def __init__(self, expected: str, found: str):
        super().__init__(expected, found)  # the arguments, not the message, so that the error survives pickling
        self.expected, self.found = expected, found

    def __str__(self):
        return (
            f"the file was written with model {self.expected} and cannot be decoded with {self.found}: "
            "give the model that wrote it (`clic-jax models` lists the ids of the installed ones)"
        )


class Desync(FormatError):
    """Decoding gave other latents than encoding: their `checksum` is `found`, not `expected`. A bug, never bad luck."""

    def __init__(self, expected: int, found: int, setting: str = ""):
        """`setting`: the versions and devices that the report should name, such as "jax 0.10.0, cpu"."""
        super().__init__(expected, found, setting)
        self.expected, self.found, self.setting = expected, found, setting

    def __str__(self):
        return (
            f"decoder out of step, so there is no picture: latents {self.found:06x}, not {self.expected:06x}"
            f"{f' ({self.setting})' if self.setting else ''}; please report this line, the file and where it was written"
        )


def checksum(*parts) -> int:
    """The low 24 bits of the CRC-32 of `parts`, bytes or contiguous arrays, as if they were joined."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc & 0xFFFFFF


@dataclass(frozen=True)
class Header:
    """What a file says about itself.

    Raises: ValueError for a field outside the values given here.
    """

    width: int  # pixels, 1 to MAX_SIDE
    height: int
    quality: float  # 1 to 100, a multiple of 0.01
    model_id: str  # 8 hex digits, lower case
    latents_check: int  # `checksum` of the decoded latents
    grey: bool = False  # decode to a grey picture
    z_bytes: int = 0  # of the stream; rounded down in the file, as `pqf_bytes` is
    pqf_bytes: int | None = None  # None: there are no PQF coefficients

    def __post_init__(self):
        if not re.fullmatch("[0-9a-f]{8}", self.model_id):
            raise ValueError(f"model_id must be 8 hex digits, not {self.model_id!r}")
        for field in _FIELDS:
            value = getattr(self, field.name, None)
            if field.high and value is not None and not field.low <= value <= field.high:
                raise ValueError(f"{field.name} must be from {field.low} to {field.high}, not {value}")
        if self.quality != round(self.quality, 2):
            raise ValueError(f"quality must be a multiple of 0.01, not {self.quality}")


def pack(header: Header, stream: bytes, extras: Mapping[Tag, bytes] | None = None) -> bytes:
    """The bytes of a file.

    Args:
        stream: z, y and PQF coefficients as the codec wrote them. extras: a plain profile, not a deflated one.
    Raises: ValueError if the parts of the stream are larger than it.
    """
    if header.z_bytes + (header.pqf_bytes or 0) > len(stream):
        raise ValueError(f"z and pqf have more bytes than the stream of {len(stream)}: {header}")
    flags = header.grey * _GREY | (header.pqf_bytes is not None) * _PQF | bool(extras) * _EXTRAS
    values = vars(header) | {"stream_bytes": len(stream)}
    out = [MAGIC, bytes([VERSION | flags << 4])]
    out += [field.write(values[field.name]) for field in _FIELDS if field.flag & flags == field.flag]
    out.append(stream)
    for tag, content in sorted((extras or {}).items()):
        content = zlib.compress(content, 9) if tag == Tag.ICC else content
        out += [bytes([Tag(tag)]), _write_varint(len(content)), content]
    out += [b"\0"] if extras else []
    return b"".join([*out, checksum(*out).to_bytes(3, "little")])


def unpack(data: bytes, *, max_pixels: int | None = MAX_PIXELS) -> tuple[Header, bytes, dict[Tag, bytes]]:
    """The header, the stream and the extras of a file; undoes `pack`, but for the rounding of the header's byte counts.

    Time and memory are proportional to `data`, plus MAX_ICC. Optional chunks that this version does not know are left
    out. `max_pixels`: refuse larger pictures, before anything is allocated for them; None for no limit but MAX_SIDE.
    Raises: a FormatError of its own kind for each thing that can be wrong, ModelMismatch and Desync excepted.
    """
    header, stream, chunks, _ = _parse(bytes(data))
    if max_pixels is not None and header.width * header.height > max_pixels:
        raise TooLarge(
            f"the picture has {header.width} x {header.height} pixels, more than the limit of {max_pixels}: "
            "raise the limit if you trust the file"
        )
    extras = {Tag(tag): content for tag, content in chunks.items() if tag in set(Tag)}
    unknown = [tag for tag in chunks if tag < 128 and tag not in extras]
    if unknown:
        raise UnknownVersion(f"the file needs the feature {unknown[0]}, unknown to this version: upgrade clic_jax")
    if Tag.ICC in extras:
        extras[Tag.ICC] = _inflate(extras[Tag.ICC])
    return header, stream, extras


def peek(source: bytes | str | os.PathLike | BinaryIO) -> dict[str, Any]:
    """What `info` prints of a file, a path or bytes: width, height, quality, model_id, and bytes of which part.

    The parts add up to the total. Those of z and pqf are rounded down (see the top of this module), and y is the rest
    of the stream, so it is at most 6 % of z and pqf too large.
    Raises: FormatError as `unpack`, but neither for large pictures nor for unknown features; OSError.
    """
    if hasattr(source, "read"):
        source = source.read()
    data = Path(source).read_bytes() if isinstance(source, (str, os.PathLike)) else bytes(source)
    header, stream, _, extras = _parse(data)
    z, pqf = header.z_bytes, header.pqf_bytes or 0
    parts = {"header": len(data) - len(stream) - extras, "z": z, "y": len(stream) - z - pqf, "pqf": pqf}
    about = {name: getattr(header, name) for name in ("width", "height", "quality", "model_id")}
    return about | {"bytes": {"total": len(data), **parts, "extras": extras}}


class _Reader:
    """Takes bytes from the front of `data`."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise Truncated(f"the file ends after {len(self.data)} bytes of at least {end}: copy or download it again")
        start, self.at = self.at, end
        return self.data[start:end]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128 and (byte or not shift):
                return value
            if not byte:
                break  # the highest digits are 0: a second way to write a shorter number
        raise Damaged(f"the number at byte {self.at} is not one that clic_jax writes: copy or download the file again")


def _write_varint(value: int) -> bytes:
    digits = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(digit | 128 for digit in digits[:-1]), digits[-1]])


def _write_rough(size: int) -> bytes:
    """One byte, exponent and mantissa of four bits: `size` rounded down to five significant bits, 507904 at most."""
    size = min(size, 31 << 14)
    exponent = max(size.bit_length() - 5, 0)
    return bytes([size if size < 16 else (exponent << 4) + (size >> exponent)])


def _read_rough(reader: _Reader) -> int:
    exponent, mantissa = divmod(reader.take(1)[0], 16)
    return (16 + mantissa) << (exponent - 1) if exponent else mantissa


def _write_quality(quality: float) -> bytes:
    whole, hundredths = divmod(round(quality * 100), 100)
    return _write_varint(whole + 128 * hundredths)


def _read_quality(reader: _Reader) -> float:
    hundredths, whole = divmod(reader.varint(), 128)
    if hundredths > 99:
        raise Damaged("the quality is no number of hundredths: copy or download the file again")
    return whole + hundredths / 100 if not hundredths else (whole * 100 + hundredths) / 100


class _Field(NamedTuple):
    name: str  # of `Header`, but for stream_bytes
    write: Callable[[Any], bytes]
    read: Callable[[_Reader], Any]
    low: int = 0
    high: int = 0  # 0: every value that can be written
    flag: int = 0  # present only with it


_FIELDS = (
    _Field("model_id", bytes.fromhex, lambda reader: reader.take(4).hex()),
    _Field("width", _write_varint, _Reader.varint, 1, MAX_SIDE),
    _Field("height", _write_varint, _Reader.varint, 1, MAX_SIDE),
    _Field("quality", _write_quality, _read_quality, 1, 100),
    _Field("stream_bytes", _write_varint, _Reader.varint),
    _Field("z_bytes", _write_rough, _read_rough, 0, 2**63),
    _Field("pqf_bytes", _write_rough, _read_rough, 0, 2**63, flag=_PQF),
    _Field("latents_check", lambda x: x.to_bytes(3, "little"), lambda r: int.from_bytes(r.take(3), "little"), 0, 2**24 - 1),
)
