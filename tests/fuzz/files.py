"""Mutations of .clic files, for the tests and for `make fuzz`.

Each takes a file without its checksum and a random.Random, and returns another.
"""

import dataclasses
import io
import struct

from PIL import Image

from clic_jax.files.container import Tag, pack, unpack
from clic_jax.quality import Quality
from tests.files.test_container import sealed

EDGES = (0, 1, 2, 16, 63, 64, 65, 127, 128, 255, 16384, 2**20, 2**20 + 1, 2**31, 2**40)


def flip_bits(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def edit_header_bytes(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(min(len(data), 24))] = rng.randrange(256)
    return bytes(data)


def truncate(data, rng):
    return data[: rng.randrange(len(data))]


def insert(data, rng):
    at = rng.randint(0, len(data))
    return data[:at] + garbage(b"", rng) + data[at:]


def delete(data, rng):
    start, stop = cut(data, rng)
    return data[:start] + data[stop:]


def repeat(data, rng):
    start, stop = cut(data, rng)
    return data[:stop] + data[start:]


def swap(data, rng):
    a, b, c, d = sorted(rng.randint(0, len(data)) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def garbage(data, rng):
    return data[: rng.choice((0, 3, 4, 8))] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 60)))


def cut(data, rng):
    return sorted(rng.randint(0, len(data)) for _ in range(2))


def change_field(data, rng):
    """Another value for one field of the header, by the container's own `pack` where it agrees to write it."""
    header, stream, extras = unpack(sealed(data))
    name = rng.choice([field.name for field in dataclasses.fields(header)])
    values = {
        "quality": Quality(rng.randint(100, 10000)),
        "model_id": f"{rng.getrandbits(32):08x}",
        "latents_check": rng.getrandbits(24),
        "grey": not header.grey,
        "pqf_bytes": None if header.pqf_bytes is not None else 0,
    }
    try:
        return pack(dataclasses.replace(header, **{name: values.get(name, rng.choice(EDGES))}), stream, extras)[:-3]
    except ValueError:
        return data[:-1]  # not even that is written


def change_stream(data, rng):
    """Another stream behind a header that fits it: damage, noise, a piece of itself, or nothing."""
    header, stream, extras = unpack(sealed(data))
    how = rng.choice((flip_bits, truncate, insert, delete, repeat, swap, garbage))
    stream = how(stream, rng) if stream else garbage(b"", rng)
    header = dataclasses.replace(header, z_bytes=0, pqf_bytes=None if header.pqf_bytes is None else 0)
    return pack(header, stream, extras)[:-3]


def change_extra(data, rng):
    """Damage inside one of the extras, or one that is too many; the transparency plane is a file of its own."""
    header, stream, extras = unpack(sealed(data))
    tag = rng.choice(list(Tag))
    how = rng.choice((flip_bits, truncate, insert, swap, garbage))
    extras[tag] = how(extras[tag], rng) if extras.get(tag) else garbage(b"", rng)
    return pack(header, stream, extras)[:-3]


def change_exif(data, rng):
    """EXIF data of the right structure that lie: types, counts and places of values that are not there, and loops."""
    header, stream, extras = unpack(sealed(data))
    return pack(header, stream, extras | {Tag.EXIF: lying_exif(rng)})[:-3]


def lying_exif(rng) -> bytes:
    """An EXIF block whose directory has entries at random, of known tags half of the time."""
    known, order = (0x0112, 0x011A, 0x011B, 0x0128, 0x8769, 0x8825, 0xA005, 0x010E, 0x927C), rng.choice("<>")
    count = rng.choice((0, 1, 3, 20, 300))
    entries = b"".join(
        struct.pack(
            order + "HHII",
            rng.choice(known) if rng.randrange(2) else rng.randrange(65536),
            rng.randrange(15),
            rng.choice((0, 1, 2, 4, 1000, 2**16, 2**31, 2**32 - 1)),
            rng.choice((0, 8, 12, 72, 1000, 2**31, 2**32 - 1)),
        )
        for _ in range(count)
    )
    says = count if rng.randrange(4) else rng.choice((0, 1, 65535))
    directory = struct.pack(order + "H", says) + entries + struct.pack(order + "I", rng.choice((0, 8, 10, 2**31)))
    return b"Exif\0\0" + {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8) + directory


def lying_picture(rng) -> tuple[str, bytes]:
    """(format, file) of a small picture whose EXIF data or profile lie, or with damage, or with both."""
    file, kind = io.BytesIO(), rng.choice(("PNG", "JPEG", "WEBP", "TIFF"))
    extra = {"exif": lying_exif(rng)} if rng.randrange(2) else {"icc_profile": rng.randbytes(rng.choice((1, 40, 200)))}
    Image.new(rng.choice(("RGB", "L")), (9, 7)).save(file, kind, **extra if kind != "TIFF" else {})
    damage = rng.choice((None, None, None, flip_bits, truncate, insert))
    return kind, damage(file.getvalue(), rng) if damage else file.getvalue()


MUTATIONS = (
    *(flip_bits, edit_header_bytes, truncate, insert, delete, repeat, swap, garbage),
    *(change_field, change_stream, change_extra, change_exif),
)


def mutant(originals, rng) -> tuple[int, bytes, bool]:
    """(number of the original, mutated file, whether it was sealed anew): 1 to 3 mutations, half sealed."""
    number = rng.randrange(len(originals))
    data, seal = originals[number][0], rng.randrange(2) == 0
    body = rng.choice(MUTATIONS)(data[:-3], rng)
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        body = rng.choice(MUTATIONS[:7])(body or b"\xc1", rng)
    return number, sealed(body) if seal else body + data[-3:], seal
