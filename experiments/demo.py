"""The main job in two minutes: train `tiny` on sample photographs, save, reload, write a held-out
photograph as a .clic file, read it back, draw the result.

    python -m experiments.demo [--seconds 120] [--out demo]
"""

import argparse
import shutil
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import clic_jax
from clic_jax import metrics
from clic_jax.files import atomic
from clic_jax.training import data
from experiments import cli
from experiments.paths import CONFIGS
from experiments.train import __main__ as train

QUALITY = 40


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120, help="training time")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        help="folder for the run and the picture; an old demo there is replaced",
    )
    args = parser.parse_args(argv)
    run = args.out / "run"
    if run.exists():
        shutil.rmtree(run)
    config = CONFIGS / "tiny.py"
    status = train.main(
        [
            "--config",
            str(config),
            "--data",
            "sample",
            "--valid",
            "none",
            "--out",
            str(run),
            "--max-seconds",
            str(args.seconds),
            "--set",
            "train.warmup=50",
        ]
    )
    if status:
        return status
    published = run / "published"
    model, params = clic_jax.load(published)  # what any program does that wants the network itself
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    ((name, x),) = data.whole_images("sample:valid")
    coded = clic_jax.compress(x, quality=QUALITY, model=published)
    atomic.write(args.out / "photo.clic", coded)
    x_hat = clic_jax.decompress((args.out / "photo.clic").read_bytes(), model=published)
    Image.fromarray(np.concatenate([x, x_hat], axis=1)).save(args.out / "before_after.png")
    print(
        f"held-out photograph {name}, {model.config.latent_channels} latent channels, {count:,} parameters: "
        f"{len(coded)} bytes, {8 * len(coded) / (x.shape[0] * x.shape[1]):.3f} bpp, {metrics.psnr(x, x_hat):.2f} dB; "
        f"original and decoded side by side in {args.out / 'before_after.png'}"
    )
    return 0


if __name__ == "__main__":
    cli.run(main)
