"""Published checkpoints: the averaged parameters alone, to code pictures with, in a folder of their own.

The folder holds the parameters (orbax), `config.json`, `metrics.json` and a model id that the compressed files repeat;
`save_published` writes it and `load_published` reads it, or takes the averaged parameters out of a training run.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clic_jax import runtime
from clic_jax.checkpoints import limits
from clic_jax.checkpoints import params as params_files
from clic_jax.checkpoints.arrays import (
    CheckpointError,
    explained,
    flat,
    model_id,
    newest_step,
    orbax,
    read_about,
    read_state,
)
from clic_jax.checkpoints.installed import folder_of
from clic_jax.config import Config
from clic_jax.files import atomic
from clic_jax.settings import from_json, to_json

FORMAT = 1  # version of the published folder
NARROW = {np.dtype("float32"): np.dtype("float16")}  # for `half`


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
        coding: what `clic_jax.coding.measured.measure` found for these parameters; without it no file can be written.
        half: store float32 as float16, in half the space. The model then *is* the rounded one: measure that one.
    Returns: the model id of the parameters as they will be loaded.
    Raises: CheckpointError if the folder exists or cannot be written, or a stored parameter is infinite or NaN.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        raise CheckpointError(f"{folder} exists: delete it first, or publish under another name")
    with np.errstate(over="ignore"):  # infinities are reported below
        stored = jax.tree.map(lambda x: np.asarray(x, NARROW.get(x.dtype, x.dtype) if half else x.dtype), params)
    for path, leaf in flat(stored).items():
        if not np.isfinite(leaf.astype(np.float32)).all():
            raise CheckpointError(f"parameter {path} is not finite in {leaf.dtype}, so it cannot be published")
    identity = model_id(jax.tree.map(lambda x, original: x.astype(original.dtype), stored, params), coding)
    with explained(f"cannot write {folder}"):
        with atomic.new_folder(folder) as temporary:
            with _lone_checkpointer() as checkpointer:
                checkpointer.save(temporary / "params", stored)
            for note in temporary.rglob("commit_success.txt"):
                note.write_text("complete\n")  # orbax writes the folder's path, which is nobody's business
            (temporary / "config.json").write_text(to_json(config))
            (temporary / "metrics.json").write_text(json.dumps(metrics, indent=1))
            if coding is not None:
                (temporary / "coding.json").write_text(json.dumps(coding))
            (temporary / "checkpoint.json").write_text(json.dumps({"format": FORMAT, "model_id": identity}))
    return identity


def _lone_checkpointer():
    """An orbax PyTreeCheckpointer that waits for no other process, for what one process of several writes alone."""
    ocp, me = orbax(), jax.process_index()
    alone = ocp.options.MultiprocessingOptions(me, active_processes={me}, barrier_sync_key_prefix="published")
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone)


def load_published(name_or_path: str | os.PathLike) -> tuple[Config, Any, str]:
    """A published checkpoint as (config, params, model id), the float32 parameters on the local default device.

    The argument is one of `clic_jax.checkpoints.installed.installed()`, or a folder: a published one, or that of a
    training run (the averaged parameters of its newest step) or of one step.
    Raises: NoModel if there is none of that name, naming those there are; CheckpointError if it is damaged.
    """
    path = folder_of(name_or_path)
    if not (path / "checkpoint.json").exists():
        step = path if (path / "state").is_dir() else newest_step(path) or newest_step(path / "checkpoints")
        if not step:
            raise CheckpointError(f"{path} holds no checkpoint: no checkpoint.json, no steps of a training run")
        config, ids = read_about(step)
        params = read_state(step, ids, key="ema")["ema"]
        return config, params, model_id(params)
    remedy = "if it is damaged, fetch or publish it again"
    with explained(f"cannot read {path} ({remedy})"):
        about = limits.read_json(path / "checkpoint.json")
        if about["format"] != FORMAT:
            text = f"{path} has format {about['format']!r:.20}, this version reads {FORMAT}"
            raise CheckpointError(f"{text}: upgrade clic_jax")
        said = about["model_id"]
        config = from_json(limits.read_text(path / "config.json"))
        params = params_files.read(path / "params")
    identity = model_id(params, _read_coding(path))
    if identity != said:
        raise CheckpointError(f"{path} has the id {identity}, not {said!r:.20}: {remedy}")
    with runtime.computing():
        return config, jax.device_put(params), identity


def load_coding(name_or_path: str | os.PathLike) -> dict:
    """The coding data of a published checkpoint; `load_published` has checked it against the model id.

    Raises: CheckpointError if the checkpoint has none, as a training run's folder.
    """
    path = folder_of(name_or_path)
    coding = _read_coding(path)
    if coding is None or not (path / "checkpoint.json").exists():
        raise CheckpointError(f"{path} cannot write files yet: give the folder that publishing made (RUN/published)")
    return coding


def _read_coding(path: Path) -> dict | None:
    """The coding data beside a published checkpoint, or None."""
    if not (path / "coding.json").exists():
        return None
    with explained(f"cannot read {path / 'coding.json'} (if it is damaged, fetch or publish it again)"):
        return limits.read_json(path / "coding.json")
