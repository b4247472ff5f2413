"""Gives an exported model transforms in int8 beside those in float32: `clic-jax compress --runtime int8`.

    python -m experiments.int8 clic-compact --data folder:PHOTOS

Static quantisation by onnxruntime of the products in g_a and g_s: activations in uint8, weights in 7 bits with a scale
for each output channel. Activations' ranges come from crops of photographs, and leave out one value in ten thousand.
A product that alone disturbs the transform's output by more than ALONE stays in float32: as a rule the first and the
last. Symbols and tables come from the same integers as ever, so files go between all runtimes.
"""

import argparse
import contextlib
import hashlib
import io
import json
import logging
import tempfile
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from clic_jax import api, runtimes
from clic_jax.checkpoints.explained import explained
from clic_jax.errors import UserError
from clic_jax.files import atomic
from clic_jax.light import export
from clic_jax.light.programs import g_s_input
from clic_jax.model.arrange import positions
from clic_jax.quality import Quality
from clic_jax.training import data
from experiments import cli

CROPS, SIDE = 24, 256
QUALITIES = (10, 40, 70, 100)
ALONE = 1e-4  # of the output's variance
TOGETHER = 3e-3  # the same, for all that is quantised, or the result is refused
PERCENTILE = 99.99


def inputs_of(codec, crops) -> dict[str, list[dict]]:
    """{transform: what it is given}: g_a sees the crops, g_s what files of several qualities make of them."""
    found = {"g_a": [], "g_s": []}
    for i, x in enumerate(tqdm(crops, unit="crop", disable=None)):
        found["g_a"].append({"x": np.float32(x)[None], "where": positions(*x.shape[:2])[None]})
        _, latents = codec.encode(x, Quality.of(QUALITIES[i % len(QUALITIES)]))
        gain = codec.programs.log_inverse_gain(latents.lmbda)
        found["g_s"].append({"y": g_s_input(latents.y_hat, codec.programs.feature(latents.z), gain)})
    return found


def quantised(graph: bytes, inputs: list[dict], name: str) -> bytes:
    """The graph of a transform with its products in int8, except for those that err too much.

    Raises: ExportError where it disturbs the output by more than TOGETHER all the same, or depends on the size.
    """
    import onnx
    import onnxruntime

    few = inputs[:: max(1, len(inputs) // 8)]
    with tempfile.TemporaryDirectory() as folder:
        folded, made = Path(folder) / "folded.onnx", Path(folder) / "int8.onnx"
        options = onnxruntime.SessionOptions()  # folds casts and transposes of weights, which hide them
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        model = onnx.load(folded)
        weights = {tensor.name for tensor in model.graph.initializer}
        products = [n.name for n in model.graph.node if n.op_type in ("Conv", "MatMul") and n.input[1] in weights]
        wanted = outputs(folded, few)
        kept = []
        for product in tqdm(products, desc=name, unit="product", disable=None):
            quantise(folded, made, [product], few)
            if disturbance(outputs(made, few), wanted) <= ALONE:
                kept.append(product)
        quantise(folded, made, kept, inputs)
        worst = disturbance(outputs(made, few), wanted)
        told = f"{name}: {len(kept)} of {len(products)} products in int8, error {worst:.1e} of the output's variance"
        if not kept or worst > TOGETHER:
            raise runtimes.ExportError(f"{told}: it is no use")
        print(told)
        return small(onnx.load(made)).SerializeToString()


def quantise(source: Path, target: Path, products: list[str], inputs: list[dict]):
    """Static quantisation of these products of a graph, by onnxruntime."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.rest = iter(inputs)

        def get_next(self):
            return next(self.rest, None)

    with contextlib.redirect_stdout(io.StringIO()):  # it prints six lines a time
        quantization.quantize_static(
            source,
            target,
            Reader(),
            op_types_to_quantize=["Conv", "MatMul"],
            nodes_to_quantize=products,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            reduce_range=True,  # weights within +-64: without VNNI sums of two products saturate at 16 bits
            calibrate_method=quantization.CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
        )


def outputs(path: Path, inputs: list[dict]) -> list[np.ndarray]:
    """What a graph makes of each of the inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [session.run(None, given)[0] for given in inputs]


def disturbance(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Mean squared difference over the variance of what is wanted."""
    return sum(np.square(a - b).sum() for a, b in zip(found, wanted)) / sum(
        np.square(b - b.mean()).sum() for b in wanted
    )


def small(model):
    """The graph with what is left in float32 stored as float16, where that loses nothing."""
    from clic_jax.light import sizes

    casts = []
    tensors = [sizes.narrow(tensor, casts) for tensor in model.graph.initializer]
    nodes = [*casts, *model.graph.node]
    for field, values in ((model.graph.initializer, tensors), (model.graph.node, nodes)):
        kept = list(values)
        del field[:]
        field.extend(kept)
    return model


def add(folder: Path, graphs: dict[str, bytes]):
    """Writes the graphs beside the others of an export, and then their hashes: until then they are not looked at."""
    with explained(f"cannot write {folder / runtimes.FOLDER}", UserError):
        about = json.loads((folder / runtimes.EXPORTED).read_text())
        for name, graph in graphs.items():
            file = f"{runtimes.FOLDER}/{name}.int8.onnx"
            atomic.write(folder / file, graph)
            about["sha256"][file] = hashlib.sha256(graph).hexdigest()
        atomic.write(folder / runtimes.EXPORTED, json.dumps(about, indent=1).encode())


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.int8", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=cli.expanded, help="a name of `clic-jax models`, or an exported folder")
    parser.add_argument("--data", default="sample", help="photographs to find ranges on, as for training")
    parser.add_argument("--seed", type=int, default=0, help="of the crops")
    args = parser.parse_args(argv)
    if not export.possible():
        raise runtimes.ExportError(f"onnx, which this needs, is not installed: {export.REMEDY}")
    logging.disable(logging.WARNING)  # onnxruntime's, that graphs might be prepared for it
    folder = api.model_folder(args.model)
    codec = api.open_model(folder, runtime="onnx")
    photos = data.load_photos(args.data, min_size=SIDE)
    crops = data.random_crops(photos, jax.random.key(args.seed), batch=CROPS, size=SIDE)
    graphs = {
        name: quantised((folder / runtimes.FOLDER / f"{name}.onnx").read_bytes(), inputs, name)
        for name, inputs in inputs_of(codec, np.asarray(crops)).items()
    }
    add(folder, graphs)
    print(f"{args.model} is ready for the runtime int8")
    return 0


if __name__ == "__main__":
    cli.run(main)
