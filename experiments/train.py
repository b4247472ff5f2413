"""Trains a model: `python -m experiments.train` alone trains `tiny` on the photographs inside installed packages.

    python -m experiments.train --config experiments/configs/tiny.py --data folder:photos --out runs/tiny
    python -m experiments.train --out runs/tiny --data folder:photos --resume          continues, bit for bit
    python -m experiments.train --set train.batch=16 --set model.lmbdas='(0.013,)'     changes settings by name

All devices of the machine share each batch. Ctrl-C saves and stops; a killed run goes on from its last checkpoint.
Several processes share it as well, each reading its own crops where the photographs do not fit in memory; --out must be
a folder that all of them see, and Ctrl-C stops them at the next row of the log. The same command on every machine,
all GPUs of one machine being one process's:

    python -m experiments.train ...                                     one machine, any number of GPUs, or a TPU VM
    python -m experiments.train ... --distributed 10.0.0.1:9911,4,INDEX   four machines, INDEX 0 to 3, 0 at 10.0.0.1
    srun -N 4 --ntasks-per-node 1 python -m experiments.train ... --distributed              Slurm
    gcloud compute tpus tpu-vm ssh POD --worker all --command "cd clic_jax && python -m experiments.train ... \
        --out /nfs/run --distributed"                                                         a TPU pod
"""

import argparse
import contextlib
import math
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np

from clic_jax import (
    checkpoints,
    compilation,
    config,
    data,
    evaluation,
    growth,
    initialization,
    memory,
    model,
    published,
    settings,
    streaming,
    training,
)
from clic_jax.errors import UserError
from experiments import cli, experiment, processes, publish, run_log

PCA_CROPS, PCA_CROP = 400, 64  # what the transform-codec start looks at
MEMORY_LIMIT_MIB = 1900  # photographs that decode to more are read while training instead


def parse(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", help="a file whose get_config() returns a Config, or a preset; default that of --init, or tiny"
    )
    parser.add_argument(
        "--data", default="sample", help="folder:PATH, tfds:NAME, or sample (photographs inside installed packages)"
    )
    parser.add_argument(
        "--valid", default="sample:valid", help="held-out photographs, the same kinds of names; none: no evaluation"
    )
    parser.add_argument("--out", type=Path, help="the run's folder; default runs/NAME")
    parser.add_argument(
        "--init", metavar="NAME", help="start from published weights (a name or a folder) instead of from scratch"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    parser.add_argument("--max-steps", type=int, help="stop after this step; the schedule's length stays train.steps")
    parser.add_argument("--max-seconds", type=float, help="stop after this time, saving a checkpoint")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting, e.g. train.batch=4"
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="reading processes where the photographs do not fit in memory"
    )
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="",
        metavar="HOST:PORT,COUNT,INDEX",
        help="this is one of several processes: process INDEX of COUNT, of which 0 listens at HOST:PORT; "
        "nothing need be given where JAX finds out by itself (Slurm, Open MPI, TPU pods)",
    )
    return parser.parse_args(argv)


def chosen(args) -> config.Config:
    """The Config that the command line names, before its --set."""
    if args.config:
        return experiment.named(args.config)
    return experiment.of_weights(args.init) if args.init else config.TINY


def first_params(cfg: config.Config, photos, args):
    """Parameters before the first step: published ones, or drawn (and then, where asked, made a transform codec)."""
    if args.init:
        given, params, _ = published.load_published(args.init)
        return growth.grown(given.model, params, cfg.model, cfg.train.seed)
    params = model.init_params(cfg.model, cfg.train.seed)
    if cfg.train.pca_start:
        crops = photos(PCA_CROPS, PCA_CROP)
        params = initialization.transform_codec(params, cfg.model, crops)
    return params


def open_data(cfg: config.Config, args, mesh, shapes):
    """(start function, crops function, steps a call): the step compiled for states of these shapes, and photographs.

    `steps(first)` yields callables state -> (state, metrics); `crops(n, size)` gives uint8 crops for the PCA start.
    """
    t, process = cfg.train, dict(process_index=jax.process_index(), process_count=jax.process_count())
    if streaming.is_large(args.data, MEMORY_LIMIT_MIB):
        step = training.make_streamed_step(cfg, mesh)
        step = training.compile_step(step, shapes, training.batch_shape(cfg, mesh))

        def steps(first):
            stream = streaming.stream_crops(
                args.data, batch=t.batch, size=t.crop, seed=t.seed, start_step=first, workers=args.workers, **process
            )
            for crops in stream:
                batch = training.shard_batch(mesh, crops)
                yield lambda state, batch=batch: step(state, batch)

        def crops(n, size):
            return next(streaming.stream_crops(args.data, batch=n, size=size, seed=t.seed, start_step=0))

        return steps, crops, 1
    photos = data.load_photos(args.data, min_size=t.crop)
    on_devices = training.replicate(mesh, photos)
    cached = training.compile_step(training.make_cached_steps(cfg, mesh), shapes, on_devices)

    def steps(first):
        while True:
            yield lambda state: cached(state, on_devices)

    def crops(n, size):
        return np.asarray(data.random_crops(photos, jax.random.key(t.seed), batch=n, size=size))

    return steps, crops, t.steps_per_call


def valid_photographs(spec: str) -> list:
    """The held-out photographs, [] for "none"."""
    return [] if spec == "none" else [x for _, x in data.whole_images(spec)]


