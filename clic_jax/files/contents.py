"""The bytes of a .clic file, from wherever Python code has them."""

import os
from typing import BinaryIO

from clic_jax.files.container import MAGIC, NotClic, TooLarge

MAX_BYTES = 2**30  # of a file or a stream that is read; the largest picture read by default has 32 bits a pixel in it


def read(file: BinaryIO) -> bytes:
    """The rest of an open binary file. Raises: TooLarge for more than MAX_BYTES, which are not kept."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise TooLarge(f"it has more than {MAX_BYTES} bytes: give the bytes themselves if you trust it")
    return data


def contents(source: bytes | str | os.PathLike | BinaryIO) -> bytes:
    """The bytes in bytes, a path or an open binary file; the first three alone if no .clic file starts with them.

    Raises: NotClic for any other object; TooLarge for a file of more than MAX_BYTES; OSError.
    """
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return contents(file)
    if hasattr(source, "read"):
        start = source.read(len(MAGIC))
        return start + read(source) if start == MAGIC else start
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    raise NotClic(f"a .clic file is bytes, a path or an open file, not {type(source).__name__}")
