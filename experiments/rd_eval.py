"""Rate and distortion of a model on a folder of photographs, one JSON in the CompressAI results schema.

    python -m experiments.rd_eval --data FOLDER --model clic-tiny --out results
    python -m experiments.rd_eval --data FOLDER --model runs/mine --estimate --out results       bits of the model, no
    files

Protocol: per image first, then the mean; bpp is the length of the real file over the image's own pixels; PSNR is of the
8-bit RGB image that the file decodes to. `--estimate` counts the float model's bits instead, and the JSON says so.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from clic_jax import api, coding, compilation, data, evaluation, files, memory, metrics, published
from clic_jax.errors import UserError
from experiments import cli

QUALITIES = (1, 20, 40, 60, 80, 100)


def measure_file(model: str, x: np.ndarray, quality: float) -> dict:
    """bpp, psnr-rgb and seconds of one image through a real file in memory."""
    begin = time.perf_counter()
    content = api.compress(x, quality=quality, model=model)
    middle = time.perf_counter()
    x_hat = api.decompress(content, model=model)
    end = time.perf_counter()
    return {
        "bytes": len(content),
        "bpp": 8 * len(content) / (x.shape[0] * x.shape[1]),
        "psnr-rgb": float(metrics.psnr(x, x_hat)),
        "encoding_time": middle - begin,
        "decoding_time": end - middle,
    }


def measure_bits(config, params, x: np.ndarray, quality: float) -> dict:
    """bpp and psnr-rgb of one image from the model's own bit count."""
    lmbda = coding.quality_lmbda(config.model, coding.check_quality(quality))
    x_hat, bits = evaluation.reconstruct(config.model, params, x, lmbda)
    return {"bpp": bits / (x.shape[0] * x.shape[1]), "psnr-rgb": float(metrics.psnr(x, x_hat))}


def summary(rows: list[dict], qualities) -> dict:
    """The mean over images at each quality, as lists."""
    points = [[row for row in rows if row["quality"] == quality] for quality in qualities]
    keys = [key for key in points[0][0] if key not in ("name", "quality", "bytes")]
    return {key: [float(np.mean([row[key] for row in point])) for point in points] for key in keys}


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.rd_eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a folder of photographs")
    parser.add_argument("--model", required=True, help="a name of `clic-jax models`, or a published folder")
    parser.add_argument("--qualities", type=float, nargs="+", default=QUALITIES, help="1 to 100")
    parser.add_argument("--estimate", action="store_true", help="count the model's bits instead of bytes of files")
    parser.add_argument("--out", type=Path, required=True, help="folder for NAME.json")
    args = parser.parse_args(argv)
    compilation.use_cache()
    memory.keep()
    config, params, model_id = published.load_published(args.model)
    if not config.model.variable_rate:
        raise UserError(f"{args.model} has one rate only; qualities need a model with several model.lmbdas")
    photographs = list(data.whole_images(f"folder:{args.data}"))
    rows = []
    for name, x in tqdm(photographs, unit="image", disable=None):
        for quality in args.qualities:
            part = measure_bits(config, params, x, quality) if args.estimate else measure_file(args.model, x, quality)
            rows.append({"name": name, "quality": quality} | part)
    result = {
        "name": f"clic_jax {config.name}" + (" (estimate)" if args.estimate else ""),
        "description": "bits estimated by the model, no files" if args.estimate else "bytes of files",
        "model_id": model_id,
        "quality": list(args.qualities),
        "results": summary(rows, args.qualities),
        "per_image": rows,
        "protocol": "bpp and 8-bit RGB PSNR of each image, then the mean over images",
        "jax": jax.__version__,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{config.name}{'-estimate' if args.estimate else ''}.json"
    files.write_atomically(path, json.dumps(result, indent=1).encode())
    for quality, bpp, psnr in zip(args.qualities, result["results"]["bpp"], result["results"]["psnr-rgb"]):
        print(f"quality {quality:5g}  {bpp:.4f} bpp  {psnr:.3f} dB")
    print(f"{path}: {len(photographs)} images, model {model_id}")
    return 0


if __name__ == "__main__":
    cli.run(main)
