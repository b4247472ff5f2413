"""The training of a study: every run a few steps at a time, in turn, so that noise and an early end hit all alike.

Between two turns a run is a checkpoint on disk; what a turn does is `experiments.train.loop`. One program a variant is
compiled, and serves all of its seeds.
"""

import dataclasses
import sys
import time

import jax
import numpy as np
from tqdm import tqdm

from clic_jax import runtime
from clic_jax.checkpoints import states
from clic_jax.config import Config
from clic_jax.files import atomic
from clic_jax.training import data, steps, streaming
from experiments.ablation.study import Run, Study, StudyError, of_length
from experiments.train import __main__ as train
from experiments.train import feed, loop, run_log
from experiments.train.deadline import Deadline
from experiments.train.profile import Profile

TIMED = 5  # steps by which the length of a study given in minutes is settled, after one that warms up


class Photographs:
    """The photographs of a study, decoded once, with the mesh that they are on. Raises: StudyError; DataError."""

    def __init__(self, spec: str, size: int):
        if streaming.is_large(spec, feed.MEMORY_LIMIT_MIB):
            text = f"--data {spec} decodes to more than {feed.MEMORY_LIMIT_MIB} MiB"
            raise StudyError(f"{text}, and a study keeps its photographs in memory: name fewer")
        self.mesh = steps.make_mesh()
        self.photos = data.load_photos(spec, min_size=size)
        self.on_devices = steps.replicate(self.mesh, self.photos)

    def crops(self, n: int, size: int) -> np.ndarray:
        """uint8 [n, size, size, 3], always the same: what the tables of files are measured on."""
        return np.asarray(data.random_crops(self.photos, jax.random.key(0), batch=n, size=size))

    def feed(self, cfg: Config) -> tuple[feed.Feed, steps.TrainState]:
        """The feed of a config, its step compiled, and the shapes of its state."""
        shapes = steps.state_shapes(cfg, self.mesh)
        return feed.cached(cfg, self.photos, self.on_devices, self.mesh, shapes), shapes


def settle(cfg: Config, photographs: Photographs, minutes: float) -> int:
    """The steps that the full model makes in so many minutes, by some steps of it."""
    return max(int(60 * minutes / seconds_a_step(cfg, photographs)[0]), 1)


def seconds_a_step(cfg: Config, photographs: Photographs) -> tuple[float, float]:
    """(seconds of a step of this config here, by some steps of it, seconds that it compiled for)."""
    cfg = of_length(cfg, 1000)
    source, _ = photographs.feed(cfg)
    state = train.first_state(cfg, source.crops, None, photographs.mesh)
    batches = source.batches(0)
    state, told = source.step(state, *next(batches))
    jax.block_until_ready(told)
    begin = time.monotonic()
    for _ in range(TIMED):
        state, told = source.step(state, *next(batches))
    jax.block_until_ready(told)
    return (time.monotonic() - begin) / TIMED / source.steps_per_call, source.compile_seconds


def compile_all(study: Study, photographs: Photographs, runs: list[Run], asked: list) -> dict[str, tuple]:
    """`Photographs.feed` of each variant that has steps left; of fewer, where `asked` has stopped it."""
    wanted, feeds = {run.variant for run in runs if run.step < study.steps}, {}
    for name in (name for name in study.configs if name in wanted):
        if asked:
            break
        say(f"compiling {name}, {len(feeds) + 1} of {len(wanted)}")
        feeds[name] = photographs.feed(of_length(study.configs[name], study.steps))
    return feeds


def train_all(study: Study, photographs: Photographs, asked: list) -> bool:
    """Trains every run to the study's last step; False where `asked` (of `loop.stop_signals`) has stopped it first."""
    runs = [run for run in study.runs() if not run.diverged.exists()]
    feeds = compile_all(study, photographs, runs, asked)
    if asked:
        return False
    total, done, new, begin = len(runs) * study.steps, sum(run.step for run in runs), 0, time.monotonic()
    for target in range(study.chunk, study.steps + study.chunk, study.chunk):
        for run in runs:
            first, last = run.step, min(target, study.steps)
            if first >= last or run.diverged.exists():
                continue
            source, shapes = feeds[run.variant]
            source = feed.with_seed(source, run.seed, photographs.mesh)
            interrupted = turn(study, run, last, source, shapes, photographs.mesh, asked)
            new += run.step - first
            rate = new / (time.monotonic() - begin)
            left = tqdm.format_interval((total - done - new) / rate) if rate else "?"
            where = f"{run.variant}, seed {run.seed}, step {run.step}/{study.steps}"
            say(f"{where}; {done + new}/{total} in all, {rate:.3g} steps/s, ETA {left}")
            if interrupted:
                return False
    return True


def turn(study: Study, run: Run, last: int, source: feed.Feed, shapes, mesh, asked: list) -> bool:
    """One run's next steps, up to `last`, from its checkpoint to its next one; whether it was asked to stop.

    A run that is no longer finite is noted as such, and left.
    """
    cfg = of_length(study.configs[run.variant], study.steps)
    cfg = dataclasses.replace(cfg, train=dataclasses.replace(cfg.train, seed=run.seed))
    with states.TrainingCheckpoints(run.folder, cfg, keep_last=1) as manager:
        if manager.latest_step() is None:
            state = train.first_state(cfg, source.crops, None, mesh)
            runtime.release_memory()
        else:
            state = manager.restore_newest(shapes)
        limits, first = loop.Limits(last, Deadline(time.monotonic()), asked), int(state.step)
        with run_log.RunLog(run.folder, last, first, quiet=True) as log:
            try:
                ended = loop.train(cfg, limits, state, source, [], manager, log, Profile(run.folder, None))
            except loop.NotFinite as error:
                say(f"{run.variant}, seed {run.seed}: {error}")
                atomic.write(run.diverged, f"{error}\n".encode())
                return False
        manager.save(int(ended.state.step), ended.state)
    return ended.reason == "interrupted"


def say(text: str) -> None:
    """A line on standard error, at once."""
    print(text, file=sys.stderr, flush=True)
