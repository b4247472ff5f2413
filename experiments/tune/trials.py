"""What a trial of `experiments.tune` is: its config trained from every seed, looked at on held-out photographs.

Trained by the turns of `experiments.ablation.training`, each from a checkpoint to the next, in a folder that is named
by the config: a trial that is done again goes on from its checkpoints, and a config that was trained is not trained.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

from clic_jax import runtime, settings
from clic_jax.checkpoints import published
from clic_jax.config import Config
from clic_jax.files import atomic
from clic_jax.training import evaluation
from experiments.ablation import study, training
from experiments.train import loop
from experiments.train.deadline import COMPILING
from experiments.tune.search import Progress
from experiments.tune.space import TuneError

LOSSES = "held_out.json"  # of a run, in its folder: {step: loss}
RUNGS = (4, 2, 1)  # a trial is looked at after a fourth of its steps, a half, and all
SHARE = 0.7  # of a trial's time that is counted on for training, once its step is compiled: the rest evaluates


class Stopped(Exception):
    """The user, or the system, has asked to stop."""


@dataclasses.dataclass(frozen=True)
class Training:
    """What is alike for all trials; called with a config it is the `Objective` of a search."""

    out: Path
    photographs: training.Photographs
    held_out: list  # uint8 [H, W, 3] each
    seeds: int
    steps: int
    asked: list  # of `loop.stop_signals`

    def __call__(self, cfg: Config) -> Iterator[Progress]:
        """Trains and measures; raises Stopped where that was asked for."""
        cfg = study.of_length(cfg, self.steps)
        name = hashlib.sha256(settings.to_json(cfg).encode()).hexdigest()[:12]
        work = study.Study(self.out, {name: cfg}, self.seeds, self.steps, self.steps, {})
        feed, rungs = None, self.rungs(cfg)
        for i, step in enumerate(rungs):
            losses = []
            for run in work.runs():
                kept = _kept(run)
                if str(step) not in kept and not run.diverged.exists():
                    if run.step < step:
                        feed = feed or self.photographs.feed(cfg)
                        self.trained(work, run, step, feed)
                    if not run.diverged.exists():
                        kept[str(step)] = self.loss(cfg, run)
                        atomic.write(run.folder / LOSSES, json.dumps(kept).encode())
                losses.append(math.inf if run.diverged.exists() else kept[str(step)])
                done = (rungs[i - 1] if i else 0) + (step - (rungs[i - 1] if i else 0)) * len(losses) / self.seeds
                yield Progress(done / self.steps, step, losses if len(losses) == self.seeds else None)
        del feed
        runtime.release_memory(programs=True)

    def rungs(self, cfg: Config) -> list[int]:
        """The steps at which a trial is looked at, rising; the last is the end."""
        per_call = cfg.train.steps_per_call
        return sorted({-(-self.steps // part // per_call) * per_call for part in RUNGS})

    def trained(self, work: study.Study, run: study.Run, step: int, feed) -> None:
        """Trains a run up to a step, or until it has diverged, of which its folder then has a note."""
        source, shapes = feed
        source = training.feed.with_seed(source, run.seed, self.photographs.mesh)
        if training.turn(work, run, step, source, shapes, self.photographs.mesh, self.asked) or self.asked:
            raise Stopped

    def loss(self, cfg: Config, run: study.Run) -> float:
        """The held-out loss of a run's averaged parameters, as `experiments.train` has it."""
        params = published.load_published(run.folder)[1]
        rows = evaluation.evaluate(cfg.model, params, self.held_out, loop.evaluated_lmbdas(cfg), cfg.train.metric)
        return loop.held_out_loss(rows)


def _kept(run: study.Run) -> dict[str, float]:
    path = run.folder / LOSSES
    return json.loads(path.read_text()) if path.exists() else {}


def steps_in(cfg: Config, photographs: training.Photographs, minutes: float, trials: int, seeds: int) -> int:
    """The steps a run that fit, as the base is timed: so many trials, each of so many seeds, in the minutes.

    Raises: TuneError where compiling alone takes them.
    """
    seconds, compiling = training.seconds_a_step(cfg, photographs)
    first = (1 + COMPILING) * compiling  # the step, and the evaluation
    steps = int(SHARE * (60 * minutes / trials - first) / seeds / seconds)
    if steps < len(RUNGS):
        least = math.ceil(trials * (first + len(RUNGS) * seeds * seconds / SHARE) / 60)
        raise TuneError(
            f"--minutes {minutes:g} are too few for {trials} trials of {seeds} seeds, each of which compiles for "
            f"{compiling:.0f} s: give {least} or more, or fewer --trials or --seeds"
        )
    return steps
