"""The `Programs` of a model without JAX: its exported transforms in onnxruntime, all else in NumPy.

The integers are those of `clic_jax.coding.compiled`, so are symbols and tables; y and the picture differ by the
rounding of float32 sums.
"""

import contextlib
import functools
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from clic_jax import processes
from clic_jax.checkpoints import limits
from clic_jax.checkpoints.explained import CheckpointError, explained
from clic_jax.checkpoints.installed import folder_of
from clic_jax.coding import programs as interface
from clic_jax.coding import rounding, stored
from clic_jax.coding.codec import Codec
from clic_jax.coding.fixedpoint import Y_BITS, scale_index
from clic_jax.coding.tables import VALUE_MAX, VALUE_MIN
from clic_jax.config import ModelConfig
from clic_jax.errors import UserError
from clic_jax.light import integers
from clic_jax.model.arrange import positions
from clic_jax.model.checkerboard import merge, split
from clic_jax.model.schedule import anchor_step, other_step, slices
from clic_jax.runtimes import EXPORTED, FOLDER
from clic_jax.settings import from_json

FORMAT = 1  # version of what `export.write` makes
_FILES = {"config.json", "coding.json", f"{FOLDER}/network.npz"}
_FILES |= {f"{FOLDER}/{name}.onnx" for name in ("g_a", "h_a", "g_s", "feature", "maps", "g_a.int8", "g_s.int8")}
REMEDY = "fetch it again, or make it anew with `clic-jax export`"


def load(name_or_path, int8: bool = False) -> Codec:
    """The codec of a published model that `export.write` has been at. Raises: CheckpointError; NoModel.

    int8: with the g_a and g_s that `experiments.int8` made.
    """
    path = folder_of(name_or_path)
    with explained(f"cannot read {path / FOLDER} ({REMEDY})", UserError):
        about = limits.read_json(path / EXPORTED)
        if about["format"] != FORMAT:
            raise CheckpointError(f"{path / FOLDER} has format {about['format']!r:.20}, not {FORMAT}: {REMEDY}")
        identity = limits.read_json(path / "checkpoint.json")["model_id"]
        if about["model_id"] != identity:
            raise CheckpointError(f"{path / FOLDER} is of model {about['model_id']!r:.20}, not {identity}: {REMEDY}")
        unused = {f"{FOLDER}/{name}{'' if int8 else '.int8'}.onnx" for name in ("g_a", "g_s")}
        files = _checked_files(path, {name: sha for name, sha in about["sha256"].items() if name not in unused})
        config = from_json(files["config.json"].decode())
        data = json.loads(files["coding.json"])
        arrays = integers.unpacked(files[f"{FOLDER}/network.npz"], limits.MAX_WEIGHTS)
        graphs = {Path(name).name.split(".")[0]: read for name, read in files.items() if name.endswith(".onnx")}
        made = programs(config.model, graphs, arrays)
        return Codec(config, arrays, identity, data, programs=made, parameters=int(about["parameters"]))


def _checked_files(path: Path, digests: dict[str, str]) -> dict[str, bytes]:
    """The files of these names and hashes. Raises: CheckpointError for another hash; ValueError for a name or a size.

    A stranger's folder shall name no file outside, nor take more memory than weights do.
    """
    found, total = {}, 0
    for name, digest in digests.items():
        if name not in _FILES or (path / name).is_symlink() or not (path / name).is_file():
            raise ValueError(f"{name[:40]!r} is a link or no file of an export")
        total += (path / name).stat().st_size
        if total > limits.MAX_WEIGHTS:
            raise ValueError(f"it has more than {limits.MAX_WEIGHTS} bytes")
        found[name] = (path / name).read_bytes()
        if hashlib.sha256(found[name]).hexdigest() != digest:
            raise CheckpointError(f"{path / name} is not what was exported with the model: {REMEDY}")
        if name.endswith(".onnx") and b"location" in found[name]:  # how a graph names weights in other files
            raise ValueError(f"{name} names other files")
    return found


def g_s_input(y_hat: np.ndarray, feature: np.ndarray | None, log_inverse_gain) -> np.ndarray:
    """What the graph of g_s is given: float32 [1, h, w, M + F]."""
    y_hat = y_hat * np.exp(log_inverse_gain)
    return y_hat if feature is None else np.concatenate([y_hat, feature], -1)


