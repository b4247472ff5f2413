"""Trains a model: `python -m experiments.train` alone trains `tiny` on the photographs inside installed packages.

    python -m experiments.train --config experiments/configs/tiny.py --data folder:photos --out runs/tiny
    python -m experiments.train --resume --out runs/tiny                               goes on with it, bit for bit
    python -m experiments.train --set train.batch=16 --set model.lmbdas='(0.013,)'     changes settings by name

All devices of the machine share each batch. Ctrl-C saves and stops; a killed run goes on from its last checkpoint, with
its own config and data; --set and the other options change them then, and what they change is told.
Several processes share it as well, each reading its own crops where the photographs do not fit in memory; --out must be
a folder that all of them see, and Ctrl-C stops them at the next row of the log. The same command on every machine,
all GPUs of one machine being one process's:

    python -m experiments.train ...                                     one machine, any number of GPUs, or a TPU VM
    python -m experiments.train ... --distributed 10.0.0.1:9911,4,INDEX   four machines, INDEX 0 to 3, 0 at 10.0.0.1
    srun -N 4 --ntasks-per-node 1 python -m experiments.train ... --distributed              Slurm
    gcloud compute tpus tpu-vm ssh POD --worker all --command "cd clic_jax && python -m experiments.train ... \
        --out /nfs/run --distributed"                                                         a TPU pod
"""

import contextlib
import dataclasses
import math
import shlex
import sys
import time
from pathlib import Path

import jax

from clic_jax import config, memory, metrics, runtime, settings
from clic_jax.checkpoints import arrays, published, states
from clic_jax.cli import error_text
from clic_jax.errors import UserError
from clic_jax.exchange import publish
from clic_jax.model import clic
from clic_jax.training import data, growth, pca_start, steps
from experiments import cli, device
from experiments.train import feed, loop, options, processes, run_log
from experiments.train.deadline import Deadline
from experiments.train.mirror import Mirror
from experiments.train.profile import Profile

PCA_CROPS, PCA_CROP = 400, 64  # what the transform-codec start looks at
DETAIL_PIXELS = 10_000_000  # what the start of detail channels looks at, in crops of the training's size


def parse(argv=None):
    """The command line."""
    return options.parse(argv, __doc__)


def first_params(cfg: config.Config, photos, init: str | None = None):
    """Parameters before the first step: drawn (and, where asked, made a transform codec), or those published as `init`.

    photos: function (n, size) -> uint8 [n, size, size, 3] of training photographs.
    init: of this model, of a smaller one, which is grown to it, or of a larger one, which is shrunk; or None.
    """
    if init:
        given, params, _ = published.load_published(init)
        kept, params = growth.shrunk(given.model, params, cfg.model)
        if kept != given.model:
            print(f"{init} is larger: its last blocks and hidden units are left out", file=sys.stderr, flush=True)
        grown = growth.grown(kept, params, cfg.model, cfg.train.seed)
        more = kept.detail_channels < cfg.model.detail_channels
        return with_details(cfg, grown, photos, kept.detail_channels) if more else grown
    params = clic.init_params(cfg.model, cfg.train.seed)
    if cfg.train.pca_start:
        crops = photos(PCA_CROPS, PCA_CROP)
        params = pca_start.transform_codec(params, cfg.model, crops, cfg.train.metric)
        params = with_details(cfg, params, photos) if cfg.model.detail_channels else params
    return params


