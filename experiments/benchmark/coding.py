"""Encoding and decoding with one preset, for `experiments.benchmark --codec`: whole, by part, cold, and by size.

Times are of `clic_jax.compress` and `decompress`, from pixels in memory to the bytes of a file and back. Reading and
writing PNG is measured beside them.
"""

import copy
import dataclasses
import io
import os
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import clic_jax
from clic_jax import api, memory
from clic_jax.coding import codec, range_coder
from clic_jax.coding.range_coder import Decoder, Encoder
from clic_jax.config import Config
from clic_jax.files import outputs, pictures
from experiments import complexity, device
from experiments.benchmark.stopwatch import Stopwatch, peak_mib, repeat, spread, timed
from experiments.paths import ROOT

PROGRAMS = {  # which of `coding.programs` each part consists of
    "g_a": ("analyse",),
    "hyper": ("hyper", "features", "feature"),
    "entropy_parameters": ("quantise", "table_index", "dequantise", "joined"),
    "g_s": ("synthesise",),
    "pqf": ("maps", "fitted", "corrected"),
}
PARTS = ("g_a", "hyper", "entropy_parameters", "coder", "g_s", "pqf", "other")
MACS = {  # which of `complexity.parts` each part computes; hyper is h_a and h_s when encoding
    "g_a": ("g_a",),
    "hyper": ("h_s", "h_mean_s", "h_scale_s"),
    "entropy_parameters": ("channel_context", "spatial_context", "parameters"),
    "pqf": ("pqf",),
    "g_s": ("g_s",),
}
LINEAR_FROM = 512  # side in pixels of the smallest image to which an exponent is fitted, if there are two larger ones


def measure(config: Config, model: str, x: np.ndarray, sizes: list[int], most: int, limit: float) -> tuple[dict, bytes]:
    """All but the cold starts, in a process of its own, and the file of x.

    Args: model: published name or folder. x: uint8 [H, W, 3]. sizes: sides of square images to run as well.
    """
    memory.keep_memory()
    peak = device.matmul_peak()
    result = {"preset": config.name, "device": device.name(), "size": list(x.shape[:2])}
    result["matmul_peak_macs_per_second"] = peak
    result["open_seconds"] = timed(lambda: api.open_model(model))
    data, whole = _both(model, x, most, limit)
    result |= whole | {"parts": _parts(config.model, model, x, data, most, peak)}
    result |= {"bytes": len(data), "coder_alone": _coder_alone(model, x, most, limit), "png": _png(x, most, limit)}
    for direction in ("encode", "decode"):
        macs = sum(part.get("macs", 0) for part in result["parts"][direction].values())
        at_peak = macs / peak
        result[direction] |= {"macs": macs, "mfu": at_peak / result[direction]["seconds"]["median"]}
    result["peak_rss_mib"], result["peak_device_mib"] = peak_mib(), device.peak_memory_mib()
    result["by_size"] = by_size(model, x, sizes, most, limit)
    return result, data


def _both(model: str, x: np.ndarray, most: int, limit: float) -> tuple[bytes, dict]:
    """The file of x; first and warm times of encoding and decoding it."""
    data, pixels, result = b"", x.shape[0] * x.shape[1], {}

    def encode():
        nonlocal data
        data = clic_jax.compress(x, model=model)

    for name, function in (("encode", encode), ("decode", lambda: clic_jax.decompress(data, model=model))):
        first = device.first_call(function)
        with device.compilations() as found:
            seconds = spread(repeat(function, most, limit))
        result[name] = {
            "first": first,
            "seconds": seconds,
            "pixels_per_second": pixels / seconds["median"],
            "programs_compiled_when_warm": found.count,
        }
    return data, result


def watched(opened: codec.Codec) -> tuple[codec.Codec, Stopwatch]:
    """A copy of a codec whose parts are timed: each waits for its results, so that none overlap."""
    watch, programs = Stopwatch(), opened.programs

    def timing(part, function):
        return watch.wrap(part, function, jax.block_until_ready)

    replaced = {name: timing(part, getattr(programs, name)) for part, names in PROGRAMS.items() for name in names}
    steps = tuple(timing("entropy_parameters", step) for step in programs.steps)
    copied = copy.copy(opened)
    copied.programs = dataclasses.replace(programs, steps=steps, **replaced)

    class Encoder(range_coder.Encoder):
        encode, finish = timing("coder", range_coder.Encoder.encode), timing("coder", range_coder.Encoder.finish)

    class Decoder(range_coder.Decoder):
        decode = timing("coder", range_coder.Decoder.decode)

    copied.coder = types.SimpleNamespace(Encoder=Encoder, Decoder=Decoder, bits=timing("coder", range_coder.bits))
    return copied, watch


