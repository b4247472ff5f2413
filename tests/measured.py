"""Results as `experiments.rd_eval` writes them, made up, for the tests of what reads them."""

import json
from pathlib import Path

import numpy as np

RATES = np.array([0.25, 0.5, 1.0, 2.0])


def write_results(
    folder: Path, codec: str, shift: float, *, names=("a.png", "b.png"), low=30.0, size=(300, 400), **more
):
    """CODEC.json: every doubling of the rate gives 4 dB from `low` up, at 2**(shift / 4) times the rates of shift 0.

    A codec of shift 4 needs twice the bits of one of shift 0, for each image. `more` replaces or adds fields.
    """
    rows = []
    for k, name in enumerate(names):
        for i, rate in enumerate(RATES * 2 ** (shift / 4) * (1 + 0.1 * k)):
            rows.append(
                {"name": name, "quality": 10 * (i + 1), "width": size[1], "height": size[0], "bytes": int(rate * 15000)}
                | {"bpp": rate, "psnr-rgb": low + 4.0 * i, "ms-ssim-rgb": 0.9 + 0.02 * i}
                | {"encoding_time": 0.2 + 0.1 * i, "decoding_time": 0.1}
            )
    keys = ("bpp", "psnr-rgb", "ms-ssim-rgb", "encoding_time", "decoding_time")
    qualities = [10, 20, 30, 40]
    means = {key: [float(np.mean([r[key] for r in rows if r["quality"] == q])) for q in qualities] for key in keys}
    means["ms-ssim-rgb-db"] = [float(-10 * np.log10(1 - value)) for value in means["ms-ssim-rgb"]]
    content = {
        "name": codec.upper(),
        "codec": codec,
        "description": f"{codec} at made-up settings",
        "model_id": None,
        "estimate": False,
        "versions": {"encoder": "1.0"},
        "data": "nowhere",
        "quality": qualities,
        "results": means,
        "protocol": "made up",
        "per_image": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{codec}.json").write_text(json.dumps(content | more))
    return content | more