def with_details(cfg: config.Config, params, photos, kept: int = 0):
    """The parameters with detail channels, but the first `kept`, that start as what is left of photographs so far."""
    crops = photos(-(-DETAIL_PIXELS // cfg.train.crop**2), cfg.train.crop)
    return pca_start.with_details(params, cfg.model, crops, cfg.train.metric, kept)


def first_state(cfg: config.Config, photos, init, mesh) -> steps.TrainState:
    """The state before the first step, on every device; arguments as for `first_params`."""
    params = jax.tree.map(jax.numpy.asarray, first_params(cfg, photos, init))
    return steps.replicate(mesh, steps.new_state(cfg, params))


def held_out(spec: str, metric: str) -> list:
    """The held-out photographs, [] for "none". Raises: ConfigError for one that the distortion cannot judge."""
    photographs = [] if spec == "none" else list(data.whole_images(spec))
    for name, x in photographs:
        if metric == "ms-ssim" and min(x.shape[:2]) < metrics.MS_SSIM_MIN_SIDE:
            raise config.ConfigError(
                f"train.metric=ms-ssim needs sides of {metrics.MS_SSIM_MIN_SIDE} pixels or more, and {name} of "
                f"--valid {spec} has {x.shape[1]}x{x.shape[0]}: name other photographs, or --valid none"
            )
    return [x for _, x in photographs]


def set_deadline(begin: float, args, cfg: config.Config, source: feed.Feed, photographs: list) -> Deadline:
    """When to stop, with what is to be expected of the last evaluation and of publishing."""
    deadline = Deadline(begin, args.max_seconds, args.train_seconds)
    pixels = len(loop.evaluated_lmbdas(cfg)) * sum(x.size // 3 for x in photographs)
    if photographs:
        deadline.expect("evaluation", source.compile_seconds, pixels)
    pixels = args.publish_pixels or publish.CALIBRATION_PIXELS
    deadline.expect("publishing", source.compile_seconds, len(cfg.model.lmbdas) * pixels)
    return deadline


def computed(cfg: config.Config) -> config.Config:
    """A new run's config: of float32 where this processor is no quicker at `bfloat16_products`, which is told.

    Resumed, a run keeps what it began with, for it is to be repeated bit for bit wherever it goes on.
    """
    if cfg.train.dtype != "bfloat16_products" or jax.process_count() > 1 or device.quicker_in_bfloat16():
        return cfg
    print("this processor gains nothing by bfloat16_products: computing in float32", file=sys.stderr, flush=True)
    return dataclasses.replace(cfg, train=dataclasses.replace(cfg.train, dtype="float32"))


class Stopped(UserError):
    """Training could not go on; the message says what there is to go on from."""


@contextlib.contextmanager
def remains_told(out: Path):
    """Adds to what goes wrong inside, a state that is not finite or a full disk, what there is to go on from."""
    try:
        yield
    except (UserError, OSError) as error:
        there = arrays.steps_in(out)
        remedy = f"go on from step {there[0]} with: {command(out)}" if there else "there is no checkpoint to go on from"
        raise Stopped(f"{error_text(error)}; {remedy}") from error


def command(out: Path) -> str:
    """The line that goes on with a run."""
    return f"python -m experiments.train --resume --out {shlex.quote(str(out))}"


def chosen_average(state: steps.TrainState, measured: dict | None, manager, since: int, out: Path, log: run_log.RunLog):
    """(averaged parameters to publish, what is told of them).

    Those with the best held-out loss, of the last step and of the checkpoints that evaluations made from step `since`
    on; without held-out photographs those of the last step.
    """
    last, best = int(state.step), manager.best_step(since)
    if not measured or best is None or measured["loss"] <= manager.loss(best):
        return jax.device_get(state.ema), {"step": last} | (measured or {})
    gain = 1 - math.exp(manager.loss(best) - measured["loss"])
    log.message(f"publishing step {best}, whose held-out loss is {gain:.2%} lower than that of step {last}")
    return published.load_published(out / str(best))[1], {"step": best} | manager.measured(best)


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    begin = time.monotonic()
    args = parse(argv)
    if args.distributed is not None:
        processes.join(args.distributed)
    runtime.use_cache()
    memory.keep_memory(everything=True)
    with runtime.usual_settings():
        return train(args, begin)


def train(args, begin: float) -> int:
    """The run of a command line that began at that time, to its published weights; returns the exit status."""
    copy = args.mirror and Mirror(options.folder(args), args.mirror)
    if copy:
        copy.fetch(args.resume)
    run = options.settle(args)
    cfg, out = run.config if run.dtype_decided else computed(run.config), run.out
    mesh = steps.make_mesh()
    steps.check_batch(cfg, mesh)
    steps.make_optimizer(cfg.train)
    publish.check_replaceable(out / "published")  # now rather than after the training
    with states.TrainingCheckpoints(out, cfg) as manager:
        if manager.latest_step() is not None and not args.resume:
            raise config.ConfigError(f"{out} already holds a run: add --resume to continue it, or name another --out")
        if jax.process_index() == 0:
            options.say(run.changes)
            options.remember(run)
        photographs = held_out(run.valid, cfg.train.metric)
        shapes = steps.state_shapes(cfg, mesh)
        if jax.process_index() == 0:
            print(f"{cfg.name}: compiling the training step, minutes for a large model", file=sys.stderr, flush=True)
        source = feed.open_feed(cfg, run.data, args.workers, mesh, shapes)
        resumed = args.resume and manager.latest_step() is not None
        state = manager.restore_newest(shapes) if resumed else first_state(cfg, source.crops, args.init, mesh)
        runtime.release_memory(programs=True)  # those that drew the parameters, above all
        first, last = int(state.step), min(cfg.train.steps, args.max_steps or cfg.train.steps)
        deadline = set_deadline(begin, args, cfg, source, photographs)
        peak = device.published_peak(mesh.devices.flat[0].device_kind, cfg.train.dtype)
        pixels_at_peak = peak and peak * mesh.size * cfg.train.batch * cfg.train.crop**2 / source.macs
        with (
            remains_told(out),
            copy or contextlib.nullcontext(),  # before the log, which is closed when it is copied
            run_log.RunLog(out, last, first, peak=pixels_at_peak) as log,
        ):
            size = sum(x.size for x in jax.tree.leaves(state.params))
            log.message(
                f"{cfg.name}: {size / 1e6:.2f} M parameters, {mesh.size} x {mesh.devices.flat[0].device_kind}, "
                f"{cfg.train.batch} crops of {cfg.train.crop}x{cfg.train.crop} a step, "
                f"data {run.data}, from step {first}"
            )
            log.text(first, "config", settings.to_json(cfg))
            with loop.stop_signals() as asked:
                if args.anneal:
                    source = feed.annealed(source, lambda: deadline.share(log.pixels_per_second))
                limits, profile = loop.Limits(last, deadline, asked), Profile(out, args.profile)
                state, reason, measured = loop.train(
                    cfg, limits, state, source, photographs, manager, log, profile, copy
                )
            step = int(state.step)
            if not measured and reason != "interrupted":
                measured = loop.evaluate(cfg, state, photographs, log, step)
            if manager.latest_step() != step:
                # an evaluation made because of a stop is no candidate: where a run stops must not change what it gives
                scheduled = loop.due(cfg.train.eval_every, step, source.steps_per_call)
                manager.save(step, state, measured if scheduled else None)
            manager.wait()
            stopped = f"stopped at step {step}; continue with: {command(out)}"
            log.message(stopped if step < cfg.train.steps else f"finished at step {step}")
            if copy and (told := copy.try_push()):  # publishing may take minutes
                log.message(told)
            if reason == "interrupted":
                return 130
            average, about = chosen_average(state, measured, manager, run.valid_since, out, log)
            if jax.process_index() == 0:
                name = publish.publish(out / "published", cfg, average, source.crops, about, pixels=args.publish_pixels)
                print(f"{out / 'published'}: model {name}")
    return 0


if __name__ == "__main__":
    cli.run(main)
