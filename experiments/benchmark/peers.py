"""Our models and others' side by side, for `experiments.benchmark --peers` and --authors: a process each, in turns.

Every model is asked for one operation, then the next model for the same, and so on round and round, so that whatever
slows the machine down meets all alike. A process is kept to as many cores as it may use threads.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from clic_jax.errors import UserError
from experiments.benchmark.stopwatch import spread
from experiments.paths import ROOT

PYTHON = ROOT / ".venv-peers" / "bin" / "python"
MODELS = ("Elic2022Official", "mbt2018-mean")
CODECS = ("avif", "webp")
CHECKOUT = "compressai/models/clic_guided.py"  # what a checkout of the authors' code has


class PeersError(UserError):
    """The peers' environment is not there, or a process in it has failed."""


class Case(NamedTuple):
    """One thing to time; the batch is of crops, None for the whole image."""

    threads: int
    op: str
    batch: int | None = None


def cases(threads: int, batches: list[int], coding: bool) -> list[Case]:
    """What is timed with that many threads; `coding` the image as well."""
    crops = [Case(threads, op, batch) for batch in batches for op in ("forward", "forward_backward")]
    return [*crops, *(Case(threads, op) for op in ("compress", "decompress") if coding)]


class Process(NamedTuple):
    """A model or codec that a process serves."""

    label: str
    module: str
    name: str  # the module's argument
    root: Path = ROOT  # the checkout of this repository that it runs


class Worker:
    """A process that serves `stopwatch.serve`."""

    def __init__(self, process: Process, arrays: Path, threads: int, cache: Path):
        self.name = process.name
        python = PYTHON if process.module == "peers_worker" else sys.executable
        module = f"experiments.benchmark.{process.module}"
        command = [str(python), "-m", module, process.name, str(arrays), str(threads)]
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}  # as the peers' torch has no other
        env["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        with _cores(threads):  # which the process inherits
            pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._process = subprocess.Popen(command, cwd=process.root, env=env, **pipes)
        self.ops = self._answer()["ops"]

    def ask(self, **request) -> dict:
        """The answer to one request. Raises: PeersError where the process has ended."""
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict:
        if not (line := self._process.stdout.readline()):
            raise PeersError(f"the process of {self.name} has ended with status {self._process.wait()}: see above")
        return json.loads(line)

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def _cores(threads: int):
    """Keeps this process to its first `threads` cores, where the system can (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def check(checkout: Path | None):
    """Raises: PeersError if `make peers` has not been run, or for a folder without the authors' code."""
    if checkout and not (checkout / CHECKOUT).exists():
        raise PeersError(f"--authors wants a checkout of 1chizhang/CLIC, and {checkout} has no {CHECKOUT}")
    if not PYTHON.exists():
        raise PeersError(f"no {PYTHON}: run `make peers` first (1.4 GB), or leave --peers and --authors out")


def others(everybody: bool, checkout: Path | None) -> list[Process]:
    """Whom ours are compared with: CompressAI's models and Pillow's codecs, and the authors' code in a checkout."""
    found = [Process("the authors' CLIC", "peers_worker", str(checkout))] if checkout else []
    if everybody:
        found += [Process(f"CompressAI {name}", "peers_worker", name) for name in MODELS]
        found += [Process(f"Pillow {name}", "worker", name) for name in CODECS]
    return found


def of_models(models: dict[str, str]) -> list[Process]:
    """Our models: name to be shown -> published name or folder."""
    return [Process(f"clic_jax {name}", "worker", path) for name, path in models.items()]


def measure(
    ours: list[Process], theirs: list[Process], arrays: Path, todo: list[Case], most: int, limit: float
) -> list[dict]:
    """A row for each model and case: times, in turns, and the memory of the process during that operation.

    Of ours also "first_seconds", of the first call in a process that finds nothing compiled.

    Args:
      ours: of `of_models`, and of `before.processes`.
      theirs: of `others`.
      arrays: .npz of `image` uint8 [1, H, W, 3], sides multiples of 64, and `crops` uint8 [B, S, S, 3].
      most, limit: repetitions and seconds after which a case of a model is not repeated again; at least two.
    """
    rows = []
    everyone = [one for pair in itertools.zip_longest(ours, theirs) for one in pair if one]  # by turns
    for threads in sorted({case.threads for case in todo}):
        mine = [case for case in todo if case.threads == threads]
        with contextlib.ExitStack() as stack:
            # one each: what another process has compiled is no first call
            caches = {p.label: Path(stack.enter_context(tempfile.TemporaryDirectory())) for p in everyone}
            first = {p.label: _compile(Worker(p, arrays, threads, caches[p.label]), mine) for p in ours}
            workers = {}
            for process in everyone:
                workers[process.label] = Worker(process, arrays, threads, caches[process.label])
                stack.callback(workers[process.label].close)
            for case in tqdm(mine, f"{threads} threads", unit="case", disable=None):
                rows += [
                    row | first.get(row["model"], {}).get(case, {}) for row in _in_turns(workers, case, most, limit)
                ]
    return rows


def _compile(worker: Worker, todo: list[Case]) -> dict[Case, dict]:
    """Fills the compilation cache in a process that ends, so that the memory of compiling is not that of coding.

    Returns: what each case's first call took.
    """
    answers = {case: worker.ask(**_request(case)) for case in todo if case.op in worker.ops}
    worker.close()
    return {case: {f"first_{key}": value for key, value in answer.items()} for case, answer in answers.items()}


def _request(case: Case) -> dict:
    return {"op": case.op} | ({} if case.batch is None else {"batch": case.batch})


def _in_turns(workers: dict[str, Worker], case: Case, most: int, limit: float) -> list[dict]:
    """One row a worker that knows the operation; each one's first call, which may compile, is not counted."""
    request = _request(case)
    active = {label: worker for label, worker in workers.items() if case.op in worker.ops}
    answers = {label: [] for label in active}
    for worker in active.values():
        worker.ask(**request)
    for _ in range(most):
        for label, worker in active.items():
            if len(answers[label]) < 2 or sum(a["seconds"] for a in answers[label]) < limit:
                answers[label].append(worker.ask(**request))
    return [
        {"model": label}
        | case._asdict()
        | {
            "seconds": spread([a["seconds"] for a in found]),
            "peak_rss_mib": max(a["peak_rss_mib"] for a in found),
        }
        for label, found in answers.items()
    ]
