"""A function over many items by one process, by several, or by a cluster of Dask: results in the order they are done.

No more items are under way than keep everybody busy, so that memory does not grow with their number.
"""

import contextlib
import functools
import itertools
import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from clic_jax import processes
from clic_jax.errors import UserError

LOCAL = "local"  # instead of an address: a cluster on this machine
AHEAD = 4  # items under way for each worker: the next is there when one is done
PATIENCE = 15  # seconds to wait for a scheduler's answer

_TURN = threading.Lock()


class ClusterError(UserError):
    """A cluster that is not there, cannot do the work, or is lost."""


class Lost(UserError):
    """An item whose workers died, one after the other."""


def results(
    function: Callable, items: Iterable, *, jobs: int, cluster: str | None, set_up: Callable[[], None]
) -> Iterator[tuple]:
    """(item, function(item)) of each; instead of the result a Lost, where that is so.

    Args:
      function: of a module, or `functools.partial` of one. On a cluster it may be called again with an item whose
        worker was lost.
      jobs: processes; on the cluster `local`, its workers.
      cluster: None; the address of a scheduler, as tcp://host:8786; or `local`.
      set_up: what each process calls first, a function of a module.
    Raises: ClusterError; UserError if a process that is no cluster's is killed; what `function` raises.
    """
    if cluster is not None:
        share = jobs if cluster == LOCAL else None
        yield from _on_cluster(
            functools.partial(_prepared, pickle.dumps(set_up), share, function), items, cluster, jobs
        )
    elif jobs > 1:
        yield from _in_processes(function, items, jobs, set_up)
    else:
        for item in items:
            yield item, function(item)


def check(cluster: str | None):
    """Raises: ClusterError where Dask is needed, but missing."""
    if cluster is not None:
        try:
            import distributed  # noqa: F401
        except ImportError:
            text = "--cluster needs the package distributed, which is missing: pip install 'clic_jax[cluster]'"
            raise ClusterError(text) from None


def _in_processes(function, items, jobs: int, set_up) -> Iterator[tuple]:
    from concurrent import futures

    items, pending = iter(items), {}
    with processes.pool(jobs, set_up) as executor:
        while True:
            for item in itertools.islice(items, AHEAD * jobs - len(pending)):
                pending[executor.submit(function, item)] = item
            if not pending:
                return
            for future in futures.wait(pending, return_when=futures.FIRST_COMPLETED).done:
                yield pending.pop(future), future.result()


def _on_cluster(function, items, address: str, jobs: int) -> Iterator[tuple]:
    import asyncio
    from concurrent import futures

    from distributed import as_completed
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    items, pending = iter(items), {}
    with _client(address, jobs) as client:
        done = as_completed(loop=client.loop)

        def fill(workers: int):
            for item in itertools.islice(items, max(AHEAD * max(workers, 2) - len(pending), 0)):
                future = client.submit(function, item, pure=False)
                pending[future.key] = item
                done.add(future)

        workers, counted = _workers(client), time.monotonic()
        fill(workers)
        for future in done:
            item = pending.pop(future.key)
            try:
                yield item, future.result()
            except KilledWorker as error:
                times = error.allowed_failures + 1
                yield item, Lost(f"{times} workers died with it, one after the other: perhaps they need more memory")
            except (asyncio.CancelledError, futures.CancelledError, CommClosedError):
                text = f"the scheduler at {address} was lost: start it, and go on with --resume"
                raise ClusterError(text) from None
            except ImportError as error:
                raise ClusterError(f"a worker cannot start: {error}: install the same clic_jax there") from None
            del future  # the cluster forgets its result
            if time.monotonic() - counted > 1:  # they come and go; to list thousands takes time
                workers, counted = _workers(client), time.monotonic()
            fill(workers)


def _workers(client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


@contextlib.contextmanager
def _client(address: str, jobs: int):
    """A client of the cluster, which, if it is ours, ends with the block."""
    import asyncio

    from distributed import Client, LocalCluster

    for name in ("distributed", "distributed.client"):  # lost workers are made up for, or told in the rows
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.signals_as_exits())
        target = address
        if address == LOCAL:
            options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.CRITICAL}
            target = stack.enter_context(LocalCluster(n_workers=jobs, processes=True, **options))
        else:
            try:  # before there is a client, which would go on trying in threads of its own
                asyncio.run(_ask(address))
            except (OSError, ValueError) as error:
                reason = " ".join(str(error).split())
                text = f"no scheduler answers at {address} ({reason})"
                raise ClusterError(f"{text}: start one with `dask scheduler`, or give --cluster local") from None
        yield stack.enter_context(Client(target, set_as_default=False))


async def _ask(address: str):
    """Raises: OSError, ValueError where no scheduler answers."""
    from distributed import Security
    from distributed.core import connect

    comm = await connect(address, timeout=PATIENCE, **Security().get_connection_args("client"))
    await comm.close()


def _prepared(set_up: bytes, share: int | None, function, item):
    with _TURN:  # a worker may have several threads; one picture takes all processors, and warnings are a process's
        _prepare(set_up, share)
        return function(item)


@functools.cache
def _prepare(set_up: bytes, share: int | None):
    """Once a worker; one of `share` on this machine takes its part of the processors.

    set_up: pickled, since each task has a copy of its own, and two of a `functools.partial` are never the same.
    """
    if share is not None:
        from distributed import get_worker

        processes.share_processors(get_worker().name, share)
    pickle.loads(set_up)()
