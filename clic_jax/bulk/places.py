"""Files by path or by address, such as s3://bucket/a.png: the same few actions. A path never needs fsspec."""

import contextlib
import os
import re
from collections.abc import Iterable
from urllib.parse import urlsplit
from urllib.request import url2pathname

from clic_jax.errors import UserError
from clic_jax.files import atomic, contents


class PlaceError(UserError):
    """An address that cannot be used: its file system is unknown, not installed, or refuses."""


def expanded(text: str) -> str:
    """What a user typed as the other functions take it: an address, or a path, whose ~ and file:// are resolved."""
    if text.startswith("file://"):
        return url2pathname(urlsplit(text).path)
    return text if is_address(text) else os.path.expanduser(text)


def is_address(name: str) -> bool:
    """Whether it names a file elsewhere."""
    return re.match("[a-z][a-z0-9+.-]*://", name) is not None


def absolute(name: str) -> str:
    """The same for a process in any folder; - and addresses as they are."""
    return name if name == "-" or is_address(name) else os.path.join(os.getcwd(), name)


def below(folder: str, path: str) -> str:
    """The place of `path`, which has slashes, in `folder`."""
    return f"{folder.rstrip('/')}/{path}" if is_address(folder) else os.path.join(folder, path)


def check(names: Iterable[str]):
    """Looks once for the file system of each kind of address among `names`. Raises: PlaceError where one is missing."""
    for name in {name.partition("://")[0]: name for name in names if is_address(name)}.values():
        with _one_line(name):
            _file_system(name)


def same(name: str) -> str:
    """A text that two names share if they name the same file: links are followed."""
    return name if is_address(name) else os.path.realpath(name)


def is_folder(name: str) -> bool:
    """Whether a folder is there. Raises: PlaceError; OSError."""
    if not is_address(name):
        return os.path.isdir(name)
    with _one_line(name):
        files, path = _file_system(name)
        return files.isdir(path)


def exists(name: str) -> bool:
    """Whether anything is there, a broken link included. Raises: PlaceError; OSError."""
    if not is_address(name):
        return os.path.lexists(name)
    with _one_line(name):
        files, path = _file_system(name)
        return files.exists(path)


def files_below(folder: str) -> list[str]:
    """The files in a folder at an address, and in those below, by their paths within it, sorted; none if it is missing.

    Hidden ones are left out. Raises: PlaceError; OSError.
    """
    with _one_line(folder):
        files, path = _file_system(folder)
        start = path.rstrip("/") + "/"
        found = (name.removeprefix(start) for name in files.find(path) if name.startswith(start))
        return sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))


def state(name: str) -> tuple[int, float | None]:
    """(bytes, time of the last change in seconds since 1970, None where the file system does not tell).

    Raises: PlaceError; OSError.
    """
    if not is_address(name):
        about = os.stat(name)
        return about.st_size, about.st_mtime
    with _one_line(name):
        files, path = _file_system(name)
        size, modified = files.size(path), None
        with contextlib.suppress(NotImplementedError, KeyError, AttributeError):
            modified = files.modified(path).timestamp()
        return size or 0, modified


def read(name: str) -> bytes:
    """All bytes of a file. Raises: TooLarge for more than `contents.MAX_BYTES`; PlaceError; OSError."""
    if not is_address(name):
        with open(name, "rb") as file:
            return contents.read(file)
    with _one_line(name):
        files, path = _file_system(name)
        if (size := files.size(path)) is not None and size <= contents.MAX_BYTES:
            return files.cat_file(path)
        with files.open(path, "rb") as file:  # which says when it is too large
            return contents.read(file)


def write(name: str, data: bytes, parents: bool = False):
    """Writes a file: at a path whole or not at all (`files.atomic`), at an address as the file system does it, which
    for object stores (s3, gs, az) is the same.

    parents: whether to make the folders that it is in. Raises: PlaceError; OSError.
    """
    if not is_address(name):
        if parents:
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        atomic.write(name, data)
        return
    with _one_line(name):
        files, path = _file_system(name)
        if parents:
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
        files.pipe_file(path, data)


@contextlib.contextmanager
def opened(address: str):
    """(fsspec's file system, path in it) of an address; whatever it raises inside is PlaceError or OSError."""
    with _one_line(address):
        yield _file_system(address)


def _file_system(address: str):
    """(fsspec's file system, path in it) of an address. Raises: PlaceError."""
    try:
        import fsspec
    except ImportError:
        remedy = "pip install 'clic_jax[cluster]'"
        raise PlaceError(f"{address} is an address, for which fsspec is missing: {remedy}, or give a path") from None
    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:  # s3fs, gcsfs, adlfs: fsspec says which
        text = f"{address}: a package is missing for such addresses ({' '.join(str(error).split())})"
        raise PlaceError(f"{text}: install it, or give a path") from None


@contextlib.contextmanager
def _one_line(address: str):
    """What a file system raises, of whatever kind, as errors of ours."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # each has its own: credentials, unknown protocols, answers of servers
        raise PlaceError(f"{address}: {' '.join(str(error).split()) or type(error).__name__}") from error
