"""What every command line here does with errors: a user's mistake is one line, a fault keeps its traceback."""

import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

from clic_jax.errors import UserError


def run(main: Callable[[], int | None], name: str | None = None) -> None:
    """Calls main() and exits with its status.

    Bad input (`clic_jax.errors.UserError`) and what the system refuses (OSError: a full disk, no permission, no such
    file) print `NAME: error: message`, one line, on standard error and exit with 2, as argparse does; Ctrl-C exits with
    130; a reader that goes away (`| head`) with 141, silently. Anything else is ours to mend and keeps its traceback.

    name: of the command; by default what was typed after `python -m`.
    """
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        status = 141
    except (UserError, OSError) as error:
        print(f"{name or _name(main)}: error: {error_text(error)}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # a full disk
            _drop_output()
        status = 2
    except KeyboardInterrupt:
        print(f"{name or _name(main)}: interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def _drop_output():
    """Forgets what cannot be written to standard output, or Python complains while it exits, and with status 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def batch(
    names: Sequence[str],
    work: Callable[[str], None],
    command: str,
    warning: type[Warning],
    *,
    jobs: int = 1,
    set_up: Callable[[], None] | None = None,
) -> int:
    """Calls work(name) for the name of each file, whatever goes wrong with the others, with a progress bar.

    A user's mistake, a refusal of the system, and warnings of the category `warning` are one line each on standard
    error; other warnings are not shown. Returns the exit status: 0; 1 if some files failed; 2 if all did.

    jobs: processes that share the files and the processors. Above 1, `work` and `set_up`, which each process calls
        once, must be functions of a module, or `functools.partial` of one.
    """
    import tqdm  # here, since it takes as long to import as all else that `info` does

    failed, one = 0, functools.partial(_one, work, command, warning)
    found = map(one, names) if min(jobs, len(names)) < 2 else _in_processes(one, names, min(jobs, len(names)), set_up)
    for error, lines in tqdm.tqdm(found, unit="file", total=len(names), disable=None if len(names) > 1 else True):
        failed += error  # disable=None: unless standard error is a terminal
        for line in lines:
            tqdm.tqdm.write(line, file=sys.stderr)
    return 0 if not failed else 1 if failed < len(names) else 2


def _one(work, command: str, warning: type[Warning], name: str) -> tuple[bool, list[str]]:
    """Whether work(name) failed, and the lines to show."""
    error_lines = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", warning)
        try:
            work(name)
        except BrokenPipeError:
            raise
        except (UserError, OSError) as error:
            error_lines.append(f"{command}: error: {error_text(error, name)}")
    found = (w.message for w in caught if issubclass(w.category, warning))
    return bool(error_lines), [*(f"{command}: warning: {name}: {w}" for w in found), *error_lines]


def _in_processes(function: Callable, items: Sequence, jobs: int, set_up) -> Iterator:
    """function(item) of each, in order, from `jobs` processes. Raises: UserError if one of them is killed."""
    from concurrent import futures
    from multiprocessing import get_context

    context = get_context("spawn")  # a fork of a process that has threads, as JAX has, can hang
    counter = context.Value("i", 0)
    pool = futures.ProcessPoolExecutor(jobs, context, _start_process, (counter, jobs, set_up))
    try:
        yield from pool.map(function, items)
    except futures.BrokenExecutor:
        raise UserError("a process ended before its time, perhaps for lack of memory: try fewer --jobs") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start_process(counter, jobs: int, set_up):
    """Gives a process its share of the processors; Ctrl-C ends it at once, without a traceback of its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with counter:
        index, counter.value = counter.value, counter.value + 1
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, mine[index % len(mine) :: jobs])
    if set_up:
        set_up()


def error_text(error: Exception, name: str | None = None) -> str:
    """The error's text as one line, which starts with the `name` of the file in question; no system's error numbers."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    text = " ".join(text.split())
    return text if name is None or text.startswith(f"{name}: ") else f"{name}: {text}"


def _name(main) -> str:
    """The command as it was typed after `python -m`."""
    if main.__module__ != "__main__":
        return main.__module__
    spec = sys.modules["__main__"].__spec__  # None for a file that is run by its path
    return spec.name.removesuffix(".__main__") if spec else os.path.basename(sys.argv[0])  # .__main__: of a package
