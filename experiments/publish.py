"""Turns a training run into published weights: averaged parameters, and the integers that its files are coded with.

    python -m experiments.publish runs/compact --data folder:PHOTOS --out clic_jax/weights/clic-compact --half

A finished run publishes itself to RUN/published; this command publishes one that still runs, or in half precision, to
ship.
"""

import argparse
from pathlib import Path

import jax

from clic_jax import runtime, settings
from clic_jax.checkpoints import published
from clic_jax.exchange.publish import check_replaceable, crops_of, publish
from clic_jax.light import export
from experiments import cli


def add_light(folder: Path) -> None:
    """Exports a published folder for the runtime onnx, or says how it can be, or why it cannot."""
    if reason := export.unsupported(settings.from_json((folder / "config.json").read_text()).model):
        print(f"not exported for the runtime onnx: it has {reason}")
    elif export.possible():
        export.write(folder)
    else:
        print(f"not exported for the runtime onnx: {export.REMEDY}, then clic-jax export {folder}")


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.publish", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=cli.expanded, help="a training run's folder; its newest checkpoint is taken")
    parser.add_argument("--data", default="sample", help="photographs to measure ranges and counts on, as for training")
    parser.add_argument("--out", type=cli.path, required=True, help="the published folder; replaced if it is one")
    parser.add_argument("--half", action="store_true", help="store float16: half the size")
    args = parser.parse_args(argv)
    runtime.use_cache()
    check_replaceable(args.out)
    cfg, params, _ = published.load_published(args.run)
    identity = publish(args.out, cfg, jax.device_get(params), crops_of(args.data, cfg), {}, args.half)
    print(f"{args.out}: model {identity}")
    add_light(args.out)
    return 0


if __name__ == "__main__":
    cli.run(main)
