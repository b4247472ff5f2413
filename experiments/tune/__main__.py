"""Chooses settings and clusters under a budget: a search by optuna on held-out photographs.

    python -m experiments.tune --config tiny --space model.centers=4,9,16 --space model.similarity=cosine,euclidean \\
        --space train.learning_rate=1e-4..3e-3 --minutes 60 --data folder:PHOTOS --valid folder:HELD_OUT --out runs/tune
    python -m experiments.train --config runs/tune/recommended.py --data folder:PHOTOS --out runs/best

A trial trains a config from --seeds seeds for so many steps as all the others; its loss is the median of their held-out
losses, the mean over lmbda of the log, as experiments.train has it. One that is worse than the median of those before
it after a fourth or a half of its steps is given up. Killed or stopped, the same command with --resume goes on.
docs/tuning.md.
"""

import argparse
import math

from clic_jax import memory, runtime, settings
from clic_jax.cli import complain
from experiments import cli, experiment, machine
from experiments.ablation import study as studies
from experiments.ablation import training
from experiments.train import __main__ as train
from experiments.train import loop
from experiments.tune import recommend, search, space, trials
from experiments.tune.space import TuneError

TRIALS = 20  # where the space has more, or a range
FILE = "study.db"


def parse(argv=None) -> argparse.Namespace:
    """The command line. Raises: SystemExit."""
    parser = argparse.ArgumentParser(
        prog="experiments.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    text = "a setting with its choices (A,B,C) or its range (LOW..HIGH), which may span orders of magnitude"
    add("--space", action="append", default=[], metavar="KEY=VALUES", help=text)
    add("--config", default="tiny", type=cli.expanded, help="where the search begins: a config file or a preset")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of it, for all trials")
    add("--seeds", type=int, default=3, metavar="N", help="runs a trial; one resolves nothing; default 3")
    add("--steps", type=int, metavar="S", help="steps a run")
    add("--minutes", type=float, metavar="M", help="of the whole search; the steps a run are settled by timing some")
    add("--trials", type=int, metavar="N", help=f"default: all of a space that has no more, else {TRIALS}")
    add("--data", default="sample", help="photographs to train on, as for experiments.train; they stay in memory")
    add("--valid", default="sample:valid", help="held-out photographs that choose, the same kinds of names")
    add("--out", type=cli.path, required=True, metavar="DIR", help="the search's folder")
    add("--resume", action="store_true", help="go on with the search in --out")
    args = parser.parse_args(argv)
    if (args.minutes is None) == (args.steps is None):
        parser.error("give a budget, either --minutes or --steps")
    for name in ("minutes", "steps", "seeds", "trials"):
        if (value := getattr(args, name)) is not None and not 0 < value < math.inf:
            parser.error(f"--{name} must be above 0, not {value:g}")
    return args


def settle(args):
    """(base, space, trials, what another command must share to go on, steps or None). Raises: UserError."""
    for text in args.set:
        if (key := text.partition("=")[0].strip()) in space.REFUSED and key.startswith(("name", "train.s")):
            raise TuneError(f"--set {key}: it {space.REFUSED[key]}")
    base = settings.override(experiment.named(args.config), args.set)
    axes = space.parse(base, args.space)
    count = int(min(args.trials or TRIALS, space.size(axes)))
    options = {name: getattr(args, name) for name in ("seeds", "minutes", "data", "valid")}
    told = {key: axis._asdict() for key, axis in axes.items()}
    about = studies.describe({base.name: base}, space=told, steps=args.steps, trials=count, **options)
    known = studies.remembered(args.out, about)
    if known is not None and not args.resume:
        raise TuneError(f"{args.out} holds a search already: --resume goes on with it, or name another --out")
    return base, axes, count, about, known or args.steps


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    args = parse(argv)
    search.optuna()  # fails now rather than after the photographs
    base, axes, count, about, steps = settle(args)
    runtime.use_cache()
    memory.keep_memory(everything=True)
    with runtime.usual_settings():
        held_out = train.held_out(args.valid, base.train.metric)
        if not held_out:
            raise TuneError("a search chooses by held-out photographs: name some with --valid")
        crops = [base, *(space.applied(base, {"train.crop": text}) for text in _crops(axes))]
        photographs = training.Photographs(args.data, max(cfg.train.crop for cfg in crops))
        if steps is None:
            training.say("timing the config that the search begins with")
            steps = trials.steps_in(base, photographs, args.minutes, count, args.seeds)
        steps = -(-steps // base.train.steps_per_call) * base.train.steps_per_call
        studies.remember(studies.Study(args.out, {}, args.seeds, steps, steps, about))
        study = search.open_study(args.out / FILE, axes, base, count)
        training.say(f"{count} trials of {args.seeds} seeds, {steps} steps each")
        with loop.stop_signals() as asked:
            objective = trials.Training(args.out / "trials", photographs, held_out, args.seeds, steps, asked)
            try:
                limits = {"minutes": args.minutes} if args.minutes else {}
                search.search(study, axes, base, count, objective, say=training.say, **limits)
            except trials.Stopped:
                complain(f"stopped; the same command with --resume goes on with {args.out}")
                return 130
    rows = search.rows(study)
    if not rows or rows[0].state != search.FINISHED:
        raise TuneError(f"no trial was finished ({rows[0].why if rows else 'none begun'}): try other values of --space")
    about |= {"steps": steps, "images": len(held_out), "machine": machine.describe()}
    print("\n".join(recommend.write(args.out, rows, base, axes, about)))
    print(f"{args.out}: {recommend.RECOMMENDED}, {recommend.TABLE}, {recommend.FIGURES}")
    return 0


def _crops(axes: space.Space) -> tuple[str, ...]:
    """The sides of crops that are to choose from: photographs must be as large as the largest."""
    axis = axes.get("train.crop", space.Choice(()))
    return axis.values if isinstance(axis, space.Choice) else (str(axis.high),)


if __name__ == "__main__":
    cli.run(main)
