"""Rate and distortion of a model on a folder of photographs, one JSON in the CompressAI results schema.

    python -m experiments.rd_eval --data FOLDER --model runs/tiny --estimate --out results

Protocol: per image first, then the mean; PSNR of the 8-bit RGB image; bpp over the image's own pixels. `--estimate`
counts the model's bits: no file is written, and the JSON says so.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from clic_jax import compilation, data, evaluation, memory, published
from clic_jax.errors import UserError
from experiments import cli


def measure(config, params, photographs, lmbdas) -> list[dict]:
    """One row an image and lmbda: {"name", "lmbda", "bpp", "psnr-rgb"}."""
    rows = []
    for name, x in tqdm(photographs, unit="image", disable=None):
        for lmbda in lmbdas:
            row, *_ = evaluation.evaluate(config, params, [x], [lmbda])
            rows.append({"name": name, "lmbda": lmbda, "bpp": row["bpp"], "psnr-rgb": row["psnr"]})
    return rows


def summary(rows: list[dict], lmbdas) -> dict:
    """The mean over images at each lmbda, as lists."""
    points = [[row for row in rows if row["lmbda"] == lmbda] for lmbda in lmbdas]
    return {key: [float(np.mean([row[key] for row in point])) for point in points] for key in ("bpp", "psnr-rgb")}


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.rd_eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a folder of photographs")
    parser.add_argument("--model", required=True, help="published weights: a name, or a folder such as runs/tiny")
    parser.add_argument("--lmbda", type=float, nargs="+", help="operating points; the model's where not given")
    parser.add_argument("--estimate", action="store_true", help="count the model's bits instead of bytes of files")
    parser.add_argument("--out", type=Path, required=True, help="folder for MODEL.json")
    args = parser.parse_args(argv)
    if not args.estimate:
        raise UserError("there is no file format yet: add --estimate to count the model's bits")
    compilation.use_cache()
    memory.keep()
    config, params, model_id = published.load_published(args.model)
    lmbdas = tuple(args.lmbda or config.model.lmbdas)
    low, high = config.model.lmbdas[0], config.model.lmbdas[-1]
    if not all(low <= lmbda <= high for lmbda in lmbdas):
        raise UserError(f"--lmbda must lie within {low:g} and {high:g}, which {args.model} was trained for")
    photographs = list(data.whole_images(f"folder:{args.data}"))
    rows = measure(config.model, params, photographs, lmbdas)
    result = {
        "name": f"clic_jax {config.name}",
        "description": "bits estimated by the model, no files" if args.estimate else "bytes of files",
        "model_id": model_id,
        "lmbda": lmbdas,
        "results": summary(rows, lmbdas),
        "per_image": rows,
        "protocol": "8-bit RGB PSNR and bpp of each image, then the mean over images",
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{config.name}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1))
    os.replace(temporary, path)
    for lmbda, bpp, psnr in zip(lmbdas, *result["results"].values()):
        print(f"lmbda {lmbda:.4f}  {bpp:.4f} bpp  {psnr:.3f} dB")
    print(f"{path}: {len(photographs)} images, model {model_id}")
    return 0


if __name__ == "__main__":
    cli.run(main)
