"""Whether a model's clusters are alive on a set of pictures, and what they contribute.

    python -m experiments.clusters --data folder:PHOTOS --model clic-compact
    python -m experiments.clusters --data folder:PHOTOS --model clic-compact --replace one grid

The first tells, a stage each: the entropy of the centres' shares of the positions (1: even; 0: one cluster for all),
the share of the largest cluster, and how many heads have dead centres, which less than 1 % of the positions belong to.
The second codes with the assignment replaced as well, without training anew: all positions of a head in its largest
cluster (one), or each in the cluster of its place (grid). Bits are the model's own estimate. --out FILE keeps the
figures; experiments/results/clusters has those of the shipped models on held-out photographs, which experiments.poc
compares with (docs/adapting.md).
"""

import argparse
import dataclasses
import json
import sys

import numpy as np
from tqdm import tqdm

from clic_jax import memory, runtime
from clic_jax.checkpoints import published
from clic_jax.checkpoints.installed import DEFAULT_MODEL
from clic_jax.config import Config
from clic_jax.errors import UserError
from clic_jax.files import atomic
from clic_jax.quality import Quality
from clic_jax.training import data, evaluation
from experiments import bd_rate, cli, machine
from experiments.clusters import health

QUALITIES = (1, 34, 67, 100)
OWN = "own"  # the model's own assignment
REPLACEMENTS = ("one", "grid")  # of ModelConfig.assignment


class NoClusters(UserError):
    """A model that has none, so that there is nothing to tell."""


def parse(argv=None) -> argparse.Namespace:
    """The command line. Raises: SystemExit."""
    parser = argparse.ArgumentParser(
        prog="experiments.clusters", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="sample:valid", help="pictures, as for experiments.train; default sample:valid")
    text = "a name of `clic-jax models`, or a run's folder"
    add("--model", type=cli.expanded, default=DEFAULT_MODEL, help=text)
    add("--replace", nargs="+", choices=REPLACEMENTS, default=[], help="code with such assignments as well")
    add("--out", type=cli.path, metavar="FILE", help="JSON file for the figures")
    return parser.parse_args(argv)


def curve(config: Config, params, photographs: list[np.ndarray], assignment: str) -> dict:
    """{"bpp", "psnr"} at QUALITIES, of the model with that assignment; or its OWN."""
    model = config.model if assignment == OWN else dataclasses.replace(config.model, assignment=assignment)
    lmbdas = [Quality.of(quality).lmbda(model.lmbdas) for quality in QUALITIES]
    bar = tqdm(lmbdas, f"assignment {assignment}", unit="quality", disable=None)
    rows = [evaluation.evaluate(model, params, photographs, [lmbda])[0] for lmbda in bar]
    return {name: [row[name] for row in rows] for name in ("bpp", "psnr")}


def contribution(config: Config, params, photographs: list[np.ndarray], replacements: list[str]) -> dict[str, dict]:
    """`curve` of the model and of each replacement, these with their "bd_rate" in percent against it, or None.

    Raises: NoClusters for one rate, which makes no curve.
    """
    if not config.model.variable_rate:
        raise NoClusters(f"{config.name} has one rate and no curve: leave --replace out")
    found = {name: curve(config, params, photographs, name) for name in (OWN, *replacements)}
    for name in replacements:
        curves = [bd_rate.Curve(which, *map(tuple, found[which].values())) for which in (name, OWN)]
        try:
            found[name]["bd_rate"] = bd_rate.bd_rate(*curves).value
        except bd_rate.NoDifference as error:
            print(error, file=sys.stderr)
            found[name]["bd_rate"] = None
    return found


def table(found: dict[str, dict]) -> list[str]:
    """What `contribution` gives, in Markdown."""
    head = ["assignment", *(f"quality {quality:g}: bpp, dB" for quality in QUALITIES), "BD-rate"]
    rows = [head, ["---"] + ["--:"] * (len(head) - 1)]
    for name, points in found.items():
        rate = points.get("bd_rate")
        pairs = [f"{bpp:.3f}, {psnr:.2f}" for bpp, psnr in zip(points["bpp"], points["psnr"])]
        rows.append([name, *pairs, "0" if name == OWN else "none" if rate is None else f"{rate:+.1f} %"])
    return [f"| {' | '.join(row)} |" for row in rows]


def main(argv=None) -> int:
    """Runs the command line."""
    args = parse(argv)
    runtime.use_cache()
    memory.keep_memory()
    with runtime.usual_settings():
        config, params, model_id = published.load_published(args.model)
        photographs = [x for _, x in data.whole_images(args.data)]
        bar = tqdm(photographs, "clusters", unit="picture", disable=None)
        pictures = health.measure(config.model, params, bar)
        if not pictures[0]:
            raise NoClusters(
                f"{args.model} has no clusters to choose between: model.blocks, model.mixer, model.centers"
            )
        print("\n".join(health.lines(health.mean(pictures))))
        kept = {"model_id": model_id, "machine": machine.describe(), "images": len(pictures)}
        kept |= {"clusters": health.summary(pictures)}
        if args.replace:
            kept["replaced"] = contribution(config, params, photographs, args.replace)
            print("\n".join(table(kept["replaced"])))
    if args.out:
        atomic.write(args.out, (json.dumps(kept, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    cli.run(main)
