"""A published model in formats that others read, a folder each: `write`.

onnx         the folder `light` as the runtime onnx has it (`clic_jax.light.export`)
safetensors  params.safetensors: the parameters, named by their paths in the tree; config and model id as metadata
stablehlo    the codec's functions as jax.export stores them (`clic_jax.exchange.stablehlo`)
"""

import json
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np

from clic_jax.checkpoints import published
from clic_jax.checkpoints.arrays import flat
from clic_jax.checkpoints.explained import explained
from clic_jax.errors import UserError
from clic_jax.exchange import stablehlo, tensors
from clic_jax.files import atomic
from clic_jax.light import export as onnx
from clic_jax.light import programs
from clic_jax.runtimes import EXPORTED, FOLDER, ExportError
from clic_jax.settings import to_json

SAFETENSORS = "params.safetensors"


def write(model: Path, kind: str, out: Path) -> None:
    """Makes the folder `out` of the published model in the folder `model`, complete or not at all.

    kind: of the three above. An export of the same kind is replaced, anything else is not.
    Raises: ExportError; CheckpointError; tensors.NoSafetensors.
    """
    if kind == "safetensors":
        tensors.check()
    if out.exists() and not is_export(out, kind):
        raise ExportError(f"{out} is there and is no export as {kind}: name another --out")
    with explained(f"cannot write {out}", UserError), atomic.new_folder(out) as made:
        {"onnx": _onnx, "safetensors": _safetensors, "stablehlo": _stablehlo}[kind](model, made)


def is_export(folder: Path, kind: str) -> bool:
    """Whether there is nothing in a folder but what `write` makes of that kind, and that says so."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if kind == "safetensors":
        return names == {SAFETENSORS} and "model_id" in tensors.metadata(folder / SAFETENSORS)
    fixed = {"onnx": {"about.json", "network.npz"}, "stablehlo": {"about.json"}}[kind]
    suffix = {"onnx": ".onnx", "stablehlo": stablehlo.SUFFIX}[kind]
    if not fixed <= names or not all(name.endswith(suffix) for name in names - fixed):
        return False
    try:
        return "model_id" in json.loads((folder / "about.json").read_text())
    except (OSError, ValueError, TypeError):
        return False


def _onnx(model: Path, made: Path) -> None:
    """The folder `light` of the model; where it has none, it is made, and not in the model."""
    if (model / EXPORTED).exists():
        programs.load(model)  # what is damaged, or of another model, is not copied
        shutil.copytree(model / FOLDER, made)
        return
    with tempfile.TemporaryDirectory(dir=made.parent) as beside:
        whole = Path(beside) / "model"
        shutil.copytree(model, whole)
        onnx.write(whole)
        (whole / FOLDER).rename(made)


def _safetensors(model: Path, made: Path) -> None:
    config, params, identity = published.load_published(model)
    metadata = {"model_id": identity, "config": to_json(config)}
    made.mkdir()
    arrays = {path: np.asarray(leaf) for path, leaf in flat(params).items()}
    (made / SAFETENSORS).write_bytes(tensors.packed(arrays, metadata))


def _stablehlo(model: Path, made: Path) -> None:
    config, params, identity = published.load_published(model)
    coding = published.load_coding(model)
    made.mkdir()
    about = {}
    for name, exported in stablehlo.functions(config.model, jax.device_get(params), coding["exponents"]):
        (made / f"{name}{stablehlo.SUFFIX}").write_bytes(exported.serialize())
        about[name] = {
            "inputs": [str(value).removeprefix("ShapedArray") for value in exported.in_avals],
            "outputs": [str(value).removeprefix("ShapedArray") for value in exported.out_avals],
        }
    text = {"model_id": identity, "config": json.loads(to_json(config)), "jax": jax.__version__}
    text |= {"platforms": stablehlo.PLATFORMS, "functions": about}
    (made / "about.json").write_text(json.dumps(text, indent=1))
