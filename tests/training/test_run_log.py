"""The record of a run: rows survive kills and resumes, TensorBoard gets them too, and progress is legible."""

import errno
import fcntl
import io
import json
import os
import struct
import sys
import termios
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.train import run_log
from experiments.train.run_log import RunLog


def lines(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def events(folder):
    """Every TensorBoard event in the folder, oldest file first: records of length, CRC, message, CRC."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]


def test_rows(tmp_path):
    with RunLog(tmp_path / "new" / "run", 10) as log:
        log.row(2, loss=np.float32(1.5), psnr=float("inf"))
        assert lines(tmp_path / "new" / "run") == ['{"step": 2, "loss": 1.5, "psnr": null}']  # on disk at once
        log.row(4, loss=jax.numpy.float32(0.25))
    assert lines(tmp_path / "new" / "run")[1:] == ['{"step": 4, "loss": 0.25}']


def test_resume_drops_what_a_killed_run_left(tmp_path):
    def steps(log, numbers):
        for step in numbers:
            log.row(step, loss=1 / step)
            if step % 4 == 0:
                log.row(step, valid_loss=2 / step)

    with RunLog(tmp_path / "whole", 10) as log:
        steps(log, range(1, 11))
    with RunLog(tmp_path / "killed", 10) as log:
        steps(log, range(1, 7))
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    with RunLog(tmp_path / "killed", 10, 4) as log:
        steps(log, range(5, 11))
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    assert [path.name for path in tmp_path.glob("killed/*.tmp")] == []


def test_a_new_run_starts_an_empty_file(tmp_path):
    for _ in range(2):
        with RunLog(tmp_path, 10) as log:
            log.row(1, loss=3)
    assert len(lines(tmp_path)) == 1


def test_event_files(tmp_path):
    pytest.importorskip("tensorboardX")
    with RunLog(tmp_path, 10) as log:
        log.row(5, loss=0.5, bpp=0.25)
    first = [(value.tag, value.simple_value, event.step) for event in events(tmp_path) for value in event.summary.value]
    assert first == [("loss", 0.5, 5), ("bpp", 0.25, 5)]
    with RunLog(tmp_path, 10, 3):
        pass
    starts = [event.step for event in events(tmp_path) if event.session_log.status == event.session_log.START]
    assert starts == [4]  # TensorBoard hides older events from this step on


def test_without_tensorboard(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with RunLog(tmp_path, 10) as log:
        log.row(1, loss=1)
        log.row(2, loss=1)
    assert capsys.readouterr().err.count("tensorboardX is not installed") == 1
    assert len(lines(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: clock(seconds)."""
    now = [100.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def test_progress_without_a_terminal(tmp_path, capsys, clock):
    """A line each half minute; the rates leave out the first step, which compiles."""
    with RunLog(tmp_path, 1000, 500) as log:
        clock(20)
        log.progress(501, 1_000_000)
        for step in range(502, 542):
            clock(0.5)
            log.progress(step, 1_000_000, loss=1.25, bpp=0.5, psnr=30)
    assert capsys.readouterr().err == ("step 521/1000, 2 steps/s, 2 Mpx/s, loss 1.25, bpp 0.5, psnr 30, ETA 03:59\n")


@pytest.mark.parametrize("limit, eta", [(60, "00:30"), (1e6, "03:59"), (25, "00:00")])
def test_eta_is_what_steps_or_seconds_leave(limit, eta, tmp_path, capsys, clock):
    """The smaller of the two; 00:00 where the last step takes longer than there was time."""
    with RunLog(tmp_path, 1000, 500) as log:
        clock(20)
        log.progress(501, 1, limit - 20)
        for step in range(502, 523):
            clock(0.5)
            log.progress(step, 1, limit - 20 - (step - 501) / 2)
    assert capsys.readouterr().err.endswith(f", ETA {eta}\n")


def test_rates_forget(tmp_path, capsys, clock):
    """A slow start, such as a compilation, is out of the rates after half a minute."""
    with RunLog(tmp_path, 10_000) as log:
        for step in range(1, 100):
            clock(10 if step < 5 else 1)
            log.progress(step, 0)
    assert "1 steps/s" in capsys.readouterr().err.splitlines()[-1]


class Terminal(io.StringIO):
    """Something that says it is a terminal."""

    def isatty(self):
        return True


def test_the_bar_knows_the_time_limit(tmp_path, monkeypatch, clock):
    """It ends where time will end the run, and says how long that takes; a bar of no rate yet is not full."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = []
    with RunLog(tmp_path, 1_000_000) as log:
        for step in range(1, 11):
            log.progress(step, 1, 120 - step)
            shown.append(str(log._bar))
            clock(1)
    assert "/1000000 [" in shown[0] and "<01:59, " in shown[0]
    assert " 10/120 [" in shown[-1] and "<01:50, " in shown[-1] and shown[-1].startswith("  8%|")


def test_progress_on_a_terminal(tmp_path, monkeypatch):
    """A bar, and messages on lines of their own."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    with RunLog(tmp_path, 10) as log:
        log.progress(1, 100, loss=2.5)
        log.message("held out: 30 dB")
        log.progress(10, 100, loss=0.5)
    shown = sys.stderr.getvalue()
    assert "held out: 30 dB\n" in shown
    assert "10/10" in shown and "step/s" in shown and "Mpx/s, loss 0.5" in shown.splitlines()[-1]


def test_other_processes_are_silent(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with RunLog(tmp_path / "run", 10) as log:
        log.row(1, loss=1)
        log.progress(1, 100, loss=1)
        log.message("hello")
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err == ""


def test_metrics_are_strict_json(tmp_path):
    with RunLog(tmp_path, 10) as log:
        log.row(1, loss=float("nan"))
    assert json.loads(lines(tmp_path)[0], parse_constant=lambda name: pytest.fail(name)) == {"step": 1, "loss": None}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is Linux's")
def test_full_disk(tmp_path, monkeypatch):
    """The error names its cause, so that the command line can, and keeps it through the closing of the files."""
    monkeypatch.setattr(run_log, "_reopen", lambda *_: (open("/dev/full", "a"), 0.0))
    with pytest.raises(OSError) as raised:
        with RunLog(tmp_path, 10) as log:
            log.row(1, loss=1)
    assert raised.value.errno == errno.ENOSPC


def test_a_terminal_without_a_size(tmp_path):
    """As some recorders and containers have: the bar is there all the same, with what it says."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    with open(theirs, "w") as terminal, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with RunLog(tmp_path, 10) as log:
            log.progress(10, 100, loss=0.5)
        terminal.flush()
        shown = os.read(ours, 2**16).decode()
    os.close(ours)
    assert "10/10" in shown and "loss 0.5" in shown
