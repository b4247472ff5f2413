"""A graph for any size from graphs for some: against NumPy, on small networks built node by node."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from clic_jax import runtimes
from clic_jax.light import sizes


def model(h, w, nodes, constants, channels=2):
    """ONNX for x [1, h, w, channels] -> out, of the last node."""
    x = helper.make_tensor_value_info("in_0", TensorProto.FLOAT, [1, h, w, channels])
    out = helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, h, w, channels])
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [x], [out], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def mean(h, w):
    """The mean over both sides, of positions that make it halves, as a converter that knows the size would write it."""
    nodes = [
        helper.make_node("Slice", ["in_0", "start", "stop", "axes"], ["lower"]),
        helper.make_node("ReduceSum", ["lower", "sides"], ["sum"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Expand", ["mean", "shape"], ["result"]),
    ]
    constants = {
        "start": np.int64([h // 2]),
        "stop": np.int64([h]),
        "axes": np.int64([1]),
        "sides": np.int64([1, 2]),
        "count": np.array((h - h // 2) * w, np.float32),
        "shape": np.int64([1, h, w, 2]),
    }
    return model(h, w, nodes, constants)


def run(graph, x):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["out"], {"x": x})[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (12, 30), (33, 17)])
def test_any_size(size):
    # h (h // 2) is not among the terms, so both sides in pairs of positions here: (2 h - h) * 2 w = 2 h w
    graph = sizes.any_size(lambda h, w: mean(2 * h, 2 * w), 2, ("x",))
    h, w = (2 * n for n in size)
    x = np.random.default_rng(0).normal(size=(1, h, w, 2)).astype(np.float32)
    expected = np.broadcast_to(x[:, h // 2 :].mean((1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(run(graph, x), expected, atol=1e-6)


def test_weights_that_float16_holds_are_stored_in_half_the_space():
    rng = np.random.default_rng(1)
    exact, wide = rng.normal(size=(64, 64)).astype(np.float16).astype(np.float32), rng.normal(size=(64, 64))

    def graph(h, w, weights):
        return model(h, w, [helper.make_node("MatMul", ["in_0", "k"], ["result"])], {"k": np.float32(weights)}, 64)

    made = [sizes.any_size(lambda h, w, k=k: graph(h, w, k), 1, ("x",)) for k in (exact, wide)]
    assert [len(m.SerializeToString()) // 4096 for m in made] == [2, 4]
    x = rng.normal(size=(1, 2, 3, 64)).astype(np.float32)
    for m, k in zip(made, (exact, wide)):
        np.testing.assert_allclose(run(m, x), x @ np.float32(k), rtol=1e-4, atol=1e-4)


def test_what_is_not_linear_in_the_size_is_refused():
    def squared(h, w):
        return model(h, w, [helper.make_node("Mul", ["in_0", "c"], ["result"])], {"c": np.array(h * h, np.float32)})

    def fraction(h, w):
        return model(h, w, [helper.make_node("Mul", ["in_0", "c"], ["result"])], {"c": np.array(1 / h, np.float32)})

    def unlike(h, w):
        kind = "Abs" if h > 8 else "Neg"
        return model(h, w, [helper.make_node(kind, ["in_0"], ["result"])], {})

    def map_of_size(h, w):
        return model(h, w, [helper.make_node("Mul", ["in_0", "c"], ["result"])], {"c": np.ones((h, w, 1), np.float32)})

    for convert, match in (
        (squared, "not linear in the size"),
        (fraction, "not a vector of whole numbers"),
        (unlike, "graph differs between"),
        (map_of_size, "not a vector of whole numbers"),
    ):
        with pytest.raises(runtimes.ExportError, match=match):
            sizes.any_size(convert, 1, ("x",))


def test_the_graph_is_valid():
    onnx.checker.check_model(sizes.any_size(lambda h, w: mean(2 * h, 2 * w), 2, ("x",)), full_check=True)
