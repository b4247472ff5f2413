"""Exporting a model: what is missing, and what comes out wrong, is one line that leaves nothing behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from clic_jax import runtimes
from clic_jax.light import export
from experiments import int8
from tests.conftest import ROOT
from tests.micro import MICRO

NO_CONVERTER = """
import sys
for name in ("onnx", "onnx_ir", "jax2onnx"):
    sys.modules[name] = None  # as if it were not installed
import experiments.publish, experiments.train.__main__
"""
NO_JAX = """
import sys
for name in ("jax", "jaxlib", "flax"):
    sys.modules[name] = None
"""
EXPORT = """
from clic_jax.__main__ import main
main(["export", sys.argv[1]])
"""


@pytest.mark.parametrize(
    "missing, text",
    [
        (NO_CONVERTER, "jax2onnx, which converts the networks, is not installed: pip install onnx onnx-ir"),
        (NO_JAX, "JAX, which this needs, is not installed"),
    ],
)
def test_where_something_is_missing(missing, text, published_micro):
    """One line. Training, which publishes, needs no converter: of the installs only that of developers has one."""
    command = [sys.executable, "-c", missing + EXPORT, str(published_micro)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and text in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (published_micro / "light").exists()


def test_a_graph_that_differs(published_micro, tmp_path, monkeypatch):
    """onnxruntime must compute what JAX does; the error says what does not, and is no other kind of error."""
    folder = tmp_path / "micro"
    shutil.copytree(published_micro, folder)
    shape = (1, 4, 4, MICRO.model.latent_channels)
    y = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("y", "out")]
    graph = helper.make_graph([helper.make_node("Neg", ["y"], ["out"])], "negated", ends[:1], ends[1:])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    monkeypatch.setattr(export, "_graphs", lambda *_: ({"h_a": model}, {"h_a": [([y], y)]}))
    with pytest.raises(runtimes.ExportError, match="h_a in onnxruntime differs from JAX by 2 of its largest value"):
        export.write(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in published_micro.iterdir())


def test_graphs_in_int8_stay(published_micro, tmp_path, monkeypatch):
    """An export made anew has those that were made for the same parameters, and none that is damaged."""
    folder = Path(shutil.copytree(published_micro, tmp_path / "micro"))
    monkeypatch.setattr(export, "_graphs", lambda *_: ({}, {}))

    def kept():
        export.write(folder)
        told = json.loads((folder / "light/about.json").read_text())["sha256"]
        there = {path.name: path.read_bytes() for path in (folder / "light").glob("*.onnx")}
        assert {name.removeprefix("light/") for name in told if name.endswith(".onnx")} == there.keys()
        return there

    assert kept() == {}
    int8.add(folder, {"g_a": b"a", "g_s": b"s"})
    assert kept() == kept() == {"g_a.int8.onnx": b"a", "g_s.int8.onnx": b"s"}
    (folder / "light/g_s.int8.onnx").write_bytes(b"damaged")
    assert kept() == {"g_a.int8.onnx": b"a"}
    about = json.loads((folder / "light/about.json").read_text())
    (folder / "light/about.json").write_text(json.dumps(about | {"model_id": "12345678"}))
    assert kept() == {}
