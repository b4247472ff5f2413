"""The report of a run over many files: a line of JSON for each, written when it is done."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator

from clic_jax.errors import UserError
from clic_jax.files import atomic


class ReportError(UserError):
    """A report that cannot be written, or is none."""


@dataclasses.dataclass
class Row:
    """What became of one file; None for what is not known."""

    path: str  # the source as it was named; - for standard input
    target: str
    bytes_before: int | None = None
    bytes_after: int | None = None
    pixels: int | None = None
    quality: float | None = None  # 1 to 100
    psnr: float | None = None  # dB, of what the written file decodes to; None also where it is not asked for
    seconds: float | None = None  # in the process that did it; None if it was skipped
    modified: float | None = None  # when the source was last changed, in seconds since 1970
    skipped: bool = False  # it was done before
    error: str | None = None  # one line; the target has not been written


Recorded = dict[str, tuple[int, float | None]]  # by target: `places.state` of the source when it was made


def check(path: str, resume: bool, force: bool):
    """Raises: ReportError where a report is there that this run would replace, or none can be written; OSError."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise ReportError(f"{path}: no report can be written there: choose a file in a folder of yours")
    if os.path.isfile(path) and not resume and not force:
        raise ReportError(f"{path} exists: go on with --resume, or replace it with --force")


@contextlib.contextmanager
def writing(path: str | None, resume: bool) -> Iterator[tuple[Recorded, Callable[[Row], None]]]:
    """(what an earlier run has made, a function that adds a row to the report).

    The file is made with the first row, so that a run that cannot start leaves none.

    path: None for no report. resume: whether to keep the rows that are there, but those of errors and a last one that
    was cut. A row of a file that was skipped is added only if there is none yet.
    Raises: ReportError for a file that is no report; OSError.
    """
    recorded = _kept(path) if path is not None and resume and os.path.isfile(path) else {}
    with contextlib.ExitStack() as stack:
        file = None

        def write(row: Row):
            nonlocal file
            if path is None or row.skipped and row.target in recorded:
                return
            if file is None:
                file = stack.enter_context(open(path, "a" if recorded else "w", encoding="utf-8"))
            file.write(json.dumps(dataclasses.asdict(row)) + "\n")
            file.flush()  # so that it can be read meanwhile, and is there whatever ends us

        yield recorded, write


def _kept(path: str) -> Recorded:
    """Leaves the last row without an error of each target in a report, and returns what these have recorded."""
    with open(path, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    kept: dict[str, tuple[bytes, tuple[int, float | None]]] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = Row(**json.loads(line))
        except (ValueError, TypeError):
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise ReportError(f"{path}: line {number} is not of a report: choose another --report") from None
        kept.pop(row.target, None)
        if row.error is None:
            kept[row.target] = line.rstrip(b"\n") + b"\n", (row.bytes_before, row.modified)
    atomic.write(path, b"".join(line for line, _ in kept.values()))
    return {target: state for target, (_, state) in kept.items()}
