"""The bytes of a .clic file, from wherever Python code has them."""

import os
from typing import BinaryIO

from clic_jax.files.container import MAGIC, NotClic


def contents(source: bytes | str | os.PathLike | BinaryIO) -> bytes:
    """The bytes in bytes, a path or an open binary file; the first three alone if no .clic file starts with them.

    Raises: NotClic for any other object; OSError.
    """
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return contents(file)
    if hasattr(source, "read"):
        start = source.read(len(MAGIC))
        return start + source.read() if start == MAGIC else start
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    raise NotClic(f"a .clic file is bytes, a path or an open file, not {type(source).__name__}")
