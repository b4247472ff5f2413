"""Published folders made of parameters: averaged by a training run, or converted; what files need is measured here."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import numpy as np

from clic_jax import config
from clic_jax.checkpoints import installed, published
from clic_jax.checkpoints.arrays import CheckpointError
from clic_jax.coding import measured
from clic_jax.files import atomic
from clic_jax.training import data

CALIBRATION_PIXELS = 64 * 256**2  # that ranges of the integer networks and counts of symbols are measured on


def publish(
    folder: Path,
    cfg: config.Config,
    params,
    crops: Callable[[int, int], np.ndarray],
    metrics: dict,
    half: bool = False,
    pixels: int | None = None,
    watch: Callable[[range], Iterable] = iter,
) -> str:
    """Writes a published folder, or replaces one, once the new one is complete; returns the model id.

    Args:
      crops: function (n, size) -> uint8 [n, size, size, 3] of photographs, such as `crops_of`.
      half: round the parameters to float16; what is measured, coded and loaded later are the rounded ones.
      pixels: that the integers are measured on, CALIBRATION_PIXELS where None.
      watch: as `measured.measure` takes it.
    Raises: CheckpointError for a folder that holds anything else, or a released model, which never changes.
    """
    check_replaceable(folder)
    if half:
        params = jax.tree.map(lambda x: np.float32(np.float16(x)), params)
    size = cfg.train.crop
    count = max(8, (CALIBRATION_PIXELS if pixels is None else pixels) // size**2)
    integers = measured.measure(cfg.model, params, crops(count, size), watch)
    with atomic.new_folder(folder) as new:
        return published.save_published(new, cfg, params, metrics, coding=integers, half=half)


def crops_of(spec: str, cfg: config.Config) -> Callable[[int, int], np.ndarray]:
    """Crops of the photographs that `spec` names as for training. Raises: DataError."""
    photos = data.load_photos(spec, min_size=cfg.train.crop)

    def crops(n, size):
        return np.asarray(data.random_crops(photos, jax.random.key(cfg.train.seed), batch=n, size=size))

    return crops


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
