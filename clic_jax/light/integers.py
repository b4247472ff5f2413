"""The integer networks of a model as arrays in one file, so that a codec need not make them of float parameters."""

import io
import zipfile

import numpy as np

from clic_jax.coding.fixedpoint import FixedContext, Layer, Stack
from clic_jax.config import ModelConfig

GROUPS = ("hyper", "channel", "spatial", "parameters")  # of stacks, in `FixedContext`


class StoredContext(FixedContext):
    """`FixedContext` from `unpacked` arrays."""

    def __init__(self, config: ModelConfig, arrays: dict[str, np.ndarray]):
        self.config = config
        stacks: dict[str, list] = {group: [] for group in GROUPS}
        for group in GROUPS:
            while f"{group}/{len(stacks[group])}/activations" in arrays:
                stacks[group].append(_stack(arrays, f"{group}/{len(stacks[group])}"))
        self.hyper, self.channel, self.spatial, self.parameters = stacks.values()


def packed(context: FixedContext, **more: np.ndarray) -> bytes:
    """An .npz of all integers of the networks, each activation's table once, and of `more` arrays."""
    arrays, tables = dict(more), {}
    for group in GROUPS:
        for i, stack in enumerate(getattr(context, group)):
            for j, layer in enumerate(stack.layers):
                arrays |= {f"{group}/{i}/{j}/{name}": np.asarray(value) for name, value in layer._asdict().items()}
            numbers = [tables.setdefault(table.tobytes(), len(tables)) for table in stack.tables]
            arrays[f"{group}/{i}/activations"] = np.asarray(numbers, np.int64)
    for table, number in tables.items():
        arrays[f"table/{number}"] = np.frombuffer(table, np.int16)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def unpacked(data: bytes, most: int) -> dict[str, np.ndarray]:
    """What `packed` made a file of. Raises: ValueError and others for one that is damaged or unfolds to over `most`."""
    if sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(data)).infolist()) > most:
        raise ValueError(f"network.npz unfolds to more than {most} bytes")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _stack(arrays, prefix: str) -> Stack:
    layers = []
    while f"{prefix}/{len(layers)}/kernel" in arrays:
        layers.append(Layer(*(arrays[f"{prefix}/{len(layers)}/{name}"] for name in Layer._fields)))
    return Stack(tuple(layers), tuple(arrays[f"table/{number}"] for number in arrays[f"{prefix}/activations"]))
