"""When training has to stop: at a time of its own, or early enough for the whole command to end in time."""

import contextlib
import math
import time

MARGIN = 1.25  # on what comes after the last step: a second time is not always as quick as the first
FORWARD = 3.0  # a step takes three times as long a pixel as coding does, at least: it computes gradients as well
# What an evaluation and publishing compile each, in multiples of the training step's compilation. Of `tiny`, whose step
# compiled in 108 s on a busy machine, they took 12 and 38 s in all.
COMPILING = 0.3


class Deadline:
    """Seconds left for training.

    Args:
      max_seconds: of the whole command, from `begin` on (`time.monotonic()`) to its end; None: no limit.
      train_seconds: of the training, from `start` on; None: no limit.

    What comes after the last step is kept time for: as long as it took last time (`timed`), or else as it is `expect`ed
    to take.
    """

    def __init__(self, begin: float, max_seconds: float | None = None, train_seconds: float | None = None):
        self._end = begin + (max_seconds or math.inf)
        self._train_seconds = train_seconds or math.inf
        self._train_end = math.inf
        self._whole = math.inf
        self._took: dict[str, float] = {}
        self._expected: dict[str, tuple[float, float]] = {}

    def start(self, before: float = 0.0) -> None:
        """The first step begins; `before`: seconds that the runs which this one resumes have trained for."""
        self._train_end = time.monotonic() + self._train_seconds
        self._whole = self.left() + before

    @contextlib.contextmanager
    def timed(self, name: str):
        """What is done inside, or something like it, comes after the last step as well."""
        begin = time.monotonic()
        yield
        self._took[name] = time.monotonic() - begin

    def expect(self, name: str, compiled: float, pixels: float) -> None:
        """`name` comes after the last step: coding of `pixels`, after compiling in proportion to `compiled` seconds."""
        self._expected[name] = (COMPILING * compiled, pixels / FORWARD)

    def after(self, pixels_per_second: float) -> float:
        """Seconds that what comes after the last step will take, where training does so many pixels a second."""
        rate = pixels_per_second or math.inf
        expected = {name: compiling + pixels / rate for name, (compiling, pixels) in self._expected.items()}
        return MARGIN * sum((expected | self._took).values())

    def left(self, pixels_per_second: float = 0.0) -> float:
        """Seconds that training may go on for; infinite without a limit, negative where it is late."""
        now = time.monotonic()
        return min(self._end - self.after(pixels_per_second), self._train_end) - now

    def share(self, pixels_per_second: float = 0.0) -> float:
        """The time left as a share of all that there was, resumed runs' too: 1 at the start, 0 in the end."""
        return min(max(self.left(pixels_per_second) / self._whole, 0.0), 1.0) if math.isfinite(self._whole) else 1.0
