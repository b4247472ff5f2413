"""The training loop: steps, rows of the log, evaluations, checkpoints, and every reason to stop."""

import argparse
import contextlib
import math
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax.checkpoints.states import TrainingCheckpoints
from clic_jax.config import Config
from clic_jax.errors import UserError
from clic_jax.training import evaluation
from clic_jax.training.steps import TrainState
from experiments.train import processes
from experiments.train.feed import Feed
from experiments.train.run_log import RunLog


class NotFinite(UserError):
    """Training has diverged: a metric or a parameter is NaN or infinite."""


def train(
    cfg: Config,
    limits: argparse.Namespace,
    state: TrainState,
    feed: Feed,
    photographs: list,
    manager: TrainingCheckpoints,
    log: RunLog,
    asked: list,
) -> tuple[TrainState, str]:
    """Trains until a limit, or until `asked` (`stop_signals`) is not empty.

    Args:
      limits: `max_steps` and `max_seconds`, or None each.
      photographs: held out, uint8 [H, W, 3] each; empty for no evaluation.
    Returns: (state, why it stopped: "done", "time" or "interrupted").
    Raises: NotFinite, with nothing saved of what is not finite; CheckpointError.
    """
    t, begin, history = cfg.train, time.monotonic(), []
    step, stop = int(state.step), min(t.steps, limits.max_steps or t.steps)
    batches, shown, reason = feed.batches(step), {}, "done"

    def due(every):
        return step // every != (step - feed.steps_per_call) // every

    def seconds_left():
        return limits.max_seconds - (time.monotonic() - begin) if limits.max_seconds else math.inf

    def why_stop():
        """Why to stop now, or ""; several processes agree on it, and only now and then."""
        why = 2 if asked else 1 if seconds_left() < 0 else 0
        together = jax.process_count() == 1 or due(t.log_every)
        return ("", "time", "interrupted")[processes.largest(why) if together else 0]

    while step < stop:
        state, metrics = feed.step(state, next(batches))
        step += feed.steps_per_call
        if history:
            jax.block_until_ready(history[-1])  # keeps at most two calls in flight
        history.append(metrics)
        if due(t.log_every) or step >= stop:
            shown = averages(history, step, feed.steps_per_call)
            history.clear()
            log.row(step, **shown)
        log.progress(
            step,
            t.batch * t.crop**2 * feed.steps_per_call,
            seconds_left(),
            **{name: shown[name] for name in ("loss", "bpp", "psnr") if name in shown},
        )
        if due(t.eval_every) or due(t.save_every):
            check_finite(state, history, step, feed.steps_per_call)
            manager.save(step, state, evaluate(cfg, state, photographs, log, step) if due(t.eval_every) else None)
        if reason_now := why_stop():
            reason = reason_now
            break
    check_finite(state, history, step, feed.steps_per_call)
    return state, reason


def evaluate(cfg: Config, state: TrainState, photographs: list, log: RunLog, step: int) -> dict | None:
    """Held-out rate and distortion of the averaged parameters, into the log; {"loss": mean over lmbda} or None."""
    if not photographs:
        return None
    lmbdas = cfg.model.lmbdas[:: max(len(cfg.model.lmbdas) // 3, 1)]
    rows = evaluation.evaluate(cfg.model, jax.tree.map(lambda x: x.addressable_data(0), state.ema), photographs, lmbdas)
    log.row(step, **{f"valid_{key}_{row['lmbda']:g}": row[key] for row in rows for key in ("bpp", "psnr", "loss")})
    log.message(f"step {step}, held out: " + "; ".join(f"{row['bpp']:.3f} bpp {row['psnr']:.2f} dB" for row in rows))
    return {"loss": float(np.mean([np.log(row["loss"]) for row in rows]))}


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
    return NotFinite(
        f"{what} at step {step}: try a smaller train.learning_rate or train.grad_clip; "
        "the last checkpoint is from before"
    )


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
