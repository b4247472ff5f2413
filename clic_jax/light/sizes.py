"""An ONNX graph for pictures of any size, from a converter that needs to know the size.

A network traced at several sizes gives the same nodes each time, and constants that differ: shapes, ends of slices,
numbers of pixels to divide by. All of them are whole numbers, and linear in 1, h, w, h w, h // 2 and w // 2, where h
and w count units of 64 pixels. So the graph of one size becomes that of all by computing those constants from the shape
of its first input. What is not linear in them is refused, and sizes that had no part in the fit are tried as well.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clic_jax.runtimes import ExportError

FITTED = ((2, 3), (3, 2), (5, 4), (4, 7), (7, 5), (6, 6))  # sizes (h, w) that the constants come from
TRIED = ((1, 1), (9, 4))  # and others that they must be right for
HALF_FROM = 64  # elements from which weights that float16 holds exactly are stored so


def any_size(convert: Callable[[int, int], onnx.ModelProto], unit: int, names: Sequence[str]) -> onnx.ModelProto:
    """The graph of a network for inputs of any size.

    Args:
      convert: (h, w) -> the graph for that size, in units of 64 pixels.
      unit: positions of the first input to a unit, along each side: 64 for a picture, 4 for y, 1 for z.
      names: of the inputs, in order; the output is called "out". Axes 1 and 2 of all are free.
    Raises: ExportError where the graphs differ by more than constants linear in the size.
    """
    models = {size: convert(*size) for size in (*FITTED, *TRIED)}
    base = models[FITTED[0]]
    for size, other in models.items():
        if _skeleton(other.graph) != _skeleton(base.graph):
            raise ExportError(
                f"the network's graph differs between sizes {FITTED[0]} and {size}, in units of 64 pixels"
            )
    values = {size: {i.name: numpy_helper.to_array(i) for i in m.graph.initializer} for size, m in models.items()}
    graph, nodes, kept = base.graph, [], []
    for tensor in graph.initializer:
        found = [values[size][tensor.name] for size in models]
        if all(np.array_equal(value, found[0]) for value in found):
            kept.append(narrow(tensor, nodes))
        else:
            nodes += _computed(tensor.name, list(models), found)
    rename = {value.name: name for value, name in zip(graph.input, names, strict=True)}
    rename[graph.output[0].name] = "out"
    body = [_renamed(node, rename) for node in graph.node]
    free = [helper.make_tensor_value_info(n, TensorProto.FLOAT, _axes(v)) for n, v in zip(names, graph.input)]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, _axes(graph.output[0]))
    made = helper.make_graph([*_basis(names[0], unit), *nodes, *body], "clic_jax", free, [out], kept + _numbers(unit))
    model = helper.make_model(made, opset_imports=base.opset_import, ir_version=base.ir_version)
    model.functions.extend(base.functions)
    onnx.checker.check_model(model)
    return model


def _axes(value) -> list:
    """The shape of an input or output with its sides free: each may have its own."""
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
    return [dims[0], None, None, *dims[3:]]


def _skeleton(graph):
    """What must be the same at all sizes: nodes, their attributes, and names and types of constants."""
    nodes = [
        (n.op_type, n.domain, *n.input, "|", *n.output, *(a.SerializeToString() for a in n.attribute))
        for n in graph.node
    ]
    return nodes, sorted((i.name, i.data_type) for i in graph.initializer)


def _terms(h, w):
    return [1, h, w, h * w, h // 2, w // 2]


def _numbers(unit: int) -> list:
    numbers = {"size/unit": np.int64([unit]), "size/one": np.int64([1]), "size/two": np.int64([2])}
    return [numpy_helper.from_array(value, name) for name, value in numbers.items()]


def _basis(first: str, unit: int) -> list:
    """Nodes that compute `_terms` of the size of the input `first`, int64 [6], as "size/terms"."""

    def side(name, axis):
        return [
            helper.make_node("Shape", [first], [f"size/{name}_positions"], start=axis, end=axis + 1),
            helper.make_node("Div", [f"size/{name}_positions", "size/unit"], [f"size/{name}"]),
            helper.make_node("Div", [f"size/{name}", "size/two"], [f"size/{name}_half"]),
        ]

    parts = [f"size/{name}" for name in ("one", "h", "w", "hw", "h_half", "w_half")]
    area = helper.make_node("Mul", ["size/h", "size/w"], ["size/hw"])
    return [*side("h", 1), *side("w", 2), area, helper.make_node("Concat", parts, ["size/terms"], axis=0)]


def _computed(name: str, sizes, found) -> list:
    """Nodes that compute the constant `name`, whose values at `sizes` were `found`."""
    shape, dtype = found[0].shape, found[0].dtype
    whole = [np.asarray(v, np.float64) for v in found]
    if any(v.shape != shape or (v != np.rint(v)).any() for v in whole) or len(shape) > 1:
        raise ExportError(f"the network's constant {name} depends on the size, and is not a vector of whole numbers")
    terms = np.array([_terms(*size) for size in sizes], np.float64)
    flat = np.stack([v.ravel() for v in whole])
    weights = np.rint(np.linalg.lstsq(terms[: len(FITTED)], flat[: len(FITTED)], rcond=None)[0])
    if (terms @ weights != flat).any():
        raise ExportError(f"the network's constant {name} is not linear in the size")
    weights = weights.T.astype(np.int64).reshape(*shape, terms.shape[1])
    integer = name if dtype == np.int64 else f"{name}/int64"
    nodes = [
        helper.make_node("Constant", [], [f"{name}/weights"], value=numpy_helper.from_array(weights)),
        helper.make_node("MatMul", [f"{name}/weights", "size/terms"], [integer]),
    ]
    if dtype != np.int64:
        nodes.append(helper.make_node("Cast", [integer], [name], to=helper.np_dtype_to_tensor_dtype(dtype)))
    return nodes


def narrow(tensor, nodes: list):
    """The constant as it is stored: float16 and a cast, appended to `nodes`, where that loses nothing."""
    value = numpy_helper.to_array(tensor)
    if value.dtype != np.float32 or value.size < HALF_FROM:
        return tensor
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), value):
        return tensor
    nodes.append(helper.make_node("Cast", [f"{tensor.name}/half"], [tensor.name], to=TensorProto.FLOAT))
    return numpy_helper.from_array(half, f"{tensor.name}/half")


def _renamed(node, rename: dict):
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for names in (copy.input, copy.output):
        for i, name in enumerate(names):
            names[i] = rename.get(name, name)
    return copy
