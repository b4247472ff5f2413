"""A file as torch.save writes it, without torch: the pickle's instructions one by one."""

import struct
import zipfile

import numpy as np

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if value < 2**31 else b"\x8a\x08" + struct.pack("<q", value)


def row(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def storage(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    return row(text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"), number(count)) + b"Q"


def tensor(stored: bytes, shape, stride, offset: int = 0) -> bytes:
    """What makes a tensor of a storage."""
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = row(stored, number(offset), row(*map(number, shape)), row(*map(number, stride)), b"\x89", hooks)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def tree(items: dict[str, bytes]) -> bytes:
    return b"ccollections\nOrderedDict\n)R(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def archive(path, pickle: bytes, contents=(), compression=zipfile.ZIP_STORED):
    """A zip of one pickle, without its first and last instruction, and of the bytes of each storage."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + pickle + b".")
        file.writestr("archive/byteorder", b"little")
        for key, content in enumerate(contents):
            file.writestr(f"archive/data/{key}", content)


def save(path, state: dict[str, np.ndarray]):
    """A state dict, each array a storage of its own."""
    items, contents = {}, []
    for name, array in state.items():
        strides = [step // array.itemsize for step in np.ascontiguousarray(array).strides][: array.ndim]
        stored = storage(str(len(contents)), array.size, STORAGES[array.dtype.name])
        items[name] = tensor(stored, array.shape, strides)
        contents.append(array.tobytes())
    archive(path, tree(items), contents)
