"""Where batches come from, photographs on the devices or crops read while training, with the step compiled for them."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from clic_jax.config import Config
from clic_jax.training import data, steps, streaming

MEMORY_LIMIT_MIB = 1900  # photographs that decode to more are read while training


class Feed(NamedTuple):
    """What a training loop runs: `state, metrics = step(state, next(batches))`."""

    step: Callable  # (state, batch) -> (state, mean metrics), compiled; `steps_per_call` optimiser steps
    batches: Callable[[int], Iterator]  # the batches from a step on, without end
    crops: Callable[[int, int], np.ndarray]  # (n, size) -> uint8 [n, size, size, 3], to look at before or after
    steps_per_call: int


def open_feed(cfg: Config, spec: str, workers: int, mesh, shapes) -> Feed:
    """The feed of the photographs that `spec` names (`clic_jax.training.data`), its step compiled for `shapes`.

    Raises: DataError.
    """
    t = cfg.train
    if streaming.is_large(spec, MEMORY_LIMIT_MIB):
        step = steps.compile_step(steps.make_streamed_step(cfg, mesh), shapes, steps.batch_shape(cfg, mesh))
        share = dict(process_index=jax.process_index(), process_count=jax.process_count(), workers=workers)

        def streamed(first):
            stream = streaming.stream_crops(spec, batch=t.batch, size=t.crop, seed=t.seed, start_step=first, **share)
            return (steps.shard_batch(mesh, crops) for crops in stream)

        def first_crops(n, size):
            # few at a time: behind a batch of n the next ones would be read ahead, minutes of decoding for nothing
            stream = streaming.stream_crops(spec, batch=8, size=size, seed=t.seed, start_step=0)
            return np.concatenate([next(stream) for _ in range(-(-n // 8))])[:n]

        return Feed(step, streamed, first_crops, 1)

    photos = data.load_photos(spec, min_size=t.crop)
    on_devices = steps.replicate(mesh, photos)  # the compiled step draws its own crops

    def drawn(n, size):
        return np.asarray(data.random_crops(photos, jax.random.key(t.seed), batch=n, size=size))

    step = steps.compile_step(steps.make_cached_steps(cfg, mesh), shapes, on_devices)
    return Feed(step, lambda first: itertools.repeat(on_devices), drawn, t.steps_per_call)
