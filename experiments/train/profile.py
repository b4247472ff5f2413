"""A trace of some steps for JAX's profiler, which TensorBoard and Perfetto show: where the time of a step goes."""

import os

import jax

SKIPPED = 2  # calls before it: the first ones allocate, and load what was compiled


class Profile:
    """Traces `steps` optimiser steps (0: none) of a run into its folder, plugins/profile/, where TensorBoard looks.

    Calls `step(n)` before each call of the compiled step, n being the optimiser steps of one; `close()` at the end.
    """

    def __init__(self, folder: str | os.PathLike, steps: int | None):
        self._folder, self._left, self._calls, self._running = str(folder), steps or 0, 0, False

    def step(self, count: int) -> str:
        """Starts or ends the trace where it is due; what to tell of it, or ""."""
        self._calls += 1
        if self._running and self._left <= 0:
            return self.close()
        if not self._running and self._left > 0 and self._calls > SKIPPED:
            jax.profiler.start_trace(self._folder)
            self._running = True
        self._left -= count if self._running else 0
        return ""

    def close(self) -> str:
        """Ends a trace that is running; what to tell of it, or ""."""
        if not self._running:
            return ""
        jax.profiler.stop_trace()
        self._running, self._left = False, 0
        return f"profile of some steps: tensorboard --logdir {self._folder} (with its plugin xprof)"
