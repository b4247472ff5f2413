"""What every command line here does with errors: a user's mistake is one line, a fault keeps its traceback."""

import argparse
import contextlib
import functools
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import BinaryIO

from clic_jax.errors import UserError


class AddressError(UserError, argparse.ArgumentTypeError):
    """An address where a path is wanted."""


def run(main: Callable[[], int | None], name: str | None = None) -> None:
    """Calls main() and exits with its status.

    Bad input (`clic_jax.errors.UserError`) and what the system refuses (OSError: a full disk, no permission, no such
    file) print `NAME: error: message`, one line, on standard error and exit with 2, as argparse does; Ctrl-C exits with
    130; a reader that goes away (`| head`) with 141, silently. Anything else is ours to mend and keeps its traceback.
    Standard streams may be closed: errors then go nowhere, and never into a file or another stream.

    name: of the command; by default what was typed after `python -m`.
    """
    _plug_streams()
    name = name or _name(main)
    sys.unraisablehook = functools.partial(_unraised, sys.unraisablehook)
    threading.excepthook = functools.partial(_of_thread, name, threading.excepthook)
    try:
        status = main()
        _flush()
    except BrokenPipeError:
        _drop_output()
        status = 141
    except (UserError, OSError) as error:
        complain(f"{name}: error: {error_text(error)}")
        try:
            _flush()
        except OSError:  # a full disk
            _drop_output()
        status = 2
    except KeyboardInterrupt:
        complain(f"{name}: interrupted")
        status = 130
    sys.exit(status)


def _plug_streams():
    """Closed standard streams lead nowhere, or the next file that is opened, a user's, would be taken for one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")


def _unraised(hook: Callable, error):
    """As `sys.unraisablehook`, but for what is no second fault of ours: the first is raised, and told in one line.

    Those are the callbacks of a library's own threads, for which there is nobody any more, and files that could not be
    written and are closed at the end.
    """
    if (error.object or error.err_msg) and not isinstance(error.exc_value, OSError):
        hook(error)


def _of_thread(name: str, hook: Callable, error):
    """As `threading.excepthook`; what the system refuses to a library's thread is one line."""
    if isinstance(error.exc_value, OSError):
        complain(f"{name}: warning: {error_text(error.exc_value)}")
    else:
        hook(error)


def standard_input() -> BinaryIO:
    """Standard input as bytes. Raises: UserError where it is closed."""
    if sys.stdin is None:
        raise UserError("standard input is closed: give it something to read, or name a file")
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Standard output as bytes. Raises: UserError where it is closed."""
    if sys.stdout is None:
        raise UserError("standard output is closed, so what was asked for cannot be written to it: leave it open")
    return sys.stdout.buffer


def _flush():
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop_output():
    """Forgets what cannot be written to standard output, or Python complains while it exits, and with status 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(line: str, write: Callable = print):
    """Writes one line to standard error, by print or `tqdm.write`; where that cannot be, there is nobody to tell."""
    with contextlib.suppress(OSError):
        write(shown(line), file=sys.stderr)


def shown(text: str | os.PathLike) -> str:
    """Text or a path as it can be shown in a line: line breaks and what else cannot be printed as Python writes it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def expanded(text: str) -> str:
    """A path as every command line understands it: a leading ~ is the home folder, as in a shell.

    Raises: AddressError for gs://, s3:// and the like, which would else be taken for a folder of that name.
    """
    if re.match("[a-z][a-z0-9+.-]*://", text):
        raise AddressError(f"{text} is an address, not a path: copy it here, or mount the bucket as a folder")
    return os.path.expanduser(text)


def batch(
    names: Sequence[str],
    work: Callable[[str], None],
    command: str,
    warning: type[Warning],
) -> int:
    """Calls work(name) for the name of each file, whatever goes wrong with the others, with a progress bar.

    A user's mistake, a refusal of the system, and warnings of the category `warning` are one line each on standard
    error; other warnings are not shown. Returns the exit status: 0; 1 if some files failed; 2 if all did.
    `clic_jax.bulk.run` is for many files.
    """
    import tqdm  # here, since it takes as long to import as all else that `info` does

    failed = 0
    for name in tqdm.tqdm(names, unit="file", disable=None if len(names) > 1 else True):  # None: off a terminal
        _, error, told = attempt(work, warning, name)
        failed += error is not None
        for line in [f"warning: {line}" for line in told] + ([f"error: {error}"] if error else []):
            complain(f"{command}: {line}", tqdm.tqdm.write)
    return 0 if not failed else 1 if failed < len(names) else 2


def attempt(work: Callable, warning: type[Warning], name: str) -> tuple:
    """(work(name) or None, its error of a user's or the system's as a line or None, the lines of its warnings)."""
    result = error_line = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", warning)
        try:
            result = work(name)
        except BrokenPipeError:
            raise
        except (UserError, OSError) as error:
            error_line = error_text(error, name)
    return result, error_line, [f"{shown(name)}: {w.message}" for w in caught if issubclass(w.category, warning)]


def error_text(error: Exception, name: str | None = None) -> str:
    """The error's text as one line, which starts with the `name` of the file in question; no system's error numbers."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    if name is not None:
        text = text.replace(name, shown(name))
        name = shown(name)
    text = shown(" ".join(text.split()))
    return text if name is None or text.startswith(f"{name}: ") else f"{name}: {text}"


def _name(main) -> str:
    """The command as it was typed after `python -m`."""
    if main.__module__ != "__main__":
        return main.__module__
    spec = sys.modules["__main__"].__spec__  # None for a file that is run by its path
    return spec.name.removesuffix(".__main__") if spec else os.path.basename(sys.argv[0])  # .__main__: of a package
