"""Checkpoints of the authors' PyTorch models as published folders, which code pictures: without PyTorch."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from clic_jax.checkpoints import inferred, reference, torch_files
from clic_jax.checkpoints.arrays import flat
from clic_jax.checkpoints.explained import CheckpointError, explained
from clic_jax.checkpoints.limits import check_arrays
from clic_jax.coding import measured
from clic_jax.config import PAPER, Config, ConfigError
from clic_jax.errors import UserError
from clic_jax.exchange import publish, tensors
from clic_jax.settings import from_json, to_json

LMBDAS = {"mse": 0.0130, "ms-ssim": 16.64}  # where the user does not say: those of experiments/configs


def convert(
    checkpoint: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    data: str = "sample",
    lmbda: float | None = None,
    metric: str = "mse",
    watch: Callable[[range], Iterable] = iter,
) -> tuple[Config, str]:
    """Makes a published folder of a state dict of the authors' CLIC or CLIC_base; returns its config and model id.

    Args:
      checkpoint: a file of torch.save (`torch_files.read_state`) or safetensors.
      folder: must not exist; it appears complete or not at all.
      data: photographs to measure what files are coded with on, as for training (`training.sources`).
      lmbda, metric: what it was trained for, which no checkpoint says. They decide when GuidedPQF pays, and what a
        fallback may cost; the rate is that of the weights.
      watch: wraps the range of what is measured, to show progress.
    Raises: CheckpointError, naming all that is missing, misshapen or too much; UnsafeCheckpoint; DataError.
    """
    checkpoint, folder = Path(checkpoint), Path(folder).absolute()
    if folder.exists():
        raise CheckpointError(f"{folder} exists: delete it first, or name another --out")
    lmbda = LMBDAS[metric] if lmbda is None else lmbda
    if not 0 < lmbda < np.inf:
        raise ConfigError(f"lmbda must be positive, not {lmbda:g}")
    train = dataclasses.replace(PAPER.train, metric=metric)
    state = read(checkpoint)
    with explained(f"cannot convert {checkpoint}", UserError):
        model = inferred.inferred({name: array.shape for name, array in state.items()}, lmbda)
        name = "clic" if model.pqf != "none" else "clic-base"
        config = from_json(to_json(Config(name, model, train)))  # of sizes that a model can have
        shapes = functools.cache(lambda: flat(measured.parameters(config.model)))
        try:
            params = reference.from_reference(state, model, lambda: {path: x.shape for path, x in shapes().items()})
        except reference.OtherModel as error:
            text = f"{checkpoint} is no checkpoint of the authors' CLIC or CLIC_base"
            raise CheckpointError(f"{text}: {error}") from None
        check_arrays(shapes(), flat(params))
    about = {"converted_from": checkpoint.name}
    return config, publish.publish(folder, config, params, publish.crops_of(data, config), about, watch=watch)


def read(checkpoint: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict in either format. Raises: as `torch_files.read_state` and `tensors.read`."""
    if tensors.is_one(checkpoint):
        return tensors.read(checkpoint)
    return torch_files.read_state(checkpoint)
