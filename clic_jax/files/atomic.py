"""Writing a file whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path


def write(path: str | os.PathLike, data: bytes):
    """Writes `data` to `path`, which until then keeps what it held; whatever goes wrong, nothing else is left behind.

    A link is followed, and what is no file, such as /dev/stdout, is written to as it is.
    Raises: OSError that names `path`.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")  # the same folder: os.replace cannot cross disks
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
