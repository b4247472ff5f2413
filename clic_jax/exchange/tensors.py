"""Arrays by name in files of safetensors, with its own package."""

import importlib.util
import os
from pathlib import Path

import numpy as np

from clic_jax.checkpoints.explained import CheckpointError, explained
from clic_jax.checkpoints.limits import MAX_WEIGHTS
from clic_jax.errors import UserError

REMEDY = "pip install safetensors, or clic_jax[weights]"


class NoSafetensors(UserError):
    """The package safetensors is not installed."""


def is_one(path: Path) -> bool:
    """Whether a file begins as they do: with the length of a JSON object, and that. Raises: OSError."""
    with open(path, "rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < os.path.getsize(path)


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, by name, but for the prefix `module.`; bfloat16 as float32.

    Raises: NoSafetensors; CheckpointError for a damaged file, or one of more than MAX_WEIGHTS bytes.
    """
    check()
    with explained(f"cannot read {path} (it is damaged, or cut off)", UserError):
        if path.stat().st_size > MAX_WEIGHTS:
            raise CheckpointError(f"{path} has more than {MAX_WEIGHTS} bytes")
        import ml_dtypes  # noqa: F401  (from then on NumPy knows bfloat16)
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}
    if all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): array for name, array in found.items()}
    wide = {name: array.astype(np.float32) for name, array in found.items() if array.dtype.name == "bfloat16"}
    return found | wide


def metadata(path: Path) -> dict[str, str]:
    """What a file says of itself; nothing if it is damaged. Raises: NoSafetensors."""
    check()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def packed(arrays: dict[str, np.ndarray], about: dict[str, str]) -> bytes:
    """A file of arrays by name. Raises: NoSafetensors."""
    check()
    from safetensors.numpy import save

    return save({name: np.array(array, order="C") for name, array in arrays.items()}, about)


def check():
    """Raises: NoSafetensors."""
    if importlib.util.find_spec("safetensors") is None:
        raise NoSafetensors(f"safetensors, which this needs, is not installed: {REMEDY}")
