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

import shlex
import sys

import jax

from clic_jax import config, runtime
from clic_jax.checkpoints import published, states
from clic_jax.model import clic
from clic_jax.training import data, growth, pca_start, steps
from experiments import cli, publish
from experiments.train import feed, loop, options, processes, run_log

PCA_CROPS, PCA_CROP = 400, 64  # what the transform-codec start looks at


def parse(argv=None):
    """The command line."""
    return options.parse(argv, __doc__)


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
    with runtime.usual_settings():
        return train(args)


def train(args) -> int:
    """The run of a command line, to its published weights; returns the exit status."""
    run = options.settle(args)
    cfg, out = run.config, run.out
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
        photographs = held_out(run.valid)
        shapes = steps.state_shapes(cfg, mesh)
        if jax.process_index() == 0:
            print(f"{cfg.name}: compiling the training step, minutes for a large model", file=sys.stderr, flush=True)
        source = feed.open_feed(cfg, run.data, args.workers, mesh, shapes)
        resumed = args.resume and manager.latest_step() is not None
        state = manager.restore_newest(shapes) if resumed else first_state(cfg, source.crops, args.init, mesh)
        runtime.release_memory(programs=True)  # those that drew the parameters, above all
        first = int(state.step)
        with run_log.RunLog(out, min(cfg.train.steps, args.max_steps or cfg.train.steps), first) as log:
            size = sum(x.size for x in jax.tree.leaves(state.params))
            log.message(
                f"{cfg.name}: {size / 1e6:.2f} M parameters, {mesh.size} x {mesh.devices.flat[0].device_kind}, "
                f"{cfg.train.batch} crops of {cfg.train.crop}x{cfg.train.crop} a step, "
                f"data {run.data}, from step {first}"
            )
            with loop.stop_signals() as asked:
                state, reason = loop.train(cfg, args, state, source, photographs, manager, log, asked)
            step = int(state.step)
            measured = None if reason == "interrupted" else loop.evaluate(cfg, state, photographs, log, step)
            if manager.latest_step() != step or measured:
                manager.save(step, state, measured, force=True)
            manager.wait()  # what is said next must be true
            command = f"python -m experiments.train --resume --out {shlex.quote(str(out))}"
            stopped = f"stopped at step {step}; continue with: {command}"
            log.message(stopped if step < cfg.train.steps else f"finished at step {step}")
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