def _parts(config, model: str, x: np.ndarray, data: bytes, most: int, peak: float) -> dict:
    """{"encode": {part: seconds, share, calls, and macs and mfu of the networks}, "decode": the same}."""
    height, width = (-(-n // 64) * 64 for n in x.shape[:2])
    cost = {k: 1000 * height * width * v for k, v in complexity.parts(config, height, width).items()}
    result = {}
    for direction, function in (
        ("encode", lambda codec: clic_jax.compress(x, model=codec)),
        ("decode", lambda codec: clic_jax.decompress(data, model=codec)),
    ):
        runs = []
        for _ in range(max(2, most)):
            copied, watch = watched(api.open_model(model))
            whole = timed(lambda: function(copied))
            watch.seconds["other"] = whole - sum(watch.seconds.values())
            runs.append((whole, watch))
        whole, watch = sorted(runs, key=lambda run: run[0])[len(runs) // 2]  # one run, so that its parts add up
        result[direction] = {"whole": {"seconds": whole}}
        for part in PARTS:
            entry = {"seconds": watch.seconds[part], "share": watch.seconds[part] / whole, "calls": watch.calls[part]}
            names = (*MACS.get(part, ()), *(("h_a",) if (part, direction) == ("hyper", "encode") else ()))
            passes = watch.calls[part] if part == "g_s" else min(watch.calls[part], 1)  # with and without the filter
            if macs := passes * sum(cost.get(name, 0) for name in names):
                entry |= {"macs": macs, "mfu": macs / entry["seconds"] / peak}
            result[direction][part] = entry
    return result


def _coder_alone(model: str, x: np.ndarray, most: int, limit: float) -> dict:
    """Symbols a second of the entropy coder on the symbols of x, without the networks."""
    calls, recording, stream = [], copy.copy(api.open_model(model)), b""

    class Recorder(Encoder):
        def encode(self, symbols, index, tables):
            calls.append((np.copy(symbols), np.copy(index), tables))
            super().encode(symbols, index, tables)

    recording.coder = types.SimpleNamespace(Encoder=Recorder, bits=range_coder.bits)
    clic_jax.compress(x, model=recording)

    def encode():
        nonlocal stream
        encoder = Encoder()
        for call in calls:
            encoder.encode(*call)
        stream = encoder.finish()

    def decode():
        decoder = Decoder(stream)
        for _, index, tables in calls:
            decoder.decode(index, tables)

    symbols = sum(call[0].size for call in calls)
    result = {"symbols": symbols}
    for name, function in (("encode", encode), ("decode", decode)):
        function()
        seconds = spread(repeat(function, most, limit))
        result[name] = {"seconds": seconds, "msymbols_per_second": symbols / seconds["median"] / 1e6}
    return result | {"bytes": len(stream)}


def _png(x: np.ndarray, most: int, limit: float) -> dict:
    """Seconds of reading and writing x as PNG, as the command line does."""
    image = Image.fromarray(x)
    data = outputs.encoded(image, "PNG")
    return {
        "read": spread(repeat(lambda: pictures.read(io.BytesIO(data)), most, limit)),
        "write": spread(repeat(lambda: outputs.encoded(image, "PNG"), most, limit)),
    }


def by_size(model: str, x: np.ndarray, sizes: list[int], most: int, limit: float) -> dict:
    """Warm times and memory of square images of these sides, x continued by its mirror images, smallest first.

    The peak is that of the process so far; exponents are those of time and of memory beyond the start against pixels.
    """
    rows = []
    start = peak_mib()
    for side in sorted(sizes):
        _, row = _both(model, mirrored(x, side, side), most, limit)
        rows.append({"side": side} | row | {"peak_rss_mib": peak_mib()})
    large = [row for row in rows if row["side"] >= LINEAR_FROM]
    fitted = large if len(large) > 1 else rows
    result = {"start_rss_mib": start, "sizes": rows, "fitted_from": min((r["side"] for r in fitted), default=None)}
    pixels = [row["side"] ** 2 for row in fitted]
    for name in ("encode", "decode"):
        result[f"{name}_exponent"] = exponent(pixels, [row[name]["seconds"]["median"] for row in fitted])
    return result | {"memory_exponent": exponent(pixels, [row["peak_rss_mib"] - start for row in fitted])}


def exponent(pixels: list[int], values: list[float]) -> float | None:
    """p of the least-squares fit of values = c * pixels ** p; None for less than two points, or none above 0."""
    return float(np.polyfit(np.log(pixels), np.log(values), 1)[0]) if len(pixels) > 1 and min(values) > 0 else None


def mirrored(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """x uint8 [H, W, 3], cut at the bottom and right or continued there by mirror images."""
    index = (np.pad(np.arange(n), (0, max(m - n, 0)), "symmetric")[:m] for n, m in zip(x.shape, (height, width)))
    return x[np.ix_(*index)]


def cold(model: str, data: bytes, repetitions: int) -> dict:
    """Seconds and memory of `python -m clic_jax decompress` in a new process, compiling everything and then nothing."""
    result = {"empty_cache": [], "filled_cache": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "x.clic").write_bytes(data)
        command = [sys.executable, "-m", "clic_jax", "decompress", "x.clic", "-o", "x.png", "--model", model]
        for i in range(repetitions):
            result["empty_cache"].append(_process(command, folder, f"cache{i}"))
            result["filled_cache"].append(_process(command, folder, f"cache{i}"))
    return {key: _summary(rows) for key, rows in result.items()}


def _process(command: list[str], folder: Path, cache: str) -> dict:
    """Runs a command in `folder` with a compilation cache there: its seconds, CPU seconds and memory."""
    root = str(ROOT)
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / cache), "PYTHONPATH": root}
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_rss_mib": usage.ru_maxrss / 2**10}


def _summary(rows: list[dict]) -> dict:
    return {
        "seconds": spread([row["seconds"] for row in rows]),
        "cpu_seconds": spread([row["cpu_seconds"] for row in rows]),
        "peak_rss_mib": max(row["peak_rss_mib"] for row in rows),
    }
