"""Times and memory of one process. The standard library only, since the peers' environment runs this as well."""

import contextlib
import json
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable


def spread(seconds: list[float]) -> dict:
    """What a benchmark reports of repeated times."""
    middle = statistics.median(seconds)
    return {"median": middle, "min": min(seconds), "max": max(seconds), "repetitions": len(seconds)}


def timed(function: Callable) -> float:
    """Seconds that function() takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def repeat(function: Callable, most: int, limit: float) -> list[float]:
    """Seconds of function(), called until `most` times, or twice or more often and `limit` seconds, have passed."""
    seconds = []
    while len(seconds) < most and (len(seconds) < 2 or sum(seconds) < limit):
        seconds.append(timed(function))
    return seconds


def peak_mib() -> float:
    """The most memory that this process has had resident so far, since `reset_peak` where the system can tell."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def reset_peak():
    """Starts `peak_mib` anew at what is resident now (Linux; elsewhere the peak is that of the whole process)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


class Stopwatch:
    """Seconds and calls by part; the time of a part inside another counts for the inner one only."""

    def __init__(self):
        self.seconds, self.calls, self._inside = Counter(), Counter(), []

    def wrap(self, part: str, function: Callable, wait: Callable = lambda result: result) -> Callable:
        """`function`, timed as `part` until `wait` of its result returns."""

        def wrapped(*args, **kwargs):
            begin = time.perf_counter()
            self._inside.append(0.0)
            try:
                return wait(function(*args, **kwargs))
            finally:
                whole = time.perf_counter() - begin
                self.seconds[part] += whole - self._inside.pop()
                self.calls[part] += 1
                if self._inside:
                    self._inside[-1] += whole

        return wrapped


def serve(operations: dict[str, Callable]):
    """Answers a request, `{"op": NAME, ...}`, one a line of standard input, until there are no more.

    operations: NAME -> function of the request's other fields that does the work once.
    The answer is `{"seconds": ..., "peak_rss_mib": ...}`, the memory being that of this request.
    """
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints is no answer
        print(json.dumps({"ops": list(operations)}), file=answers, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            operation = operations[request.pop("op")]
            reset_peak()
            seconds = timed(lambda: operation(**request))
            print(json.dumps({"seconds": seconds, "peak_rss_mib": peak_mib()}), file=answers, flush=True)
