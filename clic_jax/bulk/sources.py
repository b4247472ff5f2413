"""What is to be coded, and what each file becomes: files, folders, lists of files and addresses as tasks.

A file becomes TARGET/name.suffix, a file of a folder TARGET/its path in the folder, and a line of a list TARGET/the
line, without its root or protocol and without `..`; all of them stay beside their sources where no target is given.
"""

import dataclasses
import os
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clic_jax.bulk import places
from clic_jax.errors import UserError
from clic_jax.files import images


class SourceError(UserError):
    """Inputs that cannot become outputs as asked."""


class Found(NamedTuple):
    """A file to be coded."""

    name: str  # a path, an address, or - for standard input
    inside: str  # its path below a target folder, with slashes


@dataclasses.dataclass(frozen=True)
class Task:
    """One file and what it becomes; all that a worker is told of it."""

    source: str
    target: str  # - for standard output
    parents: bool = False  # whether the folders of the target may have to be made
    named: bool = False  # -o names this file, so that it may be replaced
    is_input: bool = False  # the target is one of the sources
    replace: bool = False  # whatever is there may be replaced
    recorded: tuple[int, float | None] | None = None  # `places.state` of the source when the target was made


def found(inputs: Sequence[str], files_from: str | None, clic: bool) -> tuple[list[Found], bool]:
    """(the files that these inputs stand for, each once; whether the target must be a folder).

    Args:
      inputs: paths and addresses of files and folders; - for standard input.
      files_from: a file with one path or address a line, - for standard input.
      clic: whether .clic files are wanted of folders, and not pictures.
    Raises: SourceError for folders without any, lists that are empty or name missing files, no input at all;
      PlaceError; OSError.
    """
    files, folder = {}, files_from is not None
    for name in inputs:
        if name != "-" and _is_folder(name, clic):
            folder = True
            inside = _of_folder(name, clic)
            if not inside:
                raise SourceError(f"{name}: holds no {'.clic files' if clic else 'pictures'}: name another folder")
            files |= {places.below(name, path): path for path in inside}
        else:
            files.setdefault(name, name.replace(os.sep, "/").rpartition("/")[2])
    if files_from is not None:
        lines = _lines(files_from)
        for line in lines:
            parts = line.partition("://")[2] if places.is_address(line) else line.replace(os.sep, "/")
            files.setdefault(line, "/".join(part for part in parts.split("/") if part not in ("", ".", "..")))
    if not files:
        raise SourceError("nothing to do: name files or folders, or give --files-from LIST")
    return [Found(*item) for item in files.items()], folder


def tasks(files: Sequence[Found], folder: bool, output: str | None, suffix: str) -> list[Task]:
    """A task for each file, whose target has that suffix.

    Args: folder: whether `output` is one even for a single file. output: -o, or None for beside the sources.
    Raises: SourceError where that cannot be, as when two would become the same; PlaceError.
    """
    names = [file.name for file in files]
    several = folder or len(files) > 1
    places.check(names if output is None else [*names, output])
    if several and ("-" in names or output == "-"):
        raise SourceError("standard input and output (-) go with one input only")
    if output is None and (pipe := next(filter(_is_pipe, names), None)):
        raise SourceError(f"{pipe} is no file: give -o FILE for what comes from it")
    if output not in (None, "-") and (several or output.endswith(("/", os.sep)) or places.is_folder(output)):
        if names == ["-"]:
            raise SourceError(f"{output} is a folder: give -o FILE for what comes from standard input")
        if not places.is_address(output) and os.path.exists(output) and not os.path.isdir(output):
            raise SourceError(f"{output} is not a folder, as -o must be for several inputs")
        targets = [places.below(output, os.path.splitext(file.inside)[0] + suffix) for file in files]
    else:
        targets = [output or ("-" if name == "-" else os.path.splitext(name)[0] + suffix) for name in names]
    sources: dict[str, str] = {}
    for name, target in zip(names, targets):
        other = sources.setdefault(places.same(target), name)
        if other != name:
            raise SourceError(f"{other} and {name} would both become {target}: do them one by one, with -o")
    inputs, below = {places.same(name) for name in names}, output not in (None, *targets)
    return [
        Task(name, target, below, target == output, target != "-" and places.same(target) in inputs)
        for name, target in zip(names, targets)
    ]


def refusals(todo: Iterable[Task], output: str | None, may_replace: bool) -> Iterable[tuple[Task, str | None]]:
    """Each task, and why it must not be done: its target is an input, too, or a file that is there already.

    Only a file that -o names is overwritten, unless `may_replace`: any other may be an original, or made from another.
    It is decided here, once, and not where a task is done: that may be twice, if a worker is lost.
    """
    there = None
    for task in todo:
        problem = None
        if task.is_input:
            problem = f"{task.target} is an input, too: choose the output with -o"
        elif not (may_replace or task.named or task.target == "-"):
            if task.parents and places.is_address(task.target):
                if there is None:  # one listing, and not a question for each file
                    there = {places.below(output, path) for path in places.files_below(output)}
                known = task.target in there
            else:
                known = places.exists(task.target)
            if known:
                problem = f"{task.target} exists: to replace it, name it with -o, or give --force"
        yield task, problem


def _is_folder(name: str, clic: bool) -> bool:
    if not places.is_address(name):
        return os.path.isdir(name)
    return not _wanted(name, clic) and places.is_folder(name)  # asks no server about each file


def _of_folder(folder: str, clic: bool) -> list[str]:
    """The paths of its files, within it and with slashes."""
    if places.is_address(folder):
        return [path for path in places.files_below(folder) if _wanted(path, clic)]
    paths = images.list_files(folder, _suffixes(clic))
    return [path.relative_to(folder).as_posix() for path in paths]


def _wanted(name: str, clic: bool) -> bool:
    return os.path.splitext(name)[1].lower() in _suffixes(clic)


def _suffixes(clic: bool) -> set[str]:
    return {".clic"} if clic else images.suffixes() - {".clic"}  # which Pillow knows once clic_jax.pillow is imported


def _lines(files_from: str) -> list[str]:
    """The lines of a list that are not empty. Raises: SourceError; OSError; PlaceError."""
    if files_from == "-":
        if sys.stdin is None:
            raise SourceError("standard input is closed: name the file of --files-from")
        content, shown = sys.stdin.buffer.read(), "standard input"
    else:
        content, shown = places.read(files_from), files_from
    lines = os.fsdecode(content).splitlines()
    names = [(number, places.expanded(line)) for number, line in enumerate(lines, 1) if line.strip()]
    if not names:
        raise SourceError(f"{shown}: the list is empty: give one file a line")
    missing = [(n, name) for n, name in names if not places.is_address(name) and not os.path.isfile(name)]
    if missing:
        number, name = missing[0]
        text = f"{shown}: {len(missing)} of {len(names)} files of the list are not there, {name} in line {number} first"
        raise SourceError(f"{text}: mend the list")
    return [name for _, name in names]


def _is_pipe(name: str) -> bool:
    """Whether it is there, and neither a file nor a folder."""
    return os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name)
