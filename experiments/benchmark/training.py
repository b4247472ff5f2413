"""One training step of one preset, for `experiments.benchmark --train`, and a model of it for --codec.

Compiling takes more memory than a step of a small model does and happens once, so each has a process of its own: the
first leaves the program in a compilation cache ($JAX_COMPILATION_CACHE_DIR), where the second finds it.
"""

import dataclasses
import functools
import os
import time
from pathlib import Path

import jax
import numpy as np

from clic_jax import memory, runtime
from clic_jax.checkpoints import installed, published
from clic_jax.config import Config
from clic_jax.exchange import publish
from clic_jax.model.clic import init_params
from clic_jax.training import data, steps
from experiments import complexity, device
from experiments.benchmark.stopwatch import peak_mib, repeat, spread
from experiments.train.__main__ import first_params

UNTRAINED_PIXELS = 2**16  # that an untrained model is measured on: its time is the same, whatever its tables


def compiling(config: Config, crops: np.ndarray, dtype: str) -> dict:
    """Seconds and memory that the step takes to compile, and what it will need and do.

    Args: crops: uint8 [B, S, S, 3]. dtype: compute type of the transforms.
    """
    config, mesh, shapes, crops = _set_up(config, crops, dtype)
    macs = complexity.macs(functools.partial(steps.train_step, config), shapes, crops)
    begin, sweep = time.perf_counter(), steps.replicate(mesh, steps.Sweep.of(config))
    lowered = steps.make_streamed_step(config, mesh).lower(shapes, crops, sweep)
    middle = time.perf_counter()
    step = lowered.compile()
    return {
        "trace_seconds": middle - begin,
        "compile_seconds": time.perf_counter() - middle,
        "peak_rss_mib": peak_mib(),
        "temporary_mib": step.memory_analysis().temp_size_in_bytes / 2**20,  # what XLA will allocate for one step
        "macs": macs,
    }


def running(config: Config, crops: np.ndarray, dtype: str, compiled: dict, most: int, limit: float) -> dict:
    """Seconds and memory of steps on the same crops, on one device.

    Args: compiled: what `compiling` said. most, limit: as for `stopwatch.repeat`.
    Returns a dict; with `skipped` instead of times where a step would not fit into the memory of this machine.
    """
    config, mesh, shapes, crops = _set_up(config, crops, dtype)
    batch, crop = crops.shape[:2]
    result = {"preset": config.name, "device": device.name(), "optimizer": config.train.optimizer}
    result |= {"batch": batch, "crop": crop, "dtype": dtype, "compiling": compiled}
    result |= {"remat": config.train.remat, "accumulate": config.train.accumulate}
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    if jax.default_backend() == "cpu" and compiled["temporary_mib"] > free:
        return result | {"skipped": f"needs {compiled['temporary_mib']:.0f} MiB, {free:.0f} MiB are free"}
    sweep, metrics = steps.replicate(mesh, steps.Sweep.of(config)), {}
    step = steps.compile_step(steps.make_streamed_step(config, mesh), shapes, crops, sweep)
    state = steps.replicate(mesh, steps.new_state(config, init_params(config.model)))
    runtime.release_memory(programs=True)  # as `experiments.train` does

    def once():
        nonlocal state, metrics
        state, metrics = jax.block_until_ready(step(state, crops, sweep))

    once()
    seconds = spread(repeat(once, most, limit))
    memory_mib = {"peak_rss_mib": peak_mib(), "peak_device_mib": device.peak_memory_mib()}
    peak = device.matmul_peak(dtype)
    times = {
        "seconds": seconds,
        "pixels_per_second": batch * crop**2 / seconds["median"],
        "matmul_peak_macs_per_second": peak,
        "mfu": compiled["macs"] / seconds["median"] / peak,
    }
    return result | times | memory_mib | {"loss": float(metrics["loss"])}


def _set_up(config: Config, crops: np.ndarray, dtype: str):
    """(the config for these crops, one device, the state's shapes, the crops on that device)."""
    runtime.use_cache()
    memory.keep_memory(everything=True)
    changes = dict(batch=crops.shape[0], crop=crops.shape[1], dtype=dtype, steps_per_call=1)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))
    mesh = steps.make_mesh(jax.devices()[:1])
    return config, mesh, steps.state_shapes(config, mesh), steps.shard_batch(mesh, crops)


def published_model(cfg: Config, folder: Path) -> str:
    """The installed model of that preset, or else `folder`, where untrained parameters are published."""
    for name in installed.installed():
        if published.load_published(name)[0].model == cfg.model:
            return name
    runtime.use_cache()
    photos = data.load_photos("sample", min_size=cfg.train.crop, progress=False)

    def crops(n, size):
        return np.asarray(data.random_crops(photos, jax.random.key(0), batch=n, size=size))

    params = jax.device_get(first_params(cfg, crops))
    publish.publish(folder, cfg, params, crops, {}, pixels=UNTRAINED_PIXELS)
    return str(folder)
