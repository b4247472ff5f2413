"""What the runtime without JAX needs of a model, made of its Flax modules: `write`, when a model is published.

The transforms become ONNX graphs for pictures of any size (`sizes`), by jax2onnx, and are compared with what JAX
computes before the folder appears; the integer networks are stored as they are.
"""

import hashlib
import importlib.util
import json
import logging
from pathlib import Path

import jax
import numpy as np

from clic_jax import runtime
from clic_jax.checkpoints import published
from clic_jax.checkpoints.explained import explained
from clic_jax.coding.fixedpoint import FixedContext
from clic_jax.config import ModelConfig
from clic_jax.errors import UserError
from clic_jax.files import atomic
from clic_jax.light import integers
from clic_jax.light.programs import FORMAT
from clic_jax.model.arrange import positions
from clic_jax.model.clic import CLIC
from clic_jax.runtimes import EXPORTED, FOLDER, ExportError

# its list of dependencies asks for another orbax than ours, and for much that a conversion does without
REMEDY = "pip install onnx onnx-ir && pip install --no-deps jax2onnx==0.17.1"
TOLERANCE = 2e-3  # of the largest value of what a transform gives: float32 sums in another order


def possible() -> bool:
    """Whether the converter is installed, and what it builds on: this module needs neither to be imported."""
    return all(importlib.util.find_spec(name) for name in ("jax2onnx", "onnx", "onnx_ir"))


def write(folder: Path | str) -> None:
    """Adds the folder `light` to a published model, complete or not at all; one that is there is replaced.

    Graphs in int8 that it has (`experiments.int8`) stay, if they are of the same parameters.
    Raises: ExportError where jax2onnx is not installed or cannot convert the network, or where onnxruntime computes
      something else than JAX; CheckpointError for a folder that is no published model.
    """
    if not possible():
        raise ExportError(f"jax2onnx, which converts the networks, is not installed: {REMEDY}")
    folder = Path(folder)
    config, params, identity = published.load_published(folder)
    if reason := unsupported(config.model):
        raise ExportError(f"{folder} has {reason}")
    data = published.load_coding(folder)
    params = jax.device_get(params)
    context = FixedContext(config.model, params, data["exponents"])
    gains = {name: np.asarray(params[name]) for name in ("log_gain", "log_inverse_gain") if name in params}
    graphs, expected = _graphs(config.model, params)
    kept = _int8(folder, identity)
    with explained(f"cannot write {folder / FOLDER}", UserError), atomic.new_folder(folder / FOLDER) as made:
        made.mkdir()
        (made / "network.npz").write_bytes(integers.packed(context, **gains))
        for name, graph in graphs.items():
            (made / f"{name}.onnx").write_bytes(graph.SerializeToString())
        for name, graph in kept.items():
            (made / name).write_bytes(graph)
        digests = {f"{FOLDER}/{path.name}": path for path in sorted(made.iterdir())}
        digests |= {name: folder / name for name in ("config.json", "coding.json")}
        about = {
            "format": FORMAT,
            "model_id": identity,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
            "sha256": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in digests.items()},
        }
        (made / "about.json").write_text(json.dumps(about, indent=1))
        _compare(made, expected)


def unsupported(config: ModelConfig) -> str | None:
    """What keeps a model, one of an ablation, to the runtime jax; None for all others."""
    for name, value in (("pqf", "plain"), ("gains", "scalar")):
        if getattr(config, name) == value:
            return f"model.{name} = {value!r}, which the runtime jax alone computes"
    return None


def _int8(folder: Path, identity: str) -> dict[str, bytes]:
    """The undamaged graphs in int8 of an export of that model, by name."""
    try:
        about = json.loads((folder / EXPORTED).read_text())
        if (about["model_id"], about["format"]) != (identity, FORMAT):
            return {}
        found = {path.name: path.read_bytes() for path in (folder / FOLDER).glob("*.int8.onnx")}
        hashes = {name: about["sha256"].get(f"{FOLDER}/{name}") for name in found}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return {name: graph for name, graph in found.items() if hashlib.sha256(graph).hexdigest() == hashes[name]}


def transforms(config: ModelConfig, params) -> dict:
    """{name: (function of float32 arrays, unit of `sizes.any_size`, names of inputs, (h, w) -> shapes)}."""
    model, c, median = CLIC(config), config, params["prior"]["median"]
    m, f, n = c.latent_channels, c.feature_channels, c.hyper_layers[-1][0]

    def applied(method):
        return lambda *args: model.apply({"params": params}, *args, method=method)

    def of_y(channels):
        return lambda h, w: [(1, 4 * h, 4 * w, channels)]

    found = {
        "g_a": (
            applied(lambda module, x, where: module.g_a(x / 255, where)),
            64,
            ("x", "where"),
            lambda h, w: [(1, 64 * h, 64 * w, 3), (1, 64 * h, 64 * w, 2)],
        ),
        "h_a": (applied(lambda module, y: module.hyper_analyse(y) - median), 4, ("y",), of_y(m)),
        "g_s": (applied(lambda module, y: 255 * module.g_s(y)), 4, ("y",), of_y(m + f)),
    }
    if f:
        feature = applied(lambda module, z: module.hyper_features(z + median)[1])
        found["feature"] = (feature, 1, ("z",), lambda h, w: [(1, h, w, n)])
    if c.pqf != "none":
        found["maps"] = (applied(CLIC.basis_maps), 4, ("y_hat",), of_y(m))
    return found


def _graphs(config: ModelConfig, params) -> tuple[dict, dict]:
    """({name: graph}, {name: [(inputs, output)] as JAX has them})."""
    logging.getLogger("jax2onnx").setLevel(logging.CRITICAL)  # it tells of each plugin whose package is not there
    import jax2onnx

    from clic_jax.light import sizes

    rng, graphs, expected = np.random.default_rng(0), {}, {}
    found = transforms(config, params)
    for name, (function, _, _, shapes) in found.items():
        expected[name] = []
        for size in ((1, 1), (3, 5), (4, 4)):
            inputs = [_example(name, i, shape, rng) for i, shape in enumerate(shapes(*size))]
            expected[name].append((inputs, np.asarray(jax.jit(function)(*inputs))))
    runtime.release_memory(programs=True)  # jax2onnx traces functions of its own in the place of JAX's: cached either
    try:
        for name, (function, unit, names, shapes) in found.items():

            def convert(h, w):
                return jax2onnx.to_onnx(function, shapes(h, w))

            graphs[name] = sizes.any_size(convert, unit, names)
    finally:
        runtime.release_memory(programs=True)
    return graphs, expected


def _example(name, i, shape, rng):
    if name == "g_a":
        return positions(*shape[1:3])[None] if i else rng.integers(0, 256, shape).astype(np.float32)
    return np.round(3 * rng.standard_normal(shape)).astype(np.float32)


def _compare(folder: Path, expected: dict):
    """Raises: ExportError where a graph in onnxruntime differs from what is expected of it."""
    import onnxruntime

    for name, examples in expected.items():
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for inputs, output in examples:
            found = session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs, strict=True)))[0]
            error = np.abs(found - output).max() / max(np.abs(output).max(), 1e-6) if found.shape == output.shape else 1
            if not error <= TOLERANCE:
                raise ExportError(f"{name} in onnxruntime differs from JAX by {error:.1g} of its largest value")
