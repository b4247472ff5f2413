"""A published model as JavaScript reads it: model.json, all arrays one after the other, and the ONNX graphs.

The arrays are those of the runtime without JAX (`clic_jax.light`), whose hashes are checked as they are read: integer
networks, with kernels as rows of their taps that are not zero, probability tables as the edges between their symbols,
and gains.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clic_jax.checkpoints.installed import folder_of
from clic_jax.coding import coefficients, range_coder
from clic_jax.coding.fixedpoint import INDEX_BITS, Layer, Stack, alive_taps
from clic_jax.coding.tables import TOTAL, Table
from clic_jax.errors import UserError
from clic_jax.light import integers, programs
from clic_jax.runtimes import EXPORTED, FOLDER
from clic_jax.scales import LOG_MIN, LOG_STEP

ARRAYS = "arrays.bin"


def files(name_or_path: str | Path) -> tuple[str, dict[str, bytes]]:
    """(model id, {name: contents}) of what the page needs of a model: model.json, which names the others' hashes.

    Raises: NoModel; CheckpointError for a folder whose hashes are wrong; UserError for a model that is not exported, or
      of a kind that the page does not compute.
    """
    folder = folder_of(name_or_path)
    if not (folder / EXPORTED).exists():
        raise UserError(f"{folder} is not exported: clic-jax export {folder}")
    codec = programs.load(folder)
    config = codec.config.model
    if not config.log_scale:
        raise UserError(f"{folder} predicts scales as they are, not their logarithms: the page cannot decode with it")
    if codec.programs.context.hyper[0].layers[0].kernel.shape[-2] != len(codec.prior):
        raise UserError(
            f"{folder} has a prior with medians, as the authors' models have: the page cannot decode with it"
        )
    arrays = _Arrays()
    about = {
        "id": codec.model_id,
        "groups": config.groups,
        "sees_all": config.channel_support == "all",
        "subpixel": codec.programs.context.subpixel,
        "feature": bool(config.feature_channels),
        "pqf_basis": config.pqf_basis if config.pqf != "none" else 0,
        "log_step": LOG_STEP,
        "scale_offset": round(LOG_MIN / LOG_STEP * 2**INDEX_BITS),
        "least_bits": sum(map(range_coder.least_bits, codec.prior)),
        "log_gain": arrays.add(codec.params["log_gain"]) if config.variable_rate else None,
        "log_inverse_gain": arrays.add(codec.params["log_inverse_gain"]) if config.variable_rate else None,
        "stacks": {
            group: [_stack(stack, arrays) for stack in getattr(codec.programs.context, group)]
            for group in integers.GROUPS
        },
        "prior": [_table(table, arrays) for table in codec.prior],
        "tables": [[_table(table, arrays) for table in part] for part in codec.tables],
        "coefficients": _table(coefficients.table(), arrays),
    }
    graphs = ["g_s", *(["feature"] if about["feature"] else []), *(["maps"] if about["pqf_basis"] else [])]
    found = {ARRAYS: arrays.bytes()} | {f"{n}.onnx": (folder / FOLDER / f"{n}.onnx").read_bytes() for n in graphs}
    about["integrity"] = {name: integrity(content) for name, content in found.items()}
    return codec.model_id, found | {"model.json": json.dumps(about).encode()}


def integrity(content: bytes) -> str:
    """The hash as browsers compare it (Subresource Integrity)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content).digest()).decode()


class _Arrays:
    """Arrays one after the other, each once."""

    def __init__(self):
        self.parts, self.size, self.known = [], 0, {}

    def add(self, array: np.ndarray) -> list:
        """[type, offset in bytes, length]."""
        array = np.ascontiguousarray(array)
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        kind = array.dtype.str[1:]
        if (kind, data) not in self.known:
            self.known[kind, data] = [kind, self.size, array.size]
            self.parts.append(data + bytes(-len(data) % 8))
            self.size += len(self.parts[-1])
        return self.known[kind, data]

    def bytes(self) -> bytes:
        return b"".join(self.parts)


def _stack(stack: Stack, arrays: _Arrays) -> list[dict]:
    tables = [*map(arrays.add, stack.tables), None]
    return [layer(one, arrays.add) | {"activation": table} for one, table in zip(stack.layers, tables, strict=True)]


def layer(layer: Layer, add: Callable[[np.ndarray], list]) -> dict:
    """A layer as `integers.js` has it; add: array -> what stands for it."""
    kernels = [kernel if kernel.ndim == 4 else kernel[None, None] for kernel in (layer.kernel, layer.fine)]
    size, inputs, outputs = len(kernels[0]), *kernels[0].shape[2:]
    taps = alive_taps(np.concatenate(kernels, -1))
    rows = [np.concatenate([kernel[tap] for tap in taps]).T for kernel in kernels]  # [out, taps * in]
    if max(layer.shift.max(), layer.drop.max()) > 31 or min(layer.shift.min(), layer.drop.min()) < -31:
        raise UserError("it shifts by more than 31 bits, which JavaScript cannot: the page cannot decode with it")
    return {
        "taps": [(int(i - size // 2), int(j - size // 2)) for i, j in taps],
        "inputs": inputs,
        "outputs": outputs,
        **dict(zip(("kernel", "fine"), map(add, rows))),
        **{name: add(np.int32(getattr(layer, name))) for name in ("bias", "shift", "drop")},
    }


def _table(table: Table, arrays: _Arrays) -> dict:
    edges = np.concatenate([[0], np.cumsum(table.freq)]).astype(np.uint32)
    assert edges[-1] == TOTAL
    return {"first": table.first, "edges": arrays.add(edges)}
