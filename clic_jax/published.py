"""Published checkpoints: the averaged parameters alone, to code pictures with, in a folder of their own.

The folder holds the parameters (orbax), `config.json`, `metrics.json` and a model id that the compressed files repeat;
`save_published` writes it and `load_published` reads it, or takes the averaged parameters out of a training run.
What reads and checks arrays on disk is here too, for `clic_jax.checkpoints` as well; nothing needs the device mesh of
the writer to be read. Orbax is imported here only, when a checkpoint is first opened.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clic_jax.config import Config
from clic_jax.errors import UserError
from clic_jax.installed import folder_of
from clic_jax.settings import from_json, to_json

FORMAT = 1  # version of the published folder
NARROW, WIDE = {np.dtype("float32"): np.dtype("float16")}, {np.dtype("float16"): np.dtype("float32")}  # for `half`
STEP_REMEDY = "if it is damaged, delete that folder to go on from an earlier step"


class CheckpointError(UserError):
    """A checkpoint that cannot be written, read, or used for this config; the message is one line with the remedy."""


def model_id(params: Any, coding: dict | None = None) -> str:
    """8 hex digits that change with any name, dtype, shape or bit of `params`, and not with the order of its dicts.

    With `coding` (the integers that files are coded with, `clic_jax.coding.measure`) it changes with those as well.
    """
    digest = hashlib.sha256(b"" if coding is None else json.dumps(coding, sort_keys=True).encode())
    for path, array in sorted(jax.tree.map(np.asarray, _flat(params)).items()):
        digest.update(f"{path} {array.dtype.name} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()[:8]


def save_published(
    folder: str | os.PathLike,
    config: Config,
    params: Any,
    metrics: dict,
    *,
    coding: dict | None = None,
    half: bool = False,
) -> str:
    """Writes a folder that `load_published` reads: orbax parameters, `config.json`, `metrics.json`, `checkpoint.json`.

    Args:
        folder: must not exist; it appears complete or not at all. params: the averaged parameters.
        metrics: anything JSON can hold; for the reader, never used.
        coding: what `clic_jax.coding.measure` found for these parameters; without it the model cannot write files.
        half: store float32 as float16, in half the space. The model then *is* the rounded one: measure that one.
    Returns: the model id of the parameters as they will be loaded.
    Raises: CheckpointError if the folder exists or cannot be written, or a stored parameter is infinite or NaN.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        raise CheckpointError(f"{folder} exists: delete it first, or publish under another name")
    with np.errstate(over="ignore"):  # infinities are reported below
        stored = jax.tree.map(lambda x: np.asarray(x, NARROW.get(x.dtype, x.dtype) if half else x.dtype), params)
    for path, leaf in _flat(stored).items():
        if not np.isfinite(leaf.astype(np.float32)).all():
            raise CheckpointError(f"parameter {path} is not finite in {leaf.dtype}, so it cannot be published")
    identity = model_id(jax.tree.map(lambda x, original: x.astype(original.dtype), stored, params), coding)
    with _explained(f"cannot write {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as parent:
            temporary = Path(parent) / folder.name
            with _lone_checkpointer() as checkpointer:
                checkpointer.save(temporary / "params", stored)
            for note in temporary.rglob("commit_success.txt"):
                note.write_text("complete\n")  # orbax writes the folder's path, which is nobody's business
            (temporary / "config.json").write_text(to_json(config))
            (temporary / "metrics.json").write_text(json.dumps(metrics, indent=1))
            if coding is not None:
                (temporary / "coding.json").write_text(json.dumps(coding))
            (temporary / "checkpoint.json").write_text(json.dumps({"format": FORMAT, "model_id": identity}))
            temporary.rename(folder)
    return identity


def _lone_checkpointer():
    """An orbax PyTreeCheckpointer that waits for no other process, for what one process of several writes alone."""
    ocp, me = _orbax(), jax.process_index()
    alone = ocp.options.MultiprocessingOptions(me, active_processes={me}, barrier_sync_key_prefix="published")
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone)


def load_published(name_or_path: str | os.PathLike) -> tuple[Config, Any, str]:
    """A published checkpoint as (config, params, model id), the float32 parameters on the local default device.

    The argument is one of `clic_jax.installed.installed()`, or a folder: a published one, or that of a training run
    (the averaged parameters of its newest step) or of one step.
    Raises: NoModel if there is none of that name, naming those there are; CheckpointError if it is damaged.
    """
    path = folder_of(name_or_path)
    if not (path / "checkpoint.json").exists():
        step = path if (path / "state").is_dir() else _newest_step(path) or _newest_step(path / "checkpoints")
        if not step:
            raise CheckpointError(f"{path} holds no checkpoint: no checkpoint.json, no steps of a training run")
        config, ids = _read_about(step)
        params = _read_arrays(step, "state", STEP_REMEDY, ids, key="ema")["ema"]
        return config, params, model_id(params)
    remedy = "if it is damaged, fetch or publish it again"
    with _explained(f"cannot read {path} ({remedy})"):
        about = json.loads((path / "checkpoint.json").read_text())
        if about["format"] != FORMAT:
            raise CheckpointError(f"{path} has format {about['format']}, this version reads {FORMAT}: upgrade clic_jax")
        config = from_json((path / "config.json").read_text())
    params = _read_arrays(path, "params", remedy, ids={})
    identity = model_id(params, _read_coding(path))
    if identity != about["model_id"]:
        raise CheckpointError(f"{path} has the id {identity}, not {about['model_id']}: {remedy}")
    return config, params, identity


