"""The main job in two minutes: train `tiny` on sample photographs, save, reload, code a held-out photograph, draw the
result.

python -m experiments.demo [--seconds 120] [--out demo]
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

import clic_jax
from clic_jax import compilation, data, evaluation
from experiments import cli, train

LMBDA = 0.0067


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
    config = Path(__file__).parent / "configs" / "tiny.py"
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
    compilation.use_cache()
    model, params = clic_jax.load(run / "published")
    ((name, x),) = data.whole_images("sample:valid")
    (row,) = evaluation.evaluate(model.config, params, [x], [LMBDA])
    x_hat, _ = evaluation.reconstruct(model.config, params, x, LMBDA)
    Image.fromarray(np.concatenate([x, x_hat], axis=1)).save(args.out / "before_after.png")
    print(
        f"held-out photograph {name}: {row['bpp']:.3f} bpp (estimated), {row['psnr']:.2f} dB; "
        "original and coded side by side: "
        f"{args.out / 'before_after.png'}"
    )
    return 0


if __name__ == "__main__":
    cli.run(main)
