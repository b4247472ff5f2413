"""Turns a training run into published weights: averaged parameters, and the integers that its files are coded with.

    python -m experiments.publish runs/compact --data folder:PHOTOS --out clic_jax/weights/clic-compact --half

A finished run publishes itself to RUN/published; this command publishes one that still runs, or in half precision, to
ship.
"""

import argparse
import shutil
from pathlib import Path

import jax
import numpy as np

from clic_jax import config, runtime
from clic_jax.checkpoints import published
from clic_jax.coding import measured
from clic_jax.training import data
from experiments import cli

CALIBRATION_PIXELS = 64 * 256**2  # that ranges of the integer networks and counts of symbols are measured on


def publish(folder: Path, cfg: config.Config, params, crops, metrics: dict, half: bool = False) -> str:
    """Writes (or replaces) a published folder; returns the model id.

    Args:
      crops: function (n, size) -> uint8 [n, size, size, 3] of training photographs.
      half: round the parameters to float16; what is measured, coded and loaded later are the rounded ones.
    """
    if half:
        params = jax.tree.map(lambda x: np.float32(np.float16(x)), params)
    size = cfg.train.crop
    integers = measured.measure(cfg.model, params, crops(max(8, CALIBRATION_PIXELS // size**2), size))
    if folder.exists():
        shutil.rmtree(folder)
    return published.save_published(folder, cfg, params, metrics, coding=integers, half=half)


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.publish", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a training run's folder; its newest checkpoint is taken")
    parser.add_argument("--data", default="sample", help="photographs to measure ranges and counts on, as for training")
    parser.add_argument("--out", type=Path, required=True, help="the published folder, replaced if it exists")
    parser.add_argument("--half", action="store_true", help="store float16: half the size")
    args = parser.parse_args(argv)
    runtime.use_cache()
    cfg, params, _ = published.load_published(args.run)
    photos = data.load_photos(args.data, min_size=cfg.train.crop)

    def crops(n, size):
        return np.asarray(data.random_crops(photos, jax.random.key(cfg.train.seed), batch=n, size=size))

    identity = publish(args.out, cfg, jax.device_get(params), crops, {}, args.half)
    print(f"{args.out}: model {identity}")
    return 0


if __name__ == "__main__":
    cli.run(main)
