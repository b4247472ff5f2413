"""Where batches come from, photographs on the devices or crops read while training, with the step compiled for them."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from clic_jax.config import Config
from clic_jax.training import data, steps, streaming
from experiments import complexity

MEMORY_LIMIT_MIB = 1900  # photographs that decode to more are read while training


class Feed(NamedTuple):
    """What a training loop runs: `state, metrics = step(state, *next(batches))`."""

    sweep: steps.Sweep  # the numbers of the run, on the host; `with_sweep` gives it others
    data: Callable[[int, int], Iterator]  # (step, seed) -> what the step is given from there on, without end
    crops: Callable[[int, int], np.ndarray]  # (n, size) -> uint8 [n, size, size, 3], to look at before or after
    batches: Callable[[int], Iterator]  # step -> (data, sweep) from there on, without end
    step: Callable  # (state, data, sweep) -> (state, mean metrics), compiled; `steps_per_call` optimiser steps
    steps_per_call: int
    compile_seconds: float  # that the step took
    macs: int  # multiply-accumulates of one optimiser step, over all devices, recomputation included


def open_feed(cfg: Config, spec: str, workers: int, mesh, shapes) -> Feed:
    """The feed of the photographs that `spec` names (`clic_jax.training.data`), its step compiled for `shapes`.

    Raises: DataError.
    """
    t = cfg.train
    if not streaming.is_large(spec, MEMORY_LIMIT_MIB):
        photos = data.load_photos(spec, min_size=t.crop)
        return cached(cfg, photos, steps.replicate(mesh, photos), mesh, shapes)
    share = dict(process_index=jax.process_index(), process_count=jax.process_count(), workers=workers)

    def streamed(first, seed):
        stream = streaming.stream_crops(spec, batch=t.batch, size=t.crop, seed=seed, start_step=first, **share)
        return (steps.shard_batch(mesh, crops) for crops in stream)

    def first_crops(n, size):
        # few at a time: behind a batch of n the next ones would be read ahead, minutes of decoding for nothing
        stream = streaming.stream_crops(spec, batch=8, size=size, seed=t.seed, start_step=0)
        return np.concatenate([next(stream) for _ in range(-(-n // 8))])[:n]

    return _feed(cfg, streamed, first_crops, steps.make_streamed_step, 1, mesh, shapes, steps.batch_shape(cfg, mesh))


def cached(cfg: Config, photos, on_devices, mesh, shapes) -> Feed:
    """The feed of photographs in memory, given on the host and on every device of the mesh; the step crops them."""
    t = cfg.train

    def drawn(n, size):
        return np.asarray(data.random_crops(photos, jax.random.key(t.seed), batch=n, size=size))

    def held(first, seed):
        return itertools.repeat(on_devices)

    return _feed(cfg, held, drawn, steps.make_cached_steps, t.steps_per_call, mesh, shapes, on_devices)


def with_sweep(feed: Feed, sweep: steps.Sweep, mesh) -> Feed:
    """The feed of a run with other numbers; its step is the same, and is not compiled again."""
    placed = steps.replicate(mesh, sweep)

    def batches(first):
        return ((batch, placed) for batch in feed.data(first, int(sweep.seed)))

    return feed._replace(sweep=sweep, batches=batches)


def with_seed(feed: Feed, seed: int, mesh) -> Feed:
    """`with_sweep` of another seed alone."""
    return with_sweep(feed, feed.sweep._replace(seed=np.uint32(seed % 2**32)), mesh)


def annealed(feed: Feed, share: Callable[[], float]) -> Feed:
    """A feed whose every batch has what share() says at that time of the learning rate."""

    def batches(first):
        for batch, sweep in feed.batches(first):
            yield batch, sweep._replace(learning_rate=np.float32(share()) * feed.sweep.learning_rate)

    return feed._replace(batches=batches)


def _feed(cfg: Config, source, crops, make_step, per_call: int, mesh, shapes, batch) -> Feed:
    """A Feed for runs of `cfg` from `source` (its `data`), the step compiled for such states and batches."""
    begin, sweep = time.monotonic(), steps.Sweep.of(cfg)
    step, arguments = make_step(cfg, mesh), (shapes, batch, steps.replicate(mesh, sweep))
    # jax.jit keeps the trace for the compilation
    macs = complexity.count(step.trace(*arguments).jaxpr.jaxpr) // per_call
    compiled = steps.compile_step(step, *arguments)
    feed = Feed(sweep, source, crops, None, compiled, per_call, time.monotonic() - begin, macs)
    return with_sweep(feed, sweep, mesh)