def programs(config: ModelConfig, graphs: dict[str, bytes], arrays: dict[str, np.ndarray]) -> interface.Programs:
    """The programs of a model, of the files that `export.write` makes."""
    context = integers.StoredContext(config, arrays)

    @functools.cache
    def session(name):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors, which are also raised
        # by itself it takes all processors there are, also in a process that may use few
        options.intra_op_num_threads = processes.processors()
        # its threads would wait in loops for the next call, on processors that NumPy needs between two
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with explained(f"onnxruntime cannot use the exported {name} ({REMEDY}, or upgrade onnxruntime)"):
            return onnxruntime.InferenceSession(graphs[name], options, providers=["CPUExecutionProvider"])

    def call(name, *inputs):
        opened = session(name)
        names = [i.name for i in opened.get_inputs()]
        return opened.run(None, dict(zip(names, (np.ascontiguousarray(x, np.float32) for x in inputs), strict=True)))[0]

    def gain(name, lmbda):
        """The row of gains of lmbda [1], as [1, 1, 1, M], or 0.0: `CLIC.gains` in NumPy."""
        if not config.variable_rate:
            return np.float32(0)
        place = np.interp(np.log(lmbda[0]), np.log(config.lmbdas), np.arange(len(config.lmbdas)))
        return np.float32(stored.between(arrays[name], float(place)))[None, None, None]

    def analyse(x, lmbda):
        where = positions(*x.shape[1:3])[None]
        return call("g_a", x, where) * np.exp(gain("log_gain", lmbda))

    def hyper(y, z):
        z = np.rint(call("h_a", y)) if z is None else z
        return [split(s) for s in slices(y, config.groups)], np.clip(z, VALUE_MIN, VALUE_MAX).astype(np.int32)

    def feature(z):
        return call("feature", z) if config.feature_channels else None

    def synthesise(y_hat, feature, lmbda):
        x_hat = call("g_s", g_s_input(y_hat, feature, gain("log_inverse_gain", lmbda)))
        return np.clip(x_hat, 0, 255, out=x_hat)

    def fitted(maps, halves, y_hat):
        n = maps.shape[3]
        residual = np.concatenate([merge(*pair) for pair in halves], -1)[..., :n] - y_hat[..., :n]
        return np.einsum("bhwca,bhwc->bca", maps, residual) / np.float32(maps.shape[1] * maps.shape[2])

    def corrected(y_hat, maps, coefficients):
        y_hat = y_hat.copy()
        y_hat[..., : maps.shape[3]] += np.einsum("bhwca,bca->bhwc", maps, coefficients)
        return y_hat

    def table_index(raw, gain):
        return scale_index(raw, gain).astype(np.uint8)

    def dequantise(q, mean):
        return (q << Y_BITS) + mean

    def quantise(y, mean, raw, gain):
        index = table_index(raw, gain)
        residual = y - mean.astype(np.float32) * np.float32(2.0**-Y_BITS)
        q = rounding.quantised(residual, index, config.density, config.rdoq).astype(np.int32)
        return q, index, dequantise(q, mean)

    def load_picture(*_):
        with ThreadPoolExecutor(2) as both:
            list(both.map(session, ("feature", "g_s") if config.feature_channels else ("g_s",)))

    return interface.Programs(
        analyse=analyse,
        hyper=hyper,
        feature=feature,
        synthesise=synthesise,
        maps=functools.partial(call, "maps"),
        fitted=fitted,
        corrected=corrected,
        log_inverse_gain=functools.partial(gain, "log_inverse_gain"),
        searched=None,
        context=context,
        steps=(functools.partial(anchor_step, context), functools.partial(other_step, context), merge),
        features=context.features,
        quantise=quantise,
        table_index=table_index,
        dequantise=dequantise,
        joined=lambda decoded: np.concatenate(decoded, -1).astype(np.float32) * np.float32(2.0**-Y_BITS),
        put=np.asarray,
        get=lambda arrays: arrays,
        computing=contextlib.nullcontext,
        about=lambda: f"numpy {np.__version__}",
        compile_picture=load_picture,
    )
