"""Writing a file whole or not at all, and straight to what is no file."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LINKS = 40  # in a row, as many as Linux follows


def write(path: str | os.PathLike, data: bytes):
    """Writes `data` to `path`, which until then keeps what it held; whatever goes wrong, nothing else is left behind.

    A link is followed. What cannot be replaced is written to as it is: a pipe, a terminal, and any open descriptor of
    this process by its name (/dev/stdout, /dev/fd/3), be it a file, at the place where whoever opened it is writing.
    Raises: OSError that names `path`.
    """
    try:
        number = _descriptor(path)
        if number is not None or os.path.exists(path) and not os.path.isfile(path):
            with open(path if number is None else os.dup(number), "wb") as file:
                file.write(data)
        else:
            _replace(Path(os.path.realpath(path)), data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A name beside `path`, for the caller to make a folder there; whole, it takes the place of what was at `path`.

    Whatever goes wrong inside, `path` stays as it was, and nothing else is left behind. Raises: OSError.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as beside:
        yield Path(beside) / path.name
        if path.exists():
            path.rename(Path(beside) / "old")
        (Path(beside) / path.name).rename(path)


def _replace(target: Path, data: bytes):
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")  # the same folder: os.replace cannot cross disks
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _descriptor(path: str | os.PathLike) -> int | None:
    """The open descriptor of this process that `path` names, or links to, or None."""
    path = os.path.abspath(path)
    for _ in range(_LINKS):
        folder, name = os.path.split(path)
        if name.isdecimal() and os.path.realpath(folder) in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
            return int(name)
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None
