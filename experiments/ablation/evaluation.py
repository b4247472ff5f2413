"""Rate and distortion of a trained run on held-out photographs: real files, or the model's own count of bits."""

import dataclasses
import functools
import json
from collections.abc import Callable

import numpy as np

from clic_jax import api, metrics, runtime
from clic_jax.checkpoints import published
from clic_jax.coding import codec, compiled, fixedpoint, measured
from clic_jax.coding.programs import Programs
from clic_jax.config import Config
from clic_jax.errors import UserError
from clic_jax.files import atomic
from clic_jax.model.checkerboard import merge
from clic_jax.model.schedule import anchor_step, other_step
from clic_jax.quality import Quality
from clic_jax.training import evaluation
from experiments.ablation.study import Run

POINTS = "points.json"
CALIBRATION_PIXELS = 2**20  # a quarter of what publishing looks at: all runs alike
FILES, ESTIMATE = "files", "estimate"  # what a rate is of


def evaluate(
    run: Run, cfg: Config, photographs: list[np.ndarray], qualities: list[float], crops: Callable, estimate: bool
) -> dict:
    """The points of a run: {"rates", "why", "quality", "bpp", "psnr"}; kept in its folder, and measured once.

    Args:
      photographs: uint8 [H, W, 3] each.
      crops: (n, size) -> uint8 [n, size, size, 3] of training photographs, which the tables of files are measured on.
      estimate: bits that the model counts, which need no table; so it is for a graph that cannot be coded ("why").
    """
    path, asked = run.folder / POINTS, {"step": run.step, "quality": qualities, "estimate": estimate}
    if path.exists() and (kept := json.loads(path.read_text()))["asked"] == asked:
        return kept
    params, why, code = published.load_published(run.folder)[1], "", None
    if not estimate:
        try:
            code = of_files(cfg, params, crops)
        except UserError as error:
            why = str(error)
    points = []
    for quality in map(Quality.of, qualities):
        if code is None:
            lmbda = quality.lmbda(cfg.model.lmbdas)
            found = [(x, *evaluation.reconstruct(cfg.model, params, x, lmbda)) for x in photographs]
        else:
            found = [(x, *code(x, quality)) for x in photographs]
        bpp = float(np.mean([bits / (x.shape[0] * x.shape[1]) for x, _, bits in found]))
        points.append((bpp, float(np.mean([metrics.psnr(x, x_hat) for x, x_hat, _ in found]))))
    bpp, psnr = zip(*points)
    rates = ESTIMATE if code is None else FILES
    result = {"asked": asked, "rates": rates, "why": why, "quality": qualities, "bpp": bpp, "psnr": psnr}
    atomic.write(path, json.dumps(result).encode())
    return result


def of_files(cfg: Config, params, crops: Callable) -> Callable:
    """(x uint8 [H, W, 3], Quality) -> (x_hat as decoded, bits of the .clic file). Raises: UserError."""
    size = cfg.train.crop
    integers = measured.measure(cfg.model, params, crops(max(8, CALIBRATION_PIXELS // size**2), size))
    coder = codec.Codec(cfg, params, "00000000", integers, programs=programs(cfg, params, integers))

    def code(x, quality):
        data = api.compress(x, quality=quality, model=coder)
        return api.decompress(data, model=coder), 8 * len(data)

    return code


def programs(cfg: Config, params, integers: dict) -> Programs:
    """Those of JAX with the integers in NumPy: they are constants of each run, and JAX would compile them for each."""
    base = compiled.programs(cfg.model, params, integers["exponents"])
    context: fixedpoint.FixedContext = base.context

    def quantise(*args):
        return tuple(np.asarray(value) for value in base.quantise(*args))

    return dataclasses.replace(
        base,
        steps=(functools.partial(anchor_step, context), functools.partial(other_step, context), merge),
        features=lambda z: context.features(np.asarray(z)),
        quantise=quantise,
        table_index=lambda *args: np.asarray(base.table_index(*args)),
        dequantise=lambda *args: np.asarray(base.dequantise(*args)),
    )


def forget() -> None:
    """Gives the programs of a variant back."""
    runtime.release_memory(programs=True)
