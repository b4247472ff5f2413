"""The command line of `experiments.train`, and what a run is made of once a resumed one has said what it was."""

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

from clic_jax import config, settings
from clic_jax.checkpoints import arrays
from clic_jax.files import atomic
from experiments import cli, experiment

RUN = "run.json"  # in the run's folder: the data, by which a resumed run goes on with the same
KEPT = ("data", "valid", "valid_since")
DATA, VALID = "sample", "sample:valid"


def parse(argv, description: str) -> argparse.Namespace:
    """The options; `data` and `valid` are None where they were not given."""
    parser = argparse.ArgumentParser(
        prog="experiments.train", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--config",
        type=cli.expanded,
        help="a file whose get_config() returns a Config, or a preset; default that of --init, or tiny",
    )
    add("--data", help=f"folder:PATH, tfds:NAME, or {DATA} (photographs inside installed packages), the default")
    add("--valid", help=f"held-out photographs, the same kinds of names; none: no evaluation; default {VALID}")
    add("--out", type=cli.path, help="the run's folder; default runs/NAME")
    add(
        "--init",
        type=cli.expanded,
        metavar="NAME",
        help="start from published weights (a name or a folder), of this model, a smaller or a larger one",
    )
    text = "go on from the newest checkpoint in --out, with its config and data; other options change them"
    add("--resume", action="store_true", help=text)
    text = (
        "copy --out there at each checkpoint (gs://, s3://, ...), from where --resume fetches it if there is no --out"
    )
    add("--mirror", metavar="ADDRESS", help=text)
    add("--max-steps", type=int, help="stop after this step; the schedule's length stays train.steps")
    text = (
        "the whole command's, from its start to its end: training stops while there is time for the last evaluation, "
        "checkpoint and publishing, by what they took before or else by estimate; one step is made in any case"
    )
    add("--max-seconds", type=float, help=text)
    add("--train-seconds", type=float, help="the training's alone, from its first step on; all else comes on top")
    text = "let the learning rate fall with the time left, to nothing at its end; runs that are resumed count as one"
    add("--anneal", action="store_true", help=text)
    text = "that the integers of the published weights are measured on: crops of the training photographs"
    add("--publish-pixels", type=int, metavar="N", help=text)
    text = "trace this many steps, after the first calls, for JAX's profiler; in --out, where TensorBoard finds it"
    add("--profile", type=int, metavar="STEPS", help=text)
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting, e.g. train.batch=4")
    add("--workers", type=int, default=0, help="reading processes where the photographs do not fit in memory")
    text = (
        "this is one of several processes: process INDEX of COUNT, of which 0 listens at HOST:PORT; "
        "nothing need be given where JAX finds out by itself (Slurm, Open MPI, TPU pods)"
    )
    add("--distributed", nargs="?", const="", metavar="HOST:PORT,COUNT,INDEX", help=text)
    args = parser.parse_args(argv)
    for name in ("max_steps", "max_seconds", "train_seconds", "profile", "publish_pixels"):
        if (value := getattr(args, name)) is not None and not 0 < value < math.inf:
            parser.error(f"--{name.replace('_', '-')} must be above 0, not {value:g}")
    if args.anneal and not (args.max_seconds or args.train_seconds):
        parser.error("--anneal needs an end in time: --train-seconds or --max-seconds")
    if args.anneal and args.distributed is not None:
        parser.error("--anneal goes by one clock, so by one process: leave --distributed out")
    if args.mirror and args.distributed is not None:
        parser.error("--mirror has one writer: leave --distributed out, or mount the bucket as a folder for --out")
    return args


class Run(NamedTuple):
    """What is trained, on what, and where it is kept."""

    config: config.Config
    out: Path
    data: str
    valid: str
    changes: list[str]  # by which a resumed run differs from what it was, a line each
    valid_since: int  # step from which on the held-out photographs are these: losses of others do not compare
    dtype_decided: bool = False  # whether its compute type was decided at an earlier start


def chosen(args) -> config.Config:
    """The Config that the command line names, before its --set."""
    if args.config:
        return experiment.named(args.config)
    return experiment.of_weights(args.init) if args.init else config.TINY


def folder(args) -> Path:
    """The run's folder."""
    return args.out or Path("runs") / chosen(args).name


def settle(args) -> Run:
    """The run of a command line: as given, or, where --resume finds one in --out, as it was, with what is given on top.

    Raises: ConfigError; CheckpointError where no checkpoint in --out can be read.
    """
    out = folder(args)
    stored = arrays.stored_config(out.absolute()) if args.resume else None
    if stored is None:
        return Run(settings.override(chosen(args), args.set), out, args.data or DATA, args.valid or VALID, [], 0)
    kept = {"data": DATA, "valid": VALID, "valid_since": 0}
    if (out / RUN).exists():
        kept |= json.loads((out / RUN).read_text())
    new = settings.override(chosen(args) if args.config else stored, args.set)
    data, valid = args.data or kept["data"], args.valid or kept["valid"]
    changes = differences(stored, new)
    for name, now in (("data", data), ("valid", valid)):
        changes += [f"--{name} {kept[name]} -> {now}"] if now != kept[name] else []
    since = kept["valid_since"] if valid == kept["valid"] else arrays.steps_in(out)[0] + 1
    return Run(new, out, data, valid, changes, since, new.train.dtype == stored.train.dtype)


def differences(old: config.Config, new: config.Config) -> list[str]:
    """The settings by which two configs differ, a line each."""
    found = [f"name {old.name} -> {new.name}"] if old.name != new.name else []
    for section in ("model", "train"):
        before, after = (dataclasses.asdict(getattr(cfg, section)) for cfg in (old, new))
        found += [f"{section}.{name} {was!r} -> {after[name]!r}" for name, was in before.items() if was != after[name]]
    return found


def remember(run: Run) -> None:
    """Writes what a later --resume of the run needs besides its checkpoints."""
    run.out.mkdir(parents=True, exist_ok=True)
    atomic.write(run.out / RUN, json.dumps({name: getattr(run, name) for name in KEPT}).encode())


def say(changes: list[str]) -> None:
    """Tells on standard error what is not as it was."""
    for change in changes:
        print(f"changed: {change}", file=sys.stderr, flush=True)
