"""Tensors in files of torch.save, read without torch, and without doing what a pickle asks for.

Such a file is a pickle that describes the tensors, and their bytes. A pickle is a program: `pickle.Unpickler`, even one
that lets few names through, hashes what it is told to and takes the memory that it is told to. So the two dozen
instructions that torch.save writes are carried out here, on plain containers; all else is refused. Both layouts are
read: the zip of torch 1.6 and later, and the row of pickles before it. Only the bytes that are wanted are ever read.

The layouts are those of torch/serialization.py in torch 2.13.
"""

import io
import math
import os
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clic_jax.checkpoints.explained import CheckpointError, explained
from clic_jax.checkpoints.limits import MAX_WEIGHTS
from clic_jax.errors import UserError

MAX_PICKLE = 2**24  # bytes; the paper's model with the state of its optimisers has about a million
MAX_AXES = 16
ZIP, OLD = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the first bytes of either layout
REMEDY = "with torch, save its state dict alone: torch.save(model.state_dict(), FILE)"

# storages that have a name, by their NumPy type; bfloat16, which NumPy has not, as what it is stored in
_DTYPES = {"Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": "u2", "Long": "i8", "Int": "i4", "Short": "i2"}
_DTYPES |= {"Char": "i1", "Byte": "u1", "Bool": "?"}
_STORAGES = {f"{room}.{name}Storage": name for room in ("torch", "torch.cuda") for name in _DTYPES}
_TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
_CALLED = {"collections.OrderedDict", "torch._utils._rebuild_parameter", *_TENSORS}


class UnsafeCheckpoint(CheckpointError):
    """A pickle that asks for more than tensors in plain containers; the message names what."""


class Storage(NamedTuple):
    """A run of numbers in the file."""

    key: str
    kind: str  # of _DTYPES
    count: int

    @property
    def bytes(self) -> int:
        return self.count * np.dtype(_DTYPES[self.kind]).itemsize


class Tensor(NamedTuple):
    """A view of a storage: its numbers are not read yet. Offset and stride in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Named(NamedTuple):
    """A name that the pickle asks for, one of those allowed."""

    name: str


def read_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a state dict, by name; bfloat16 as float32.

    Of a training checkpoint, {"state_dict": ..., "epoch": ..., "optimizer": ...}, the state dict is taken. The prefix
    `module.` of torch.nn.DataParallel is left out.
    Raises: UnsafeCheckpoint; CheckpointError for a file that is none, is damaged, or more than MAX_WEIGHTS.
    """
    path = Path(path)
    with explained(f"cannot read {path} (it is damaged, or cut off)", UserError), open(path, "rb") as file:
        start = file.read(len(OLD))
        file.seek(0)
        if start.startswith(ZIP):
            with zipfile.ZipFile(file) as archive:
                return _of_zip(path, archive)
        if start == OLD:
            return _of_row(path, file)
        raise CheckpointError(f"{path} is no file of torch.save: {REMEDY}")


