"""A training run's record: metrics.jsonl and TensorBoard event files in its folder, progress on standard error."""

import collections
import json
import math
import os
import sys
import time
from pathlib import Path

import jax
from tqdm import tqdm

PLAIN_EVERY_S = 30  # between progress lines where standard error is not a terminal
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"  # tqdm's own
RATE_OVER_S = 30  # stretch of time over which rates are measured, so that compilation soon stops to count


class RunLog:
    """Rows of metrics and progress of one run; use it in a `with`. Of several processes, the first alone writes.

    Args:
      folder: the run's folder, made if absent.
      total_steps: step at which the run ends.
      start_step: steps done already. Rows of later steps, left by a killed run, are dropped: those steps are redone,
        and the file becomes that of an uninterrupted run.
    Raises: OSError where the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, total_steps: int, start_step: int = 0):
        self._step, self._total = start_step, total_steps
        self._pixels = 0
        self._marks = collections.deque()  # (seconds, step, pixels) of the last RATE_OVER_S, about one a second
        self._spoken = time.monotonic()
        self._first_process = jax.process_index() == 0
        terminal = self._first_process and sys.stderr.isatty()
        self._bar = tqdm(
            total=total_steps,
            initial=start_step,
            unit="step",
            miniters=1,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=not terminal,
        )
        if self._first_process:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._file = _reopen(Path(folder) / "metrics.jsonl", start_step)
            self._events = self._event_writer(folder, start_step)

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
        if self._bar.disable and time.monotonic() - self._spoken >= PLAIN_EVERY_S:
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


def _reopen(path: Path, last_step: int):
    """`path` open for appending, without rows of later steps and without the line that a killed run was writing."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= last_step:
                    kept.append(line + "\n")
            except json.JSONDecodeError:
                continue
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)
    return path.open("a", encoding="utf-8")
