"""Turns a training run into published weights: averaged parameters, and the integers that its files are coded with.

    python -m experiments.publish runs/compact --data folder:PHOTOS --out clic_jax/weights/clic-compact --half

A finished run publishes itself to RUN/published; this command publishes one that still runs, or in half precision, to
ship.
"""

import argparse
import json
import tempfile
from pathlib import Path

import jax
import numpy as np

from clic_jax import config, runtime
from clic_jax.checkpoints import installed, published
from clic_jax.checkpoints.arrays import CheckpointError
from clic_jax.coding import measured
from clic_jax.light import export
from clic_jax.training import data
from experiments import cli

CALIBRATION_PIXELS = 64 * 256**2  # that ranges of the integer networks and counts of symbols are measured on


def publish(
    folder: Path, cfg: config.Config, params, crops, metrics: dict, half: bool = False, pixels: int | None = None
) -> str:
    """Writes a published folder, or replaces one, once the new one is complete; returns the model id.

    Args:
      crops: function (n, size) -> uint8 [n, size, size, 3] of training photographs.
      half: round the parameters to float16; what is measured, coded and loaded later are the rounded ones.
      pixels: that the integers are measured on, CALIBRATION_PIXELS where None.
    Raises: CheckpointError for a folder that holds anything else, or a released model, which never changes.
    """
    check_replaceable(folder)
    if half:
        params = jax.tree.map(lambda x: np.float32(np.float16(x)), params)
    size = cfg.train.crop
    count = max(8, (CALIBRATION_PIXELS if pixels is None else pixels) // size**2)
    integers = measured.measure(cfg.model, params, crops(count, size))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.absolute().parent) as beside:
        identity = published.save_published(Path(beside) / "new", cfg, params, metrics, coding=integers, half=half)
        if folder.exists():
            folder.rename(Path(beside) / "old")
        (Path(beside) / "new").rename(folder)
    return identity


def check_replaceable(folder: Path) -> None:
    """Raises: CheckpointError where publishing to `folder` would destroy something else than unreleased weights."""
    if not folder.exists():
        return
    try:
        identity = json.loads((folder / "checkpoint.json").read_text())["model_id"]
    except (OSError, ValueError, LookupError, TypeError):
        raise CheckpointError(f"{folder} is there and holds no published model: name another --out") from None
    if identity in {row["id"] for row in installed.released()}:
        raise CheckpointError(f"{folder} holds the released model {identity}, which never changes: name another --out")


def add_light(folder: Path) -> None:
    """Exports a published folder for the runtime onnx, or says how it can be."""
    if export.possible():
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
    photos = data.load_photos(args.data, min_size=cfg.train.crop)

    def crops(n, size):
        return np.asarray(data.random_crops(photos, jax.random.key(cfg.train.seed), batch=n, size=size))

    identity = publish(args.out, cfg, jax.device_get(params), crops, {}, args.half)
    print(f"{args.out}: model {identity}")
    add_light(args.out)
    return 0


if __name__ == "__main__":
    cli.run(main)
