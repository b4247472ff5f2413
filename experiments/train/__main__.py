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
import sys
from pathlib import Path

import jax

from clic_jax import config, runtime, settings
from clic_jax.checkpoints import published, states
from clic_jax.model import clic
from clic_jax.training import data, growth, pca_start, steps
from experiments import cli, experiment, publish
from experiments.train import feed, loop, processes, run_log

PCA_CROPS, PCA_CROP = 400, 64  # what the transform-codec start looks at


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


def first_params(cfg: config.Config, photos, init: str | None = None):
    """Parameters before the first step: drawn (and, where asked, made a transform codec), or those published as `init`.

    photos: function (n, size) -> uint8 [n, size, size, 3] of training photographs.
    """
    if init:
        given, params, _ = published.load_published(init)
        return growth.grown(given.model, params, cfg.model, cfg.train.seed)
    params = clic.init_params(cfg.model, cfg.train.seed)
    if cfg.train.pca_start:
        crops = photos(PCA_CROPS, PCA_CROP)
        params = pca_start.transform_codec(params, cfg.model, crops)
    return params


def first_state(cfg: config.Config, photos, init, mesh) -> steps.TrainState:
    """The state before the first step, on every device; arguments as for `first_params`."""
    params = jax.tree.map(jax.numpy.asarray, first_params(cfg, photos, init))
    return steps.replicate(mesh, steps.new_state(cfg, params))


def held_out(spec: str) -> list:
    """The held-out photographs, [] for "none"."""
    return [] if spec == "none" else [x for _, x in data.whole_images(spec)]


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    args = parse(argv)
    if args.distributed is not None:
        processes.join(args.distributed)
    runtime.use_cache()
    runtime.keep_memory()
    cfg = settings.override(chosen(args), args.set)
    out = args.out or Path("runs") / cfg.name
    mesh = steps.make_mesh()
    steps.check_batch(cfg, mesh)
    steps.make_optimizer(cfg.train)
    with states.TrainingCheckpoints(out, cfg) as manager:
        if manager.latest_step() is not None and not args.resume:
            raise config.ConfigError(f"{out} already holds a run: add --resume to continue it, or name another --out")
        photographs = held_out(args.valid)
        shapes = steps.state_shapes(cfg, mesh)
        if jax.process_index() == 0:
            print(f"{cfg.name}: compiling the training step, minutes for a large model", file=sys.stderr, flush=True)
        source = feed.open_feed(cfg, args.data, args.workers, mesh, shapes)
        resumed = args.resume and manager.latest_step() is not None
        state = manager.restore(shapes) if resumed else first_state(cfg, source.crops, args.init, mesh)
        runtime.release_memory(programs=True)  # those that drew the parameters, above all
        first = int(state.step)
        with run_log.RunLog(out, min(cfg.train.steps, args.max_steps or cfg.train.steps), first) as log:
            size = sum(x.size for x in jax.tree.leaves(state.params))
            log.message(
                f"{cfg.name}: {size / 1e6:.2f} M parameters, {mesh.size} x {mesh.devices.flat[0].device_kind}, "
                f"{cfg.train.batch} crops of {cfg.train.crop}x{cfg.train.crop} a step, "
                f"data {args.data}, from step {first}"
            )
            with loop.stop_signals() as asked:
                state, reason = loop.train(cfg, args, state, source, photographs, manager, log, asked)
            step = int(state.step)
            measured = None if reason == "interrupted" else loop.evaluate(cfg, state, photographs, log, step)
            if manager.latest_step() != step or measured:
                manager.save(step, state, measured, force=True)
            log.message(
                f"stopped at step {step}; continue with --resume --out {out}"
                if step < cfg.train.steps
                else f"finished at step {step}"
            )
    if reason == "interrupted":
        return 130
    if jax.process_index() == 0:
        name = publish.publish(
            out / "published", cfg, jax.device_get(state.ema), source.crops, {"step": step} | (measured or {})
        )
        print(f"{out / 'published'}: model {name}")
    return 0


if __name__ == "__main__":
    cli.run(main)
