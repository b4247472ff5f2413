"""What GuidedPQF gains once its coefficients are paid for, from real streams.

    python -m experiments.pqf_gain --data FOLDER --model clic-compact --out FILE.json

A stream with the filter is the stream without, and the coefficients behind it: one file gives both points. For each
quality: the share of images whose encoder sends coefficients, their bytes, the PSNR they add, and the net gain: how
much lower rate + lmbda * distortion is, as a share of the rate. Images that send none gain nothing and cost nothing;
from `coding.filtering.LMBDA_MAX` on, that is all of them.
"""

import argparse
import json

import numpy as np
from tqdm import tqdm

from clic_jax import api, memory, metrics, runtime
from clic_jax.files import atomic
from clic_jax.quality import Quality
from clic_jax.training import data
from experiments import cli

QUALITIES = (1, 20, 40, 60, 80, 100)


def measure(codec, x: np.ndarray, quality: Quality) -> dict:
    """One image with the filter and without: {"pqf_bytes", "share", "psnr_gain", "net_gain"}; shares of the file."""
    coded, latents = codec.encode(x, quality)
    if coded.pqf_bytes is None:
        return {"pqf_bytes": 0, "share": 0.0, "psnr_gain": 0.0, "net_gain": 0.0}
    h, w = x.shape[:2]
    plain = codec.read(coded.stream, False, coded.check, h, w, quality)  # stops before the coefficients
    shown, bare = (codec.show(v, h, w) for v in (latents, plain))
    bits = 8 * len(coded.stream)
    saved = quality.lmbda(codec.config.model.lmbdas) * (metrics.mse(x, bare) - metrics.mse(x, shown)) * h * w
    return {
        "pqf_bytes": coded.pqf_bytes,
        "share": coded.pqf_bytes / len(coded.stream),
        "psnr_gain": float(metrics.psnr(x, shown) - metrics.psnr(x, bare)),
        "net_gain": float(saved - 8 * coded.pqf_bytes) / bits,
    }


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.pqf_gain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=cli.expanded, help="a folder of photographs")
    parser.add_argument("--model", type=cli.expanded, help="a name of `clic-jax models`, or a published folder")
    parser.add_argument("--qualities", type=float, nargs="+", default=QUALITIES, help="1 to 100")
    parser.add_argument("--out", type=cli.path, help="a JSON file")
    args = parser.parse_args(argv)
    qualities = [Quality.of(quality) for quality in args.qualities]
    runtime.use_cache()
    memory.keep_memory()
    codec, rows = api.open_model(args.model), []
    photographs = list(data.whole_images(f"folder:{args.data}"))
    for quality in tqdm(qualities, unit="quality", disable=None):
        parts = [measure(codec, x, quality) for _, x in photographs]
        mean = {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}
        used = sum(part["pqf_bytes"] > 0 for part in parts)
        rows.append({"quality": float(quality), "images": len(parts), "used": used} | mean)
        print(
            "quality {quality:5g}: {used} of {images} images, {pqf_bytes:.0f} bytes, "
            "{psnr_gain:+.4f} dB, net gain {net_gain:.3%} of the rate".format(**rows[-1])
        )
    if args.out:
        atomic.write(args.out, json.dumps({"model_id": codec.model_id, "rows": rows}, indent=1).encode())
    return 0


if __name__ == "__main__":
    cli.run(main)
