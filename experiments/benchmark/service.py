"""Pictures a second of one process by the number of its threads, for `experiments.benchmark --service`.

A service answers several requests at a time. One picture alone uses several cores in its transforms, and one in its
entropy coder, so that two at a time gain what one leaves idle.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import clic_jax
from clic_jax import api, memory, runtime, runtimes
from experiments.benchmark.stopwatch import peak_mib, spread

EACH = 4  # pictures that each thread codes in a round


def measure(model: str, x: np.ndarray, chosen: str, threads: list[int], most: int, limit: float) -> dict:
    """Pictures a second with 1, 2, ... threads, in turn, for at most `most` rounds, or two and `limit` seconds.

    Args: model: published name or folder. x: uint8 [H, W, 3]. chosen: a runtime.
    Returns: {"runtime", "size", "peak_rss_mib", "rows": [{"threads", "encode", "decode": spread of pictures a second}]}
    """
    runtime.use_cache()
    memory.keep_memory()
    opened = api.open_model(model, runtime=chosen)
    data = clic_jax.compress(x, model=opened)
    clic_jax.decompress(data, model=opened)
    work = {
        "encode": lambda: clic_jax.compress(x, model=opened),
        "decode": lambda: clic_jax.decompress(data, model=opened),
    }
    rates = {(name, count): [] for count in threads for name in work}
    begin, rounds = time.perf_counter(), 0
    while rounds < most and (rounds < 2 or time.perf_counter() - begin < limit):
        rounds += 1
        for (name, count), found in rates.items():
            found.append(_rate(work[name], count))
    rows = [{"threads": count} | {name: spread(rates[name, count]) for name in work} for count in threads]
    return {"runtime": chosen, "size": list(x.shape[:2]), "peak_rss_mib": peak_mib(), "rows": rows}


def available(model: str) -> list[str]:
    """The runtimes that are installed and that a model is exported for."""
    return [name for name in runtimes.RUNTIMES if _possible(api.model_folder(model), name)]


def _possible(folder, name: str) -> bool:
    try:
        return runtimes.choose(folder, name) == name
    except runtimes.NoRuntime:
        return False


def _rate(function: Callable, count: int) -> float:
    """Calls a second of function() by `count` threads."""
    with ThreadPoolExecutor(count) as pool:
        begin = time.perf_counter()
        for done in [pool.submit(function) for _ in range(EACH * count)]:
            done.result()
        return EACH * count / (time.perf_counter() - begin)
