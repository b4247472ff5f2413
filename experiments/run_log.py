"""A training run's record: metrics.jsonl and TensorBoard event files in its folder, a progress bar on the terminal."""

import json
import os
import sys
import time
from pathlib import Path

from tqdm import tqdm

PLAIN_EVERY_S = 30  # between progress lines where standard error is not a terminal


class RunLog:
    """Rows of metrics and progress of one run; a context manager.

    Args:
      folder: the run's folder, made if absent. Rows of steps after `first` are dropped: a killed run's steps are done
      again.
      total: steps in all.
      first: steps done already.
    """

    def __init__(self, folder: Path, total: int, first: int = 0):
        folder.mkdir(parents=True, exist_ok=True)
        self._file = _reopen(folder / "metrics.jsonl", first)
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            self._events = None
        else:
            self._events = SummaryWriter(str(folder), purge_step=first + 1 if first else None)
        self._bar = tqdm(total=total, initial=first, unit="step", dynamic_ncols=True, disable=not sys.stderr.isatty())
        self._step, self._total, self._spoken = first, total, time.monotonic()
        self._begin, self._first, self._pixels = time.monotonic(), first, 0
        if self._events is None:
            self.message("tensorboardX is not installed: no TensorBoard event files, metrics.jsonl only")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        self._file.close()
        if self._events is not None:
            self._events.close()

    def row(self, step: int, **metrics: float) -> None:
        """Appends {"step": step, **metrics} and flushes, so that a killed run keeps its rows."""
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in metrics.items():
                self._events.add_scalar(name, value, step)

    def progress(self, step: int, pixels: int, **shown: float) -> None:
        """Moves the bar to `step`, `pixels` more pixels having been seen, with the latest metrics beside it."""
        self._pixels += pixels
        elapsed = time.monotonic() - self._begin
        rate, speed = (step - self._first) / elapsed, self._pixels / elapsed
        numbers = {name: f"{value:.4g}" for name, value in shown.items()} | {"px/s": f"{speed:.3g}"}
        self._bar.set_postfix(numbers, refresh=False)
        self._bar.update(step - self._step)
        self._step = step
        if self._bar.disable and time.monotonic() - self._spoken > PLAIN_EVERY_S:
            self._spoken = time.monotonic()
            left = (self._total - step) / max(rate, 1e-9)
            text = " ".join(f"{name} {value}" for name, value in numbers.items())
            self.message(f"step {step}/{self._total} {rate:.2f} steps/s {text} ETA {tqdm.format_interval(left)}")

    def message(self, text: str) -> None:
        """A line on standard error that does not break the bar."""
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


def _reopen(path: Path, last: int):
    """`path` for appending, without rows of steps after `last` and without a half-written line."""
    kept = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= last:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                continue  # the line a killed run was writing
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)
    return path.open("a")