def load_coding(name_or_path: str | os.PathLike) -> dict:
    """The coding data of a published checkpoint; `load_published` has checked it against the model id.

    Raises: CheckpointError if the checkpoint has none, as a training run's folder.
    """
    path = folder_of(name_or_path)
    coding = _read_coding(path)
    if coding is None:
        raise CheckpointError(f"{path} cannot write files yet: give the folder that publishing made (RUN/published)")
    return coding


def _read_coding(path: Path) -> dict | None:
    """The coding data beside a published checkpoint, or None."""
    if not (path / "coding.json").exists():
        return None
    with _explained(f"cannot read {path / 'coding.json'} (if it is damaged, fetch or publish it again)"):
        return json.loads((path / "coding.json").read_text())


def _newest_step(folder: Path) -> Path | None:
    """The newest complete step in a training folder; what is half written is not called by its number alone."""
    steps = [state.parent for state in folder.glob("*/state") if state.parent.name.isdigit()]
    return max(steps, key=lambda step: int(step.name), default=None)


def _read_about(step: Path) -> tuple[Config, dict[str, str]]:
    """The config and the ids of the parts of the state (`_part_ids`) stored in the folder of a step."""
    with _explained(f"cannot read {step} ({STEP_REMEDY})"):
        about = json.loads((step / "about" / "metadata").read_text())  # where orbax's JSON handler puts it
        return from_json(json.dumps(about["config"])), about["ids"]


def _read_arrays(folder: Path, item: str, remedy: str, ids: dict, example: Any = None, key: str = "") -> Any:
    """The pytree in `folder`/`item`, or its part `key`, like `example` or on the default device; `ids` are checked."""
    ocp = _orbax()
    with _explained(f"cannot read {folder} ({remedy})"), ocp.PyTreeCheckpointer() as checkpointer:
        stored = getattr(checkpointer.metadata(folder / item).item_metadata, "tree", None)
        if stored is None:
            raise ValueError("its list of arrays is missing or unreadable")
        if key and key not in stored:
            raise CheckpointError(f"{folder} holds {', '.join(stored)}, but no {key!r}, which is what is loaded")
        if example is None:
            part = {key: stored[key]} if key else stored
            example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, WIDE.get(x.dtype, x.dtype)), part)
        else:
            _require_same_arrays(folder, stored, example)
        local = jax.device_put(0).sharding  # without one, orbax looks for the devices of the writer (its issue 678)
        wanted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or local), example
        )
        how = ocp.checkpoint_utils.construct_restore_args(wanted)
        tree = checkpointer.restore(folder / item, args=ocp.args.PyTreeRestore(wanted, how, partial_restore=True))
    for name, identity in _part_ids(tree).items():
        if ids.get(name, identity) != identity:
            raise CheckpointError(f"{folder} has other bits in {name!r} than were saved: {remedy}")
    return tree


def _require_same_arrays(path: Path, stored: Any, example: Any):
    """Raises CheckpointError naming the first array that differs; orbax would cast to another dtype without a word."""
    old, new = (
        {name: f"{np.dtype(x.dtype).name}{list(x.shape)}" for name, x in _flat(tree).items()}
        for tree in (stored, example)
    )
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name, "absent"), new.get(name, "absent")
        if a != b:
            raise CheckpointError(f"{path} was written by other code: {name} is {a} there and {b} here")


def _part_ids(state: Any) -> dict[str, str]:
    """`model_id` of each top-level part of a state, such as "ema"; none for arrays spread over several processes."""
    parts: dict[str, dict] = {}
    for path, leaf in _flat(state).items():
        parts.setdefault(path.split("/")[0], {})[path] = leaf
    local = all(getattr(x, "is_fully_addressable", True) or x.is_fully_replicated for x in jax.tree.leaves(state))
    return {name: model_id(part) for name, part in parts.items()} if local else {}


def _flat(tree: Any) -> dict[str, Any]:
    """Leaves by path, such as `params/g_a/kernel`; the same for dicts, dataclasses and what orbax makes of either."""
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(tree)}


def _orbax():
    """The orbax module, imported at the first use (0.5 s) and with a silent log: the errors there are also raised."""
    import orbax.checkpoint

    logging.getLogger("absl").setLevel(logging.CRITICAL)
    return orbax.checkpoint


@contextlib.contextmanager
def _explained(what: str):
    """Turns any error inside into a CheckpointError of one line that starts with `what`."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # orbax and tensorstore have no base class: ValueError, KeyError, OSError and others
        code = re.search(r"os_error_code='(\d+)'", str(error))
        reason = os.strerror(int(code[1])) if code else re.split(r"\n| \[tensorstore_spec|\. See full", str(error))[0]
        raise CheckpointError(f"{what}: {reason[:300] or type(error).__name__}") from error
