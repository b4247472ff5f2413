"""What a .clic file holds of an AVIF, WebP or JPEG XL picture: its bits, without the file around them.

    stream = of_file("avif", file)
    width, height = size_of("avif", stream)
    file = to_file("avif", stream, width, height)

    avif     an AV1 sequence header of a still picture and one frame: OBUs with their sizes, and nothing after them.
             4:4:4, 8 bits, sRGB by the matrix of BT.601, full range
    webp     the contents of its only chunk: VP8L, which is lossless, if the first byte is 2F, else VP8
    jpegxl   the codestream

A stream says the size of its picture once, and before anything is decoded. Whole files say it several times: a decoder
of AVIF makes a picture as large as its AV1 header says, and scales that to what the file says.
"""

import struct

NAMES = ("avif", "webp", "jpegxl")
_SEQUENCE, _FRAME, _DELIMITER = b"\x0a", b"\x32", b"\x12\x00"  # types of OBUs with a size
_LOSSLESS_WEBP = b"\x2f"  # the signature of VP8L; the first byte of a VP8 key frame is even
_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of JPEG XL: width to height
_JPEGXL = b"\xff\x0a"


def of_file(name: str, file: bytes) -> bytes:
    """The stream in a file that the encoder of that name, one of NAMES, made. Raises: ValueError for others."""
    at, contents = 12 if name == "webp" else 0, file
    while name != "jpegxl" and at + 8 <= len(file):
        if name == "webp":
            kind, size = struct.unpack_from("<4sI", file, at)
            contents, at = file[at + 8 : at + 8 + size], at + 8 + size + size % 2
        else:
            size, kind = struct.unpack_from(">I4s", file, at)
            contents, at = file[at + 8 : at + size].removeprefix(_DELIMITER), at + max(size, 8)
    if size_of(name, contents) is None or (name == "webp" and file[12:16] not in (b"VP8 ", b"VP8L")):
        raise ValueError(f"a file of {name} that is not made as expected")
    return contents


def to_file(name: str, stream: bytes, width: int, height: int) -> bytes:
    """A file whose picture is that stream of `size_of` (width, height)."""
    if name == "webp":
        chunk = b"VP8L" if is_lossless(name, stream) else b"VP8 "
        body = b"WEBP" + chunk + struct.pack("<I", len(stream)) + stream + bytes(len(stream) % 2)
        return b"RIFF" + struct.pack("<I", len(body)) + body
    return _avif(stream, width, height) if name == "avif" else stream


def size_of(name: str, stream: bytes) -> tuple[int, int] | None:
    """(width, height) of its picture in pixels; None for what is no stream of that name."""
    size = {"avif": _avif_size, "webp": _webp_size, "jpegxl": _jpegxl_size}[name]
    try:
        return size(stream)
    except IndexError:  # cut short
        return None


def is_lossless(name: str, stream: bytes) -> bool:
    """Whether the encoder was told to keep each pixel (a JPEG XL that has RGB, and not XYB, is ours only then)."""
    if name == "jpegxl":
        bits = _Bits(stream[2:])
        try:
            _jpegxl_sides(bits)
            return not bits.take(1)  # all_default, which XYB is
        except IndexError:  # cut short
            return False
    return name == "webp" and stream[:1] == _LOSSLESS_WEBP


def _avif(stream: bytes, width: int, height: int) -> bytes:
    """As libavif writes it; 0x113 bytes are before the stream."""
    file_type = _box("ftyp", b"avif", bytes(4), b"avifmif1miafMA1A")
    handler = _box("hdlr", bytes(8), b"pict", bytes(13))
    item = _box("pitm", bytes(4), b"\0\1")
    where = _box("iloc", bytes.fromhex("00000000 4400 0001 0001 0000 0001 00000113"), struct.pack(">I", len(stream)))
    entry = _box("infe", bytes.fromhex("02000000 0001 0000"), b"av01Color\0")
    entries = _box("iinf", bytes.fromhex("00000000 0001"), entry)
    depth = _box("pixi", bytes.fromhex("00000000 03080808"))
    codec = _box("av1C", bytes.fromhex("813f0000"))  # profile 1, no limit of level, 4:4:4 of 8 bits
    colours = _box("colr", b"nclx", bytes.fromhex("0001 000d 0006 80"))
    properties = _box("ipco", _box("ispe", bytes(4), struct.pack(">II", width, height)), depth, codec, colours)
    used = _box("ipma", bytes.fromhex("00000000 00000001 0001 04 01028304"))
    meta = _box("meta", bytes(4), handler, item, where, entries, _box("iprp", properties, used))
    return file_type + meta + _box("mdat", stream)


def _box(kind: str, *contents: bytes) -> bytes:
    body = b"".join(contents)
    return struct.pack(">I", 8 + len(body)) + kind.encode() + body


def _avif_size(stream: bytes) -> tuple[int, int] | None:
    header, frame = _obu(stream, _SEQUENCE, 0)
    rest, end = _obu(stream, _FRAME, frame)
    if end != len(stream) or not rest:
        return None
    value, bits = int.from_bytes(header, "big"), 8 * len(header)

    def take(count: int) -> int:
        nonlocal bits
        bits -= count
        if bits < 0:
            raise IndexError("cut short")
        return value >> bits & ((1 << count) - 1)

    if take(5) != 0b00111:  # profile 1, a still picture, whose header is reduced: no other size can follow
        return None
    take(5)  # level
    digits = take(4) + 1, take(4) + 1
    return take(digits[0]) + 1, take(digits[1]) + 1


def _obu(stream: bytes, kind: bytes, at: int) -> tuple[bytes, int]:
    """(contents, where they end) of the OBU of that kind at `at`; empty for another kind."""
    if stream[at : at + 1] != kind:
        return b"", -1
    size, shift = 0, 0
    while True:
        at += 1
        size |= (stream[at] & 127) << shift
        shift += 7
        if stream[at] < 128 or shift > 28:
            return stream[at + 1 : at + 1 + size], at + 1 + size


def _webp_size(stream: bytes) -> tuple[int, int] | None:
    if stream[:1] == _LOSSLESS_WEBP and len(stream) >= 5:
        bits = int.from_bytes(stream[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if stream[3:6] == b"\x9d\x01\x2a" and not stream[0] & 1 and len(stream) >= 10:
        return tuple(int.from_bytes(stream[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return None


def _jpegxl_size(stream: bytes) -> tuple[int, int] | None:
    return _jpegxl_sides(_Bits(stream[2:])) if stream[:2] == _JPEGXL else None


def _jpegxl_sides(bits: "_Bits") -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return 8 * bits.take(5) + 8 if small else bits.take((9, 13, 18, 30)[bits.take(2)]) + 1

    height = side()
    ratio = _RATIOS[bits.take(3)]
    return (height * ratio[0] // ratio[1] if ratio else side()), height


class _Bits:
    """Takes numbers from the front of `data`, the lowest bit first. Raises IndexError at the end."""

    def __init__(self, data: bytes):
        self.value, self.left = int.from_bytes(data[:16], "little"), 8 * min(len(data), 16)

    def take(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise IndexError("cut short")
        taken, self.value = self.value & ((1 << count) - 1), self.value >> count
        return taken
