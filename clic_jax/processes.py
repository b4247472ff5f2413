"""Processes that share the work and the processors of this one, and end with it."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

from clic_jax.errors import UserError


@contextlib.contextmanager
def pool(jobs: int, set_up: Callable[[], None] | None = None, remedy: str = "try fewer --jobs"):
    """A `concurrent.futures` executor of `jobs` processes that share the processors and end with this one.

    However the block is left, and however this process ends, be it by a signal, none of them stays behind.

    set_up: what each process calls first, a function of a module. remedy: for a process that the system kills.
    Raises: UserError if one of them is killed.
    """
    from concurrent import futures
    from multiprocessing import active_children, get_context

    context = get_context("spawn")  # a fork of a process that has threads, as JAX has, can hang
    executor = futures.ProcessPoolExecutor(jobs, context, _start_process, (context.Value("i", 0), jobs, set_up))
    others = set(active_children())
    with signals_as_exits():
        try:
            # Ctrl-C is this process's to tell; the others would end with tracebacks
            with _interrupts_later(), environment(_few_threads(jobs)):
                for _ in range(jobs):
                    executor.submit(_nothing)
            yield executor
        except BaseException as error:
            for process in set(active_children()) - others:
                process.kill()
            if isinstance(error, futures.BrokenExecutor):
                text = f"a process ended before its time, perhaps for lack of memory: {remedy}"
                raise UserError(text) from None
            raise
        finally:
            executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def environment(variables: dict[str, str]):
    """These variables, for processes that start inside the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _few_threads(jobs: int) -> dict[str, str]:
    """What keeps NumPy's BLAS in each of `jobs` processes to its share of the processors, unless the user says.

    It counts them as it is loaded, before they are shared out, and its threads wait in loops: two processes of two
    threads each, on two cores, coded small pictures at half the rate of one process.
    """
    share = str(max(processors() // jobs, 1))
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS") if jobs > 1 else ()
    return {name: share for name in names if name not in os.environ}


def processors() -> int:
    """How many processors this thread may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def signals_as_exits():
    """Inside, the signals that end a process unwind it first; nothing is changed outside the main thread."""

    def leave(number, frame):
        sys.exit(128 + number)

    before = {}
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        with contextlib.suppress(ValueError):  # not the main thread
            if number and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP, the training has its own
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _interrupts_later():
    """Inside, Ctrl-C waits; processes that are started here never see it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nothing():
    """A first task, for a process to be started for it."""


def _start_process(counter, jobs: int, set_up):
    """Gives a process its share of the processors, and ends it when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    with counter:
        index, counter.value = counter.value, counter.value + 1
    share_processors(index, jobs)
    if set_up:
        set_up()


def share_processors(index: int, jobs: int):
    """Binds this thread and those that it starts to one of `jobs` shares of the processors, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, mine[index % len(mine) :: jobs])


def _follow_parent():
    """Waits for the end of the parent, of whatever kind, and ends this process: nobody else would."""
    from multiprocessing import connection, parent_process

    connection.wait([parent_process().sentinel])
    os._exit(1)