def _of_zip(path: Path, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    names = [name for name in archive.namelist() if re.fullmatch(r"([^/]*/)?data\.pkl", name)]
    if len(names) != 1:
        raise CheckpointError(f"{path} is a zip, but not one of torch.save: {REMEDY}")
    root = names[0].removesuffix("data.pkl")

    def content(name: str, most: int) -> bytes:
        if archive.getinfo(root + name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name[:40]} is compressed in a way that takes any memory")
        with archive.open(root + name) as part:
            found = part.read(most + 1)  # beyond the end, or its checksum would not be looked at
        if len(found) > most:
            raise ValueError(f"{name[:40]} has more than {most} bytes")
        return found

    def read(storage: Storage) -> bytes:
        return content(f"data/{storage.key}", storage.bytes)

    order = content("byteorder", 6).decode() if f"{root}byteorder" in archive.namelist() else "little"
    return _arrays(state_dict(path, unpickled(path, io.BytesIO(content("data.pkl", MAX_PICKLE)))), read, order)


def _of_row(path: Path, file) -> dict[str, np.ndarray]:
    """Pickles of a magic number, a version, the system, the object and the storages' keys; then their numbers."""
    start = io.BytesIO(file.read(MAX_PICKLE))
    _, _, system, tree, keys = (unpickled(path, start) for _ in range(5))
    tensors = state_dict(path, tree)
    sizes = {tensor.storage.key: tensor.storage for tensor in _tensors(tree)}
    file.seek(start.tell())
    places, order = {}, "little" if system["little_endian"] else "big"
    for key in keys:
        count = int.from_bytes(file.read(8), order)
        if count != sizes[key].count:
            raise ValueError(f"the storage {key} has another size than was said")
        places[key] = file.tell()
        file.seek(sizes[key].bytes, os.SEEK_CUR)

    def read(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(min(storage.bytes, MAX_WEIGHTS))

    return _arrays(tensors, read, order)


def _tensors(tree):
    """All tensors in a tree, each container looked at once."""
    seen, todo = set(), [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, Tensor):
            yield node
        elif isinstance(node, (dict, list, tuple)) and id(node) not in seen:
            seen.add(id(node))
            todo += node.values() if isinstance(node, dict) else node


def state_dict(path: Path, tree: Any) -> dict[str, Tensor]:
    """The tensors of the state dict in what was unpickled. Raises: CheckpointError where there is none."""
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    tensors = {k: v for k, v in tree.items() if isinstance(v, Tensor)} if isinstance(tree, dict) else {}
    if not tensors:
        held = ", ".join(str(key)[:30] for key in list(tree)[:5]) if isinstance(tree, dict) else type(tree).__name__
        raise CheckpointError(f"{path} holds no state dict ({held or 'nothing'}): {REMEDY}")
    if all(str(name).startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return {str(name): tensor for name, tensor in tensors.items()}


def _arrays(tensors: dict[str, Tensor], read: Callable[[Storage], bytes], order: str) -> dict[str, np.ndarray]:
    """What is claimed is added up before anything is read."""
    storages = {tensor.storage for tensor in tensors.values()}
    unfolded = sum(4 * math.prod(tensor.shape) for tensor in tensors.values())
    if max(unfolded, sum(storage.bytes for storage in storages)) > MAX_WEIGHTS:
        raise ValueError(f"its tensors claim more than {MAX_WEIGHTS} bytes")
    contents, arrays = {}, {}
    for storage in storages:
        content = read(storage)
        if len(content) != storage.bytes:
            raise ValueError(f"the storage {storage.key[:40]} is shorter than was said")
        kind = np.dtype(_DTYPES[storage.kind])
        numbers = np.frombuffer(content, kind.newbyteorder(order)).astype(kind)
        wide = storage.kind == "BFloat16"
        contents[storage] = (numbers.astype(np.uint32) << 16).view(np.float32) if wide else numbers
    for name, (storage, offset, shape, stride) in tensors.items():
        numbers = contents[storage]
        view = np.lib.stride_tricks.as_strided(numbers[offset:], shape, [step * numbers.itemsize for step in stride])
        arrays[name] = np.array(view)
    return arrays


def unpickled(path: Path, file: io.BytesIO) -> Any:
    """The next pickle of `file`: numbers, text, lists, tuples, dicts and `Tensor`s, however it nests them.

    Raises: UnsafeCheckpoint; ValueError, IndexError and others for a damaged one.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list:
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    def named(module: str, name: str) -> _Named:
        full = f"{module}.{name}"
        if full not in _CALLED and full not in _STORAGES:
            raise UnsafeCheckpoint(f"{path} is refused: its pickle asks for {full[:80]!r}, no tensor; {REMEDY}")
        return _Named(full)

    for code, argument, _ in pickletools.genops(file):
        match code.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[code.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[code.name]())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(code.name[-1]))]
                stack.append(tuple(items[::-1]))
            case "APPEND" | "APPENDS":
                items = since_mark() if code.name == "APPENDS" else [stack.pop()]
                _container(stack[-1], list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = since_mark() if code.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                _container(stack[-1], dict).update(_pairs(zip(items[::2], items[1::2], strict=True)))
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                memo[len(memo) if argument is None else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(named(str(module), str(name)))
            case "BINPERSID":
                stack.append(_storage(*_container(stack.pop(), tuple)))
            case "REDUCE":
                arguments, function = _container(stack.pop(), tuple), stack.pop()
                stack.append(_called(_container(function, _Named).name, *arguments))
            case "BUILD":  # the versions of the modules, which a state dict has as an attribute
                stack.pop()
                _container(stack[-1], dict)
            case other:
                text = f"{other} {argument or ''}"[:80]
                raise UnsafeCheckpoint(f"{path} is refused: its pickle has the instruction {text!r}; {REMEDY}")


def _container(value, kind: type):
    if type(value) is not kind:
        raise ValueError(f"its pickle has a {type(value).__name__} in the place of a {kind.__name__}")
    return value


def _pairs(pairs) -> dict:
    """Keys are text or numbers: to hash others can take forever."""
    pairs = [(key, value) for key, value in pairs]
    if any(type(key) not in (str, int) for key, _ in pairs):
        raise ValueError("its pickle has a key that is neither text nor a whole number")
    return dict(pairs)


def _storage(kind, named, key, _, count, view=None) -> Storage:
    """Of what torch.save calls a persistent id."""
    name = _container(named, _Named).name
    whole = type(count) is int and 0 <= count <= 2**40
    if kind != "storage" or name not in _STORAGES or type(key) is not str or not whole or view is not None:
        raise ValueError("its pickle has a storage that is none")
    return Storage(key, _STORAGES[name], count)


def _called(name: str, *arguments):
    if name == "collections.OrderedDict":
        return _pairs(arguments[0]) if arguments else {}
    if name == "torch._utils._rebuild_parameter":
        return _container(arguments[0], Tensor)
    if name not in _TENSORS:
        raise ValueError(f"its pickle calls {name}")
    storage, offset, shape, stride = arguments[:4]
    _container(storage, Storage), _container(shape, tuple), _container(stride, tuple)
    whole = all(type(n) is int and 0 <= n <= 2**40 for n in (offset, *shape, *stride))
    if not whole or len(shape) != len(stride) or len(shape) > MAX_AXES:
        raise ValueError("its pickle has a tensor without a shape")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride))
    if math.prod(shape) and last >= storage.count:
        raise ValueError("its pickle has a tensor beyond its storage")
    return Tensor(storage, offset, shape, stride)
