"""Where batches come from, photographs on the devices or crops read while training, with the step compiled for them."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax.config import Config
from clic_jax.training import data, steps, streaming
from experiments import complexity

MEMORY_LIMIT_MIB = 1900  # photographs that decode to more are read while training
SHARE = jax.ShapeDtypeStruct((), np.float32)  # of the learning rate


class Feed(NamedTuple):
    """What a training loop runs: `state, metrics = step(state, next(batches))`."""

    batches: Callable[[int], Iterator]  # the batches from a step on, without end
    crops: Callable[[int, int], np.ndarray]  # (n, size) -> uint8 [n, size, size, 3], to look at before or after
    step: Callable  # (state, batch) -> (state, mean metrics), compiled; `steps_per_call` optimiser steps
    steps_per_call: int
    compile_seconds: float  # that the step took
    macs: int  # multiply-accumulates of one optimiser step, over all devices, recomputation included


def open_feed(cfg: Config, spec: str, workers: int, mesh, shapes, anneal: bool = False) -> Feed:
    """The feed of the photographs that `spec` names (`clic_jax.training.data`), its step compiled for `shapes`.

    anneal: the step takes (batch, share of the learning rate) as its batch, see `annealed`.
    Raises: DataError.
    """
    t = cfg.train
    if streaming.is_large(spec, MEMORY_LIMIT_MIB):
        batch = steps.batch_shape(cfg, mesh)
        batch = (batch, SHARE) if anneal else batch
        compiled = _compiled(steps.make_streamed_step(cfg, mesh, anneal), 1, shapes, batch)
        share = dict(process_index=jax.process_index(), process_count=jax.process_count(), workers=workers)

        def streamed(first):
            stream = streaming.stream_crops(spec, batch=t.batch, size=t.crop, seed=t.seed, start_step=first, **share)
            return (steps.shard_batch(mesh, crops) for crops in stream)

        def first_crops(n, size):
            # few at a time: behind a batch of n the next ones would be read ahead, minutes of decoding for nothing
            stream = streaming.stream_crops(spec, batch=8, size=size, seed=t.seed, start_step=0)
            return np.concatenate([next(stream) for _ in range(-(-n // 8))])[:n]

        return Feed(streamed, first_crops, *compiled)

    photos = data.load_photos(spec, min_size=t.crop)
    return cached(cfg, photos, steps.replicate(mesh, photos), mesh, shapes, anneal=anneal)


def cached(cfg: Config, photos, on_devices, mesh, shapes, seeded: bool = False, anneal: bool = False) -> Feed:
    """The feed of photographs in memory, given on the host and on every device of the mesh; the step crops them.

    seeded: batches are (photographs, seed), as `steps.make_cached_steps` has them; `with_seed` chooses another.
    anneal: as for `open_feed`.
    """
    t = cfg.train
    batch = (on_devices, steps.replicate(mesh, jnp.int32(t.seed))) if seeded else on_devices
    shown = (batch, SHARE) if anneal else batch

    def drawn(n, size):
        return np.asarray(data.random_crops(photos, jax.random.key(t.seed), batch=n, size=size))

    compiled = _compiled(steps.make_cached_steps(cfg, mesh, seeded, anneal), t.steps_per_call, shapes, shown)
    return Feed(lambda first: itertools.repeat(batch), drawn, *compiled)


def with_seed(feed: Feed, seed: int, mesh) -> Feed:
    """A seeded feed whose batches are of that seed."""
    photos, _ = next(feed.batches(0))
    batch = photos, steps.replicate(mesh, jnp.int32(seed))
    return feed._replace(batches=lambda first: itertools.repeat(batch))


def annealed(feed: Feed, share: Callable[[], float]) -> Feed:
    """A feed of `open_feed(anneal=True)` whose every batch has what share() says at that time."""
    return feed._replace(batches=lambda first: ((batch, np.float32(share())) for batch in feed.batches(first)))


def _compiled(step, per_call: int, *shapes) -> tuple:
    """The last four fields of a Feed: of the jitted `step` for such arguments."""
    begin = time.monotonic()
    macs = complexity.count(step.trace(*shapes).jaxpr.jaxpr) // per_call  # jax.jit keeps the trace for the compilation
    return steps.compile_step(step, *shapes), per_call, time.monotonic() - begin, macs
