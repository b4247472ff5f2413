"""Arrays on disk by orbax: training states, and ids of what is stored, with errors of one line.

Orbax is imported here alone, when a checkpoint is first opened. Nothing needs the device mesh of the writer.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clic_jax import runtime
from clic_jax.checkpoints.explained import CheckpointError, explained
from clic_jax.config import Config
from clic_jax.settings import from_json

STEP_REMEDY = "if it is damaged, delete that folder to go on from an earlier step"


def model_id(params: Any, coding: dict | None = None) -> str:
    """8 hex digits that change with any name, dtype, shape or bit of `params`, and not with the order of its dicts.

    With `coding` (the integers of `clic_jax.coding.measured.measure`, that files are coded with) with those as well.
    """
    digest = hashlib.sha256(b"" if coding is None else json.dumps(coding, sort_keys=True).encode())
    for path, array in sorted(jax.tree.map(np.asarray, flat(params)).items()):
        digest.update(f"{path} {array.dtype.name} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()[:8]


def steps_in(folder: Path) -> list[int]:
    """The complete steps in a training folder, newest first; what is half written is not called by its number alone."""
    return sorted((int(s.parent.name) for s in folder.glob("*/state") if s.parent.name.isdigit()), reverse=True)


def newest_step(folder: Path) -> Path | None:
    """The folder of the newest of `steps_in`, or None."""
    return next((folder / str(step) for step in steps_in(folder)), None)


def stored_config(folder: Path) -> Config | None:
    """The config of the newest step that can say it, or None where there is no step.

    Raises: CheckpointError where there are steps and none can.
    """
    steps = steps_in(folder)
    for step in steps:
        try:
            return read_about(folder / str(step))[0]
        except CheckpointError:
            if step == steps[-1]:
                raise


def read_about(step: Path) -> tuple[Config, dict[str, str]]:
    """The config and the ids of the parts of the state (`part_ids`) stored in the folder of a step."""
    with explained(f"cannot read {step} ({STEP_REMEDY})"):
        about = json.loads((step / "about" / "metadata").read_text())  # where orbax's JSON handler puts it
        return from_json(json.dumps(about["config"])), about["ids"]


def read_state(step: Path, ids: dict, example: Any = None, key: str = "") -> Any:
    """The state in the folder of a step like `example`, or its part `key` on the default device; `ids` are checked."""
    ocp, folder = orbax(), step / "state"
    with (
        runtime.computing(),
        explained(f"cannot read {step} ({STEP_REMEDY})"),
        ocp.PyTreeCheckpointer() as checkpointer,
    ):
        stored = getattr(checkpointer.metadata(folder).item_metadata, "tree", None)
        if stored is None:
            raise ValueError("its list of arrays is missing or unreadable")
        if example is not None:
            _require_same_arrays(step, stored, example)
        elif key in stored:
            example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), {key: stored[key]})
        else:
            raise CheckpointError(f"{step} holds {', '.join(stored)}, but no {key!r}, which is what is loaded")
        local = jax.device_put(0).sharding  # without one, orbax looks for the devices of the writer (its issue 678)
        wanted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or local), example
        )
        how = ocp.checkpoint_utils.construct_restore_args(wanted)
        tree = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(wanted, how, partial_restore=True))
    for name, identity in part_ids(tree).items():
        if ids.get(name, identity) != identity:
            raise CheckpointError(f"{step} has other bits in {name!r} than were saved: {STEP_REMEDY}")
    return tree


def _require_same_arrays(path: Path, stored: Any, example: Any):
    """Raises CheckpointError naming the first array that differs; orbax would cast to another dtype without a word."""
    old, new = (
        {name: f"{np.dtype(x.dtype).name}{list(x.shape)}" for name, x in flat(tree).items()}
        for tree in (stored, example)
    )
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name, "absent"), new.get(name, "absent")
        if a != b:
            raise CheckpointError(f"{path} was written by other code: {name} is {a} there and {b} here")


def part_ids(state: Any) -> dict[str, str]:
    """`model_id` of each top-level part of a state, such as "ema"; none for arrays spread over several processes."""
    parts: dict[str, dict] = {}
    for path, leaf in flat(state).items():
        parts.setdefault(path.split("/")[0], {})[path] = leaf
    local = all(getattr(x, "is_fully_addressable", True) or x.is_fully_replicated for x in jax.tree.leaves(state))
    return {name: model_id(part) for name, part in parts.items()} if local else {}


def flat(tree: Any) -> dict[str, Any]:
    """Leaves by path, such as `params/g_a/kernel`; the same for dicts, dataclasses and what orbax makes of either."""
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(tree)}


def orbax():
    """The orbax module, imported at the first use (0.5 s) and with silent logs: the errors there are also raised."""
    import orbax.checkpoint

    for name in ("absl", "asyncio"):  # of the second, all the writes that fail with the first
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return orbax.checkpoint
