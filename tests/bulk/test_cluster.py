"""Many files on a cluster of Dask, whose workers come and go: each is coded exactly once, and memory stays flat."""

# ruff: noqa: F811

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from clic_jax import api
from tests.conftest import ROOT, photograph
from tests.test_main import folder, run  # noqa: F401

distributed = pytest.importorskip("distributed", reason="needs the extra [cluster]")
FLAT = 100 * 2**20  # bytes by which a process may grow in three quarters of a run


@pytest.fixture
def cluster():
    """Two workers, which are started again if they are killed."""
    options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, **options) as cluster:
        yield cluster


def make(count, folder="in"):
    """That many pictures of 64x64 pixels, a hundred in a folder, of which a hundred are different."""
    kinds = [photograph(64, 64, seed) for seed in range(min(count, 100))]
    for i in range(count):
        path = Path(folder, str(i // 100), f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(kinds[i % 100]).save(path, compress_level=1)


def memory(pid):
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def with_a_lost_worker(cluster, model, count):
    """Codes `in` to `out` on the cluster, with a worker killed when half of it is done.

    Returns (the rows of the report, bytes of the command and of the worker that is left at a quarter and at the end).
    """
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        first, second = client.run(os.getpid).values()
    command = [sys.executable, "-m", "clic_jax", "compress", "in", "-o", "out", "--model", model, "--report", "r.jsonl"]
    command += ["--cluster", cluster.scheduler_address]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, start_new_session=True
    )
    early = late = None
    killed = False
    while process.poll() is None:
        done = Path("r.jsonl").read_bytes().count(b"\n") if Path("r.jsonl").exists() else 0
        if early is None and done >= count // 4:
            early = memory(process.pid), memory(second)
        if not killed and done >= count // 2:
            os.kill(first, signal.SIGKILL)
            killed = True
        if done > count // 2:
            try:
                late = memory(process.pid), memory(second)
            except (FileNotFoundError, IndexError):  # it has just ended
                pass
        time.sleep(0.02 if count < 1000 else 0.5)
    assert process.returncode == 0, process.stderr.read()
    assert killed and process.stderr.read() == b""
    return [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()], early, late


def check(rows, count, model):
    """Each picture is in the report once, and its file is what one process would make of it."""
    assert len(rows) == count == len({row["path"] for row in rows}) == len({row["target"] for row in rows})
    assert not [row for row in rows if row["error"] or row["skipped"]]
    assert {row["target"] for row in rows} == {str(path) for path in Path("out").rglob("*") if path.is_file()}
    expected = [api.compress(photograph(64, 64, seed), model=model) for seed in range(min(count, 100))]
    for row in rows:
        data = Path(row["target"]).read_bytes()
        assert data == expected[int(Path(row["path"]).stem) % 100] and len(data) == row["bytes_after"]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_a_worker_is_lost(folder, cluster, published_micro):
    make(60)
    rows, *_ = with_a_lost_worker(cluster, published_micro, 60)
    check(rows, 60, published_micro)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_ten_thousand_pictures_and_a_lost_worker(folder, cluster, published_micro):
    make(10_000)
    rows, early, late = with_a_lost_worker(cluster, published_micro, 10_000)
    check(rows, 10_000, published_micro)
    growth = [b - a for a, b in zip(early, late)]
    print(f"memory of the command and of a worker in MiB: {[n >> 20 for n in early]}, then {[n >> 20 for n in late]}")
    assert max(growth) < FLAT


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextlib.contextmanager
def dask_processes(port):
    """A scheduler and a worker as an administrator starts them; yields the scheduler. Both are gone afterwards."""
    dask, quiet = [sys.executable, "-m", "dask"], {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet |= {"env": os.environ | {"PYTHONPATH": str(ROOT)}, "start_new_session": True}
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-jupyter"]
    worker = [*dask, "worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-dashboard", "--death-timeout", "60"]
    processes = [subprocess.Popen([*command], **quiet) for command in (scheduler, worker)]
    try:
        while True:  # the command itself says at once that nobody answers
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert processes[0].poll() is None
            time.sleep(0.1)
        yield processes[0]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_scheduler_is_lost(folder, published_micro):
    """One line and status 2, soon; with another scheduler `--resume` does what is left, and nothing twice."""
    make(60)
    port, report = free_port(), Path("r.jsonl")
    command = [sys.executable, "-m", "clic_jax", "compress", "in", "-o", "out", "--model", published_micro]
    command += ["--report", "r.jsonl", "--cluster", f"tcp://127.0.0.1:{port}"]
    how = {"env": os.environ | {"PYTHONPATH": str(ROOT)}, "stderr": subprocess.PIPE, "text": True}
    with dask_processes(port) as scheduler:
        with subprocess.Popen(command, **how) as process:
            while process.poll() is None and (not report.exists() or report.read_bytes().count(b"\n") < 20):
                time.sleep(0.02)
            os.killpg(scheduler.pid, signal.SIGKILL)
            _, told = process.communicate(timeout=120)
    (line,) = told.splitlines()
    assert process.returncode == 2, told
    assert f"the scheduler at tcp://127.0.0.1:{port} was lost" in line and "--resume" in line
    done = {row["target"]: row for row in map(json.loads, report.read_text().splitlines())}
    there = {str(path) for path in Path("out").rglob("*.clic")}  # also what no row tells yet
    assert 20 <= len(done) < 60 and set(done) <= there
    with dask_processes(port):
        again = subprocess.run([*command, "--resume"], **how, timeout=300)
    assert again.returncode == 0 and again.stderr == ""
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert all(row in rows for row in done.values())  # as they were
    assert {row["target"] for row in rows if row["skipped"]} == there - set(done)
    check([row | {"skipped": False} for row in rows], 60, published_micro)


def test_local(run, published_micro):
    """Workers of the command's own; what is wrong with one picture is a line and a row, tried once."""
    make(6)
    Path("in/0/bad.png").write_bytes(b"no picture")
    options = ["--cluster", "local", "--jobs", 2, "--model", published_micro, "--report", "r.jsonl"]
    status, _, (line,) = run("compress", "in", "-o", "out", *options)
    assert status == 1 and "bad.png: not an image" in line
    rows = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert sorted(row["path"] for row in rows if not row["error"]) == [f"in/0/{i}.png" for i in range(6)]
    assert [row["path"] for row in rows if row["error"]] == ["in/0/bad.png"]
    for i in range(6):
        expected = api.compress(photograph(64, 64, i), model=published_micro)
        assert Path(f"out/0/{i}.clic").read_bytes() == expected
    status = run("decompress", "out", "-o", "shown", "--cluster", "local", "--model", published_micro)
    assert status == (0, b"", []) and len(list(Path("shown").rglob("*.png"))) == 6


def _deadly(item):
    os._exit(9)


def test_what_kills_every_worker_is_given_up(cluster):
    """After as many workers as Dask allows; it is an error of that item, and the run ends."""
    from clic_jax.bulk import engines

    found = list(engines.results(_deadly, ["x"], jobs=1, cluster=cluster.scheduler_address, set_up=os.getpid))
    assert [item for item, _ in found] == ["x"] and isinstance(found[0][1], engines.Lost)
    assert "workers died with it" in str(found[0][1])


def _half(item):
    return item / 2


def test_a_window(cluster):
    """Items are taken from their source as they are needed: 4 a worker, never all."""
    from clic_jax.bulk import engines

    taken = []
    items = (taken.append(i) or i for i in range(1000))
    found = engines.results(_half, items, jobs=1, cluster=cluster.scheduler_address, set_up=os.getpid)
    for done, (item, half) in enumerate(found, 1):
        assert half == item / 2 and len(taken) <= done + 2 * engines.AHEAD
        if done == 50:
            break
    found.close()
    assert len(taken) < 70


def _note(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


def test_a_worker_is_set_up_once(cluster, tmp_path):
    """Also by a `functools.partial`, of which each task brings another copy."""
    from clic_jax.bulk import engines

    set_up = functools.partial(_note, str(tmp_path / "pids"))
    found = engines.results(_half, range(40), jobs=1, cluster=cluster.scheduler_address, set_up=set_up)
    assert len(list(found)) == 40
    pids = (tmp_path / "pids").read_text().split()
    assert 1 <= len(pids) == len(set(pids)) <= 2