def evaluate(cfg, state, photographs, log, step) -> dict | None:
    """Held-out rate and distortion of the averaged parameters, into the log; {"loss": mean over lmbda} or None."""
    if not photographs:
        return None
    lmbdas = cfg.model.lmbdas[:: max(len(cfg.model.lmbdas) // 3, 1)]
    rows = evaluation.evaluate(cfg.model, jax.tree.map(lambda x: x.addressable_data(0), state.ema), photographs, lmbdas)
    log.row(step, **{f"valid_{key}_{row['lmbda']:g}": row[key] for row in rows for key in ("bpp", "psnr", "loss")})
    log.message(f"step {step}, held out: " + "; ".join(f"{row['bpp']:.3f} bpp {row['psnr']:.2f} dB" for row in rows))
    return {"loss": float(np.mean([np.log(row["loss"]) for row in rows]))}


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


class NotFinite(UserError):
    """Training has diverged: a metric is NaN or infinite."""


def averages(history: list, last_step: int, per_call: int) -> dict:
    """The mean of each metric over `history`. Raises: NotFinite naming the first bad metric and its step."""
    rows = jax.device_get(history)
    for i, row in enumerate(rows):
        for name, value in sorted(row.items()):
            if not math.isfinite(value):
                step = last_step - (len(rows) - 1 - i) * per_call
                raise NotFinite(
                    f"{name} is {value} at step {step}: try a smaller train.learning_rate or train.grad_clip; "
                    "the last checkpoint is from before"
                )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def loop(cfg, args, state, steps, per_call, photographs, manager, log, asked) -> tuple[training.TrainState, str]:
    """Trains until a limit, or until `asked` (stop_signals) is not empty; returns the state and why it stopped."""
    t, begin, history = cfg.train, time.monotonic(), []
    step = int(state.step)
    stop = min(t.steps, args.max_steps or t.steps)

    def due(every):
        return step // every != (step - per_call) // every

    def stopped():
        """Why to stop now, or ""; several processes agree on it, and only now and then."""
        late = args.max_seconds and time.monotonic() - begin > args.max_seconds
        why = 2 if asked else 1 if late else 0
        alone = jax.process_count() == 1
        return ("", "time", "interrupted")[processes.largest(why) if alone or due(t.log_every) else 0]

    batches, shown, reason, measured = steps(step), {}, "done", None
    while step < stop:
        state, metrics = next(batches)(state)
        step += per_call
        if history:
            jax.block_until_ready(history[-1])  # keeps at most two calls in flight
        history.append(metrics)
        if due(t.log_every) or due(t.save_every) or step >= stop:
            shown = averages(history, step, per_call)
            history.clear()
            if due(t.log_every) or step >= stop:
                log.row(step, **shown)
        log.progress(
            step, t.batch * t.crop**2 * per_call, **{k: shown[k] for k in ("loss", "bpp", "psnr") if k in shown}
        )
        if due(t.eval_every):
            measured = evaluate(cfg, state, photographs, log, step)
            manager.save(step, state, measured)
        elif due(t.save_every):
            manager.save(step, state)
        if why := stopped():
            reason = why
            break
    if history:
        averages(history, step, per_call)
    return state, reason


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    args = parse(argv)
    if args.distributed is not None:
        processes.join(args.distributed)
    compilation.use_cache()
    memory.keep()
    cfg = settings.override(chosen(args), args.set)
    args.out = args.out or Path("runs") / cfg.name
    mesh = training.make_mesh()
    training.check_batch(cfg, mesh)
    training.make_optimizer(cfg.train)
    with checkpoints.TrainingCheckpoints(args.out, cfg) as manager:
        if manager.latest_step() is not None and not args.resume:
            raise config.ConfigError(
                f"{args.out} already holds a run: add --resume to continue it, or name another --out"
            )
        photographs = valid_photographs(args.valid)
        shapes = training.state_shapes(cfg, mesh)
        if jax.process_index() == 0:
            print(f"{cfg.name}: compiling the training step, minutes for a large model", file=sys.stderr, flush=True)
        steps, crops, per_call = open_data(cfg, args, mesh, shapes)
        if args.resume and manager.latest_step() is not None:
            state = manager.restore(shapes)
        else:
            state = training.replicate(
                mesh, training.new_state(cfg, jax.tree.map(jax.numpy.asarray, first_params(cfg, crops, args)))
            )
        memory.release(programs=True)  # those that drew the parameters, above all
        first = int(state.step)
        with run_log.RunLog(args.out, min(cfg.train.steps, args.max_steps or cfg.train.steps), first) as log:
            size = sum(x.size for x in jax.tree.leaves(state.params))
            log.message(
                f"{cfg.name}: {size / 1e6:.2f} M parameters, {mesh.size} x {mesh.devices.flat[0].device_kind}, "
                f"{cfg.train.batch} crops of {cfg.train.crop}x{cfg.train.crop} a step, "
                f"data {args.data}, from step {first}"
            )
            with stop_signals() as asked:
                state, reason = loop(cfg, args, state, steps, per_call, photographs, manager, log, asked)
            step = int(state.step)
            measured = None if reason == "interrupted" else evaluate(cfg, state, photographs, log, step)
            if manager.latest_step() != step or measured:
                manager.save(step, state, measured, force=True)
            log.message(
                f"stopped at step {step}; continue with --resume --out {args.out}"
                if step < cfg.train.steps
                else f"finished at step {step}"
            )
    if reason != "interrupted" and jax.process_index() == 0:
        out = args.out / "published"
        name = publish.publish(out, cfg, jax.device_get(state.ema), crops, {"step": step} | (measured or {}))
        print(f"{out}: model {name}")
    return 130 if reason == "interrupted" else 0


if __name__ == "__main__":
    cli.run(main)
