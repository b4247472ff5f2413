"""The training loop: steps, rows of the log, evaluations, checkpoints, and every reason to stop."""

import contextlib
import math
import signal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax import metrics
from clic_jax.checkpoints.states import TrainingCheckpoints
from clic_jax.config import Config
from clic_jax.errors import UserError
from clic_jax.training import evaluation
from clic_jax.training.steps import TrainState
from experiments.clusters import health
from experiments.train import processes
from experiments.train.deadline import Deadline
from experiments.train.feed import Feed
from experiments.train.mirror import Mirror
from experiments.train.profile import Profile
from experiments.train.run_log import RunLog

HEALTH_PHOTOGRAPHS = 8  # held-out ones whose clusters an evaluation looks at: of one size, no program more


class NotFinite(UserError):
    """Training has diverged: a metric or a parameter is NaN or infinite."""


class Limits(NamedTuple):
    """How long to train."""

    last_step: int
    deadline: Deadline
    asked: list  # of `stop_signals`: not empty where the user, or the system, has asked to stop


class Ended(NamedTuple):
    """What training ends with."""

    state: TrainState
    reason: str  # "done", "time" or "interrupted"
    measured: dict | None  # what `evaluate` said of this very state, if it was asked


def train(
    cfg: Config,
    limits: Limits,
    state: TrainState,
    feed: Feed,
    photographs: list,
    manager: TrainingCheckpoints,
    log: RunLog,
    profile: Profile,
    mirror: Mirror | None = None,
) -> Ended:
    """Trains until a limit, one step at least.

    Args:
      photographs: held out, uint8 [H, W, 3] each; empty for no evaluation.
      mirror: what every checkpoint is copied to, as soon as it is whole.
    Raises: NotFinite, with nothing saved of what is not finite; CheckpointError.
    """
    t, deadline, history = cfg.train, limits.deadline, []
    step, stop = int(state.step), limits.last_step
    batches, shown, reason, measured = feed.batches(step), {}, "done", None
    pixels, uncounted = t.batch * t.crop**2 * feed.steps_per_call, 0
    deadline.start(log.seconds_before)

    def why_stop():
        """Why to stop now, or ""; several processes agree on it, and only now and then."""
        why = 2 if limits.asked else 1 if deadline.left(log.pixels_per_second) < 0 else 0
        together = jax.process_count() == 1 or due(t.log_every, step, feed.steps_per_call)
        return ("", "time", "interrupted")[processes.largest(why) if together else 0]

    def write_row():
        """The means since the last row, whatever was saved or evaluated meanwhile."""
        shown.update(averages(history, step, feed.steps_per_call))
        history.clear()
        log.row(step, **shown, **log.machine(uncounted))

    while step < stop:
        if told := profile.step(feed.steps_per_call):
            log.message(told)
        state, told_of_step = feed.step(state, *next(batches))
        step += feed.steps_per_call
        if history:
            jax.block_until_ready(history[-1])  # keeps at most two calls in flight
        history.append(told_of_step)
        measured, uncounted = None, pixels
        if due(t.log_every, step, feed.steps_per_call) or step >= stop:
            write_row()
        numbers = {name: shown[name] for name in ("loss", "bpp", "psnr") if name in shown}
        log.progress(step, pixels, deadline.left(log.pixels_per_second), **numbers)
        uncounted = 0
        reason_now = why_stop()
        evaluating, saving = (due(every, step, feed.steps_per_call) for every in (t.eval_every, t.save_every))
        if not reason_now and (evaluating or saving):
            check_finite(state, history, step, feed.steps_per_call)
            with log.paused():
                if evaluating:
                    with deadline.timed("evaluation"):
                        measured = evaluate(cfg, state, photographs, log, step)
                with deadline.timed("checkpoint"):
                    manager.save(step, state, measured)
                    if mirror:
                        manager.wait()
                        if told := mirror.try_push():
                            log.message(told)
            reason_now = why_stop()
        if reason_now:
            reason = reason_now
            break
    if told := profile.close():
        log.message(told)
    check_finite(state, history, step, feed.steps_per_call)
    if history:
        write_row()
    return Ended(state, reason, measured)


def due(every: int, step: int, per_call: int) -> bool:
    """Whether the call of `per_call` steps that ended at `step` has passed a multiple of `every`."""
    return step // every != (step - per_call) // every


def evaluated_lmbdas(cfg: Config) -> tuple[float, ...]:
    """The operating points that `evaluate` looks at: three or four over the range."""
    return cfg.model.lmbdas[:: max(len(cfg.model.lmbdas) // 3, 1)]


def evaluate(cfg: Config, state: TrainState, photographs: list, log: RunLog, step: int) -> dict | None:
    """Held-out rate, distortion and cluster health of the averaged parameters, into the log.

    Returns: {"loss": `held_out_loss`, by which the best checkpoint is chosen, and `health.summary`}, or None.
    """
    if not photographs:
        return None
    lmbdas, metric = evaluated_lmbdas(cfg), cfg.train.metric
    params = jax.tree.map(lambda x: x.addressable_data(0), state.ema)
    rows = evaluation.evaluate(cfg.model, params, photographs, lmbdas, metric)
    found = {f"valid_{key}_{row['lmbda']:g}": value for row in rows for key, value in row.items() if key != "lmbda"}
    clusters = health.summary(health.measure(cfg.model, params, photographs[:HEALTH_PHOTOGRAPHS]))
    log.row(step, **found, **{f"valid_{name}": value for name, value in clusters.items()}, **log.machine())
    middle = lmbdas[len(lmbdas) // 2]
    picture, _ = evaluation.reconstruct(cfg.model, params, photographs[0], middle)
    log.picture(step, f"held_out/lmbda_{middle:g}", picture)
    told = (f"{row['bpp']:.3f} bpp {row['psnr']:.2f} dB" for row in rows)
    if metric == "ms-ssim":
        told = (f"{row['bpp']:.3f} bpp {metrics.ms_ssim_db(row['ms_ssim']):.2f} dB MS-SSIM" for row in rows)
    log.message(f"step {step}, held out: " + "; ".join(told))
    return {"loss": held_out_loss(rows)} | clusters


def held_out_loss(rows: list[dict]) -> float:
    """Mean over lmbda of the log of the loss, which has the distortion that the model is trained for.

    Args: rows: of `evaluation.evaluate` at `evaluated_lmbdas`.
    """
    return float(np.mean([np.log(row["loss"]) for row in rows]))


def averages(history: list, last_step: int, per_call: int) -> dict:
    """The mean of each metric over `history`. Raises: NotFinite naming the first bad metric and its step."""
    rows = jax.device_get(history)
    for i, row in enumerate(rows):
        for name, value in sorted(row.items()):
            if not math.isfinite(value):
                raise _diverged(f"{name} is {value}", last_step - (len(rows) - 1 - i) * per_call)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def check_finite(state: TrainState, history: list, step: int, per_call: int) -> None:
    """Raises: NotFinite where a metric since the last row of the log, or a parameter, is not finite."""
    if history:
        averages(history, step, per_call)
    if not _all_finite(state.params):
        raise _diverged("a parameter is not finite", step)


@jax.jit
def _all_finite(params):
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]))


def _diverged(what: str, step: int) -> NotFinite:
    return NotFinite(f"{what} at step {step}: try a smaller train.learning_rate or train.grad_clip")


@contextlib.contextmanager
def stop_signals():
    """A list that Ctrl-C and SIGTERM append to, so that a step is never cut in half; a second Ctrl-C stops at once."""
    asked = []

    def ask(number, frame):
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
