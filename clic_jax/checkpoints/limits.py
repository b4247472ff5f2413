"""What a published folder may make its reader do: read that folder, within limits, and nothing else.

Orbax and tensorstore obey what they read: an array may lie anywhere on the disk, claim 2^40 elements, or unfold 32,768
bytes from each that is stored. So a folder is looked at before they are: its files, the list of its arrays, their
layout, and the headers of what is compressed. What `published.save_published` never writes is refused, in one line.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MAX_TEXT = 2**24  # bytes of a JSON file; the largest of the released models has 73 thousand
MAX_FILES = 10_000  # of a folder; `save_published` writes fewer than 40
MAX_WEIGHTS = 2**30  # bytes of the folder, of its arrays, and of what its files unfold to; the paper's model has 2^28.2

_ZSTD, _ZSTD_BLOCK = b"\x28\xb5\x2f\xfd", 2**17  # the first bytes of a Zstandard frame; the most a block unfolds to
_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")  # of a level of the tree of parameters; no dots and slashes
_DTYPES = {"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "bfloat16", "float32"}
_KINDS = {"jax.Array", "np.ndarray"}
_OURS = re.compile(  # the files that orbax makes of the arrays that `save_published` gives it
    r"(ocdbt\.process_\d{1,6}/)?(manifest\.ocdbt|d/[0-9a-f]{32})|_METADATA|_CHECKPOINT_METADATA|commit_success\.txt"
)


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises: ValueError if it is no regular file or has over MAX_TEXT bytes; OSError."""
    return json.loads(read_text(path))


def read_text(path: Path) -> str:
    """The text of a regular file. Raises: ValueError if it is none or has over MAX_TEXT bytes; OSError."""
    if path.is_symlink() or (path.exists() and not path.is_file()):  # a pipe would be waited for
        raise ValueError(f"{path.name} is a link or no file")
    with open(path, encoding="utf-8") as file:
        text = file.read(MAX_TEXT + 1)
    if len(text) > MAX_TEXT:
        raise ValueError(f"{path.name} has more than {MAX_TEXT} bytes")
    return text


def check_folder(folder: Path):
    """Looks at an orbax folder of arrays before orbax does.

    Raises: ValueError, naming what is wrong: links or what is no file, too many files or bytes, arrays that are not
    inside, or that unfold to more than MAX_WEIGHTS.
    """
    size = unfolded = 0
    for count, path in enumerate(_files(folder), 1):
        if not _OURS.fullmatch(path.relative_to(folder).as_posix()):
            raise ValueError(f"it has a file that is not of a published folder, {path.name[:40]!r}")
        size += path.stat().st_size
        if count > MAX_FILES or size > MAX_WEIGHTS:
            raise ValueError(f"it has more than {MAX_FILES} files, or {MAX_WEIGHTS} bytes")
        unfolded += _unfolded(path.read_bytes(), MAX_WEIGHTS - unfolded)
    about = read_json(folder / "_METADATA")
    if about.get("use_ocdbt") is not True or about.get("use_zarr3"):
        raise ValueError("its arrays are not in one OCDBT database of zarr 2")
    for entry in about["tree_metadata"].values():
        keys, kind = entry["key_metadata"], entry["value_metadata"]["value_type"]
        if not keys or not all(isinstance(level["key"], str) and _NAME.fullmatch(level["key"]) for level in keys):
            raise ValueError("a name in its list of arrays is none")
        if kind not in _KINDS:
            raise ValueError(f"its list of arrays has a {kind[:20]}")
    _check_layout(folder)


def check_arrays(expected: dict[str, Any], stored: dict[str, Any]):
    """Raises: ValueError naming the first array, by its path, of another shape or type, or with infinities or NaN."""
    for name in sorted(expected.keys() | stored.keys()):
        a, b = (f"{x[name].dtype}{list(x[name].shape)}" if name in x else "absent" for x in (stored, expected))
        if a != b:
            raise ValueError(f"{name[:100]} is {a}, and by its config.json {b}")
        if not np.isfinite(np.asarray(stored[name], np.float32)).all():
            raise ValueError(f"{name[:100]} is not finite")


def _files(folder: Path) -> Iterator[Path]:
    """Every file below `folder`. Raises: ValueError for a link, and for what is neither file nor folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
            else:
                raise ValueError(
                    f"{entry.name} is a link or no file: copy the folder with what its links mean (cp -rL)"
                )


def _unfolded(data: bytes, limit: int) -> int:
    """At most so many bytes the Zstandard frames in `data` (RFC 8878) unfold to. Raises: ValueError over `limit`.

    Wherever the four bytes are that begin a frame, one is assumed: where none is, the assumed blocks soon end.
    """
    total, start = 0, -1
    while (start := data.find(_ZSTD, start + 1)) >= 0:
        flags = data[start + 4] if start + 4 < len(data) else 0
        single = flags >> 5 & 1  # no window is told, and the size in a byte at least
        at = start + 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
        last = kind = 0
        while not last and kind != 3 and at + 3 <= len(data):
            header = int.from_bytes(data[at : at + 3], "little")
            last, kind, size = header & 1, header >> 1 & 3, header >> 3
            at += 3 + (1 if kind == 1 else size)
            total += _ZSTD_BLOCK
            if total > limit:
                raise ValueError(f"its files unfold to more than {MAX_WEIGHTS} bytes")
    return total


def _check_layout(folder: Path):
    """Raises: ValueError for arrays of more than MAX_WEIGHTS, of other types, or stored in another way than ours."""
    import tensorstore

    spec = {"driver": "ocdbt", "base": f"file://{folder}/", "cache_pool": {"total_bytes_limit": 0}}
    store, total = tensorstore.KvStore.open(spec).result(), 0
    for key in store.list().result():
        if not key.endswith(b"/.zarray"):
            continue
        array = json.loads(store.read(key).result().value)
        shape, chunks = array["shape"], array["chunks"]
        whole = all(type(n) is int and 0 <= n <= MAX_WEIGHTS for n in [*shape, *chunks]) and len(chunks) == len(shape)
        if not whole or any(chunk > max(n, 1) for chunk, n in zip(chunks, shape)):
            raise ValueError("an array is stored in pieces larger than itself, or has no shape")
        if (array["compressor"] or {"id": "zstd"})["id"] != "zstd" or array["filters"]:
            raise ValueError("an array is compressed in another way than ours")
        if (name := _dtype_name(array["dtype"])) not in _DTYPES:
            raise ValueError(f"an array has the type {name[:20]}")
        total += 4 * math.prod(shape)  # what is narrow is read as float32
        if total > MAX_WEIGHTS:
            raise ValueError(f"its arrays have more than {MAX_WEIGHTS} bytes")


def _dtype_name(text: str) -> str:
    """The name of a type as zarr spells it, such as <f4."""
    return text if text == "bfloat16" else np.dtype(text).name
