"""Many files, each to its target, whatever goes wrong with the others: progress, errors, report, exit status."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence

from clic_jax import cli
from clic_jax.bulk import engines, places, report, sources
from clic_jax.bulk.report import Recorded, Row
from clic_jax.bulk.sources import Task
from clic_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class How:
    """What is the same for all files of a run."""

    command: str  # the name that starts each line on standard error
    warning: type[Warning]  # whose warnings are shown
    set_up: Callable[[], None]  # what each process calls first
    output: str | None = None  # -o
    jobs: int = 1  # processes
    cluster: str | None = None  # as of `engines.results`
    report: str | None = None  # a path
    resume: bool = False  # skip what is done, and go on with the report
    force: bool = False  # replace any file


def run(todo: Sequence[Task], work: Callable[[Task], Row], how: How) -> int:
    """work(task) of all tasks; a line on standard error for each error and warning, and a row in the report.

    Returns the exit status: 0; 1 if some files failed; 2 if all did.
    work: a function of a module, or `functools.partial` of one.
    Raises: ReportError; as `engines.results`; what is no user's mistake, of `work`.
    """
    import tqdm  # here, since it takes as long to import as all else that `info` does

    engines.check(how.cluster)
    if how.report is not None:
        report.check(how.report, how.resume, how.force)
    failed, megabytes = 0, 0.0
    one = functools.partial(_attempt, work, how.warning)
    jobs = how.jobs if how.cluster else min(how.jobs, len(todo))
    bar = tqdm.tqdm(unit="file", total=len(todo), disable=None if len(todo) > 1 else True)  # None: off a terminal
    with report.writing(how.report, how.resume) as (recorded, write), bar:
        items = sources.refusals(todo, how.output, how.force or how.resume)
        items = (_item(task, refusal, recorded, how) for task, refusal in items)
        found = engines.results(one, items, jobs=jobs, cluster=how.cluster, set_up=how.set_up)
        with contextlib.closing(found):
            for (_, _, task), result in found:
                row, lines = result if isinstance(result, tuple) else (_failed(task, result), [])
                row.path, row.target = task.source, task.target
                failed += row.error is not None
                write(row)
                for line in lines + ([f"error: {row.error}"] if row.error else []):
                    cli.complain(f"{how.command}: {line}", tqdm.tqdm.write)
                megabytes += (row.bytes_before or 0) / 1e6
                bar.update()
                bar.set_postfix_str(f"{megabytes / max(bar.format_dict['elapsed'], 1e-9):.2f} MB/s", refresh=False)
    return 0 if not failed else 1 if failed < len(todo) else 2


def _item(task: Task, refusal: str | None, recorded: Recorded, how: How) -> tuple[Task, str | None, Task]:
    """(the task as a worker gets it, why it must not be done, the task as it was named)."""
    known = dataclasses.replace(task, recorded=recorded.get(task.target), replace=how.force)
    if how.cluster:  # whose workers are in other folders
        known = dataclasses.replace(known, source=places.absolute(task.source), target=places.absolute(task.target))
    return known, refusal, task


def _attempt(work, warning: type[Warning], item: tuple[Task, str | None, Task]) -> tuple[Row, list[str]]:
    """The row of a task, and the warnings to show."""
    task, refusal, _ = item

    def done(_):
        if refusal is not None:
            raise UserError(refusal)
        return work(task)

    row, error, told = cli.attempt(done, warning, task.source)
    return row or Row(task.source, task.target, error=error), [f"warning: {line}" for line in told]


def _failed(task: Task, error: UserError) -> Row:
    return Row(task.source, task.target, error=cli.error_text(error, task.source))
