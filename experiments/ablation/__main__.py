"""The paper's ablations: variants of one model trained alike, and what each part is worth in bits at equal PSNR.

    python -m experiments.ablation --variants no_attention,conv_mixer --seeds 3 --minutes 20 \\
        --data folder:PHOTOS --valid folder:HELD_OUT --out runs/ablation

The full model and every variant (a file each in experiments/configs/ablations; all of them where none is named) start
from the same seeds and see the same crops and noise. They train in turn, --chunk steps at a time, so that other work on
the machine and an early end hit all alike; --jobs gives variants processes of their own. After Ctrl-C, or a kill, the
same command goes on. At the end each is measured on the held-out photographs, by real files, and OUT has ablation.json,
.md, .png and .svg. docs/ablations.md.
"""

import argparse
import json
import math
import statistics

from clic_jax import runtime, settings
from clic_jax.training import data
from experiments import cli, complexity, experiment, machine
from experiments.ablation import study, tables, training, work
from experiments.ablation.study import FULL, Study, StudyError
from experiments.train import loop

QUALITIES = (1, 34, 67, 100)


def parse(argv=None) -> argparse.Namespace:
    """The command line. Raises: SystemExit."""
    parser = argparse.ArgumentParser(
        prog="experiments.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--variants", help=f"comma-separated, of {', '.join(study.there())}; default all; {FULL} is always there")
    add("--base", default="mini", type=cli.expanded, help="the full model: a preset or a config file; default mini")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the base")
    add("--seeds", type=int, default=3, metavar="N", help="runs of each variant; one resolves nothing; default 3")
    text = "so many steps a run as the full model makes in this time, measured before it begins"
    add("--minutes", type=float, metavar="M", help=text)
    add("--steps", type=int, metavar="S", help="steps a run, instead")
    add("--chunk", type=int, default=100, metavar="N", help="steps of a turn; default 100")
    add("--jobs", type=int, default=1, metavar="N", help="processes that share the variants and processors; default 1")
    add("--data", default="sample", help="photographs to train on, as for experiments.train; they stay in memory")
    add("--valid", default="sample:valid", help="held-out photographs, the same kinds of names")
    add("--qualities", type=float, nargs="+", default=QUALITIES, help="that are measured; default 1 34 67 100")
    add("--estimate", action="store_true", help="measure by bits that the model counts: quicker, no files")
    add("--out", type=cli.path, required=True, metavar="DIR", help="the study's folder")
    args = parser.parse_args(argv)
    if (args.minutes is None) == (args.steps is None):
        parser.error("give a budget, either --minutes or --steps")
    for name in ("minutes", "steps", "seeds", "chunk", "jobs"):
        if (value := getattr(args, name)) is not None and not 0 < value < math.inf:
            parser.error(f"--{name} must be above 0, not {value:g}")
    if len(set(args.qualities)) < 2 or not all(1 <= quality <= 100 for quality in args.qualities):
        parser.error("--qualities wants two or more, from 1 to 100")
    return args


def settle(args) -> tuple[Study, training.Photographs | None]:
    """The study of a command line, and its photographs where they were needed for that. Raises: UserError."""
    base = settings.override(experiment.named(args.base), args.set)
    if not base.model.variable_rate:
        raise StudyError(f"{base.name} has one rate only, and no curve: --set model.lmbdas='(0.0018, 0.0483)', or more")
    names = study.there() if args.variants is None else [name.strip() for name in args.variants.split(",")]
    configs = study.configs(base, list(filter(None, names)))
    options = {name: getattr(args, name) for name in ("seeds", "minutes", "chunk", "data", "valid")}
    about = study.describe(configs, steps=args.steps, base=base.name, **options)
    steps, photographs = args.steps or study.remembered(args.out, about), None
    if args.steps:
        study.remembered(args.out, about)
    if steps is None:
        photographs = training.Photographs(args.data, base.train.crop)
        training.say(f"timing {FULL}")
        steps = training.settle(base, photographs, args.minutes)
    per_call = base.train.steps_per_call
    steps, chunk = (-(-n // per_call) * per_call for n in (steps, args.chunk))
    return Study(args.out, configs, args.seeds, steps, chunk, about), photographs


def costs(of: Study) -> dict[str, dict]:
    """Parameters, kMAC a pixel and seconds a step of each variant."""
    found = {}
    for name, cfg in of.configs.items():
        report = complexity.report(cfg, 256, 256, memory=False)
        pixels, rates = cfg.train.batch * cfg.train.crop**2, []
        for run in (run for run in of.runs() if run.variant == name):
            lines = (run.folder / "metrics.jsonl").read_text().splitlines()
            rates += [row["pixels_per_second"] for row in map(json.loads, lines) if row.get("pixels_per_second")]
        cost = report["kmac_per_pixel"]
        found[name] = {
            "parameters": report["parameters"],
            "encode": cost["encode"],
            "decode": cost["decode"],
            "seconds_per_step": pixels / statistics.median(rates) if rates else None,
        }
    return found


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    args = parse(argv)
    work.prepare()
    with runtime.usual_settings():
        settled, photographs = settle(args)
        held_out = [x for _, x in data.whole_images(args.valid)]
        study.remember(settled)
        with loop.stop_signals() as asked:
            points = work.do(settled, photographs, held_out, args, asked)
        if points is None:
            training.say(f"stopped; the same command goes on with {args.out}")
            return 130
    result = {
        "study": settled.about | {"steps": settled.steps},
        "machine": machine.describe(),
        "images": len(held_out),
        "qualities": list(args.qualities),
        "rows": tables.rows(points, costs(settled), {name: study.published(name) for name in settled.configs}),
        "points": points,
    }
    names = tables.write(args.out, result)
    print(tables.markdown(result), end="")
    print(f"{args.out}: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    cli.run(main)
