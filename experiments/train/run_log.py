"""A training run's record: metrics.jsonl and TensorBoard event files in its folder, progress on standard error."""

import collections
import contextlib
import json
import math
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from experiments import device
from experiments.benchmark import stopwatch

PLAIN_EVERY_S = 30  # between progress lines where standard error is not a terminal
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"  # tqdm's own
SHOWN = 512  # largest side of a picture in the event files, in pixels
# what a row says of the machine; a resumed run has other figures there, and the same everywhere else
MACHINE = ("seconds", "pixels_per_second", "memory_mib", "mfu")
SETTLED_S = 10  # until a rate is worth planning with
RATE_OVER_S = 30  # stretch of time over which rates are measured, so that compilation soon stops to count


class RunLog:
    """Rows of metrics and progress of one run; use it in a `with`. Of several processes, the first alone writes.

    Args:
      folder: the run's folder, made if absent.
      total_steps: step at which the run ends.
      start_step: steps done already. Rows of later steps, left by a killed run, are dropped: those steps are redone,
        and the file becomes that of an uninterrupted run.
      peak: image pixels a second that the devices could train on at their peak; None where it is not known.
      quiet: rows alone: no progress, no event files.
    Raises: OSError where the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        total_steps: int,
        start_step: int = 0,
        *,
        peak: float | None = None,
        quiet: bool = False,
    ):
        self._step, self._total, self._peak = start_step, total_steps, peak
        self._begin, self._seconds_before = time.monotonic(), 0.0
        self._measured, self._paused = (self._begin, 0), 0.0  # (when, pixels) at the last rate; seconds of pauses since
        self._pixels, self._rate = 0, 0.0
        self._marks = collections.deque()  # (seconds, step, pixels) of the last RATE_OVER_S, about one a second
        self._spoken = time.monotonic()
        self._first_process = jax.process_index() == 0
        self._quiet = quiet
        terminal = self._first_process and sys.stderr.isatty() and not quiet
        # a terminal that does not say its size, as some recorders', would get an empty bar
        sizes = dict(dynamic_ncols=True) if _columns(sys.stderr) else dict(ncols=100, nrows=20)
        self._bar = tqdm(
            total=total_steps,
            initial=start_step,
            unit="step",
            miniters=1,
            file=sys.stderr,
            disable=not terminal,
            **sizes,
        )
        if self._first_process:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._file, self._seconds_before = _reopen(Path(folder) / "metrics.jsonl", start_step)
            self._events = None if quiet else self._event_writer(folder, start_step)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()
        if self._first_process:
            self._file.close()
            if self._events is not None:
                self._events.close()

    def row(self, step: int, **metrics: float) -> None:
        """Appends {"step": step, **metrics} to metrics.jsonl, on disk at once, and to the event files.

        Args:
          step: optimiser steps done.
          metrics: scalars; one that is not finite is null in the file, as JSON has no other word for it.
        """
        if not self._first_process:
            return
        numbers = {name: float(value) for name, value in metrics.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._file.write(json.dumps({"step": step} | finite) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in numbers.items():
                self._events.add_scalar(name, value, step)
            self._events.flush()

    def machine(self, uncounted: int = 0) -> dict[str, float]:
        """What a row says of the machine, by the names in MACHINE; call it where the work so far is done.

        seconds: of training so far, with its evaluations and checkpoints and those of the runs that this one resumes.
        pixels_per_second: image pixels trained on since the last call, `paused` time not counted, if there were any.
        memory_mib: the most so far, of the first device or, where it keeps no account (a CPU), of this process.
        mfu: that rate as a share of the device's published peak, where there is one for the compute type.

        Args: uncounted: pixels trained on that `progress` has not been told of yet.
        """
        now, (then, pixels), trained = time.monotonic(), self._measured, self._pixels + uncounted
        found = {"seconds": round(self._seconds_before + now - self._begin, 3)}
        if trained > pixels and now - then > self._paused:
            rate = (trained - pixels) / (now - then - self._paused)
            found["pixels_per_second"] = round(rate, 1)
            found |= {"mfu": round(rate / self._peak, 5)} if self._peak else {}
            self._measured, self._paused = (now, trained), 0.0
        memory = device.peak_memory_mib()
        return found | {"memory_mib": round(stopwatch.peak_mib() if memory is None else memory, 1)}

    @contextlib.contextmanager
    def paused(self):
        """Time that is not training's: evaluations and checkpoints."""
        begin = time.monotonic()
        yield
        self._paused += time.monotonic() - begin

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture uint8 [H, W, 3], or its middle, into the event files."""
        if self._first_process and self._events is not None:
            h, w = (max(side - SHOWN, 0) // 2 for side in pixels.shape[:2])
            self._events.add_image(name, pixels[h : h + SHOWN, w : w + SHOWN], step, dataformats="HWC")

    def text(self, step: int, name: str, text: str) -> None:
        """A text, line by line as it is, into the event files."""
        if self._first_process and self._events is not None:
            self._events.add_text(name, "".join(f"    {line}\n" for line in text.splitlines()), step)

    @property
    def seconds_before(self) -> float:
        """Of training, by the runs that this one resumes."""
        return self._seconds_before

    @property
    def pixels_per_second(self) -> float:
        """Image pixels a second, lately; 0 for the first seconds, when they tell nothing."""
        return self._rate if time.monotonic() - self._begin > SETTLED_S else 0.0

    def progress(self, step: int, pixels: int, seconds_left: float = math.inf, **shown: float) -> None:
        """Moves the bar to `step`; without a terminal, a line every half a minute.

        Args:
          step: optimiser steps done.
          pixels: image pixels trained on since the last call.
          seconds_left: until the run stops, whatever step it has reached; infinite without such a limit.
          shown: numbers to show beside the rates, such as loss, bpp and psnr.
        """
        self._pixels += pixels
        steps_per_s, pixels_per_s = self._rates(step)
        self._rate = pixels_per_s
        rates = f"{pixels_per_s / 1e6:.3g} Mpx/s"
        numbers = "".join(f", {name} {value:.4g}" for name, value in shown.items())
        seconds = min((self._total - step) / steps_per_s if steps_per_s else math.inf, max(seconds_left, 0))
        eta = tqdm.format_interval(seconds) if math.isfinite(seconds) else "?"
        self._bar.bar_format = BAR.replace("{remaining}", eta)
        if steps_per_s:
            self._bar.total = step + round(seconds * steps_per_s)  # where steps or time will end the run: a full bar
        self._bar.set_postfix_str(rates + numbers, refresh=False)
        self._bar.update(step - self._step)
        self._step = step
        if self._bar.disable and not self._quiet and time.monotonic() - self._spoken >= PLAIN_EVERY_S:
            self._spoken = time.monotonic()
            self.message(f"step {step}/{self._total}, {steps_per_s:.3g} steps/s, {rates}{numbers}, ETA {eta}")

    def message(self, text: str) -> None:
        """A line on standard error that does not break the bar."""
        if self._first_process:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()

    def _rates(self, step: int) -> tuple[float, float]:
        """(steps, pixels) a second, lately; zeros at the first call."""
        now, marks = time.monotonic(), self._marks
        if not marks or now - marks[-1][0] >= 1:
            marks.append((now, step, self._pixels))
        while len(marks) > 2 and now - marks[0][0] > RATE_OVER_S:
            marks.popleft()
        seconds = now - marks[0][0]
        return ((step - marks[0][1]) / seconds, (self._pixels - marks[0][2]) / seconds) if seconds else (0.0, 0.0)

    def _event_writer(self, folder, start_step: int):
        """A TensorBoard writer that hides events after start_step, or None where tensorboardX is absent."""
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            self.message("tensorboardX is not installed: no TensorBoard event files, metrics.jsonl only")
            return None
        return SummaryWriter(str(folder), purge_step=start_step + 1 if start_step else None)


def _columns(stream) -> int:
    """The width of a terminal; 0 where it does not say, or is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


def _reopen(path: Path, last_step: int):
    """(`path` open for appending, seconds of training so far by its rows).

    Without rows of later steps, and without the line that a killed run was writing.
    """
    kept, seconds = [], 0.0
    for line, row in _rows(path):
        if row["step"] <= last_step:
            kept.append(line + "\n")
            seconds = row.get("seconds", seconds)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)
    return path.open("a", encoding="utf-8"), seconds


def last_row(path: Path) -> dict | None:
    """The newest row of a log that says how long training has taken; None where there is none."""
    return next((row for _, row in reversed(list(_rows(path))) if "seconds" in row), None)


def _rows(path: Path):
    """(line, row) of each row in a log, without the line that a killed run was writing."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield line, json.loads(line)
        except json.JSONDecodeError:
            continue
