"""Exports, run where neither Flax nor this package can be imported: they compute what the codec computes."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from clic_jax import api
from clic_jax.__main__ import main
from clic_jax.checkpoints import published
from clic_jax.checkpoints.arrays import flat
from clic_jax.exchange import exports
from clic_jax.model.checkerboard import split
from clic_jax.model.schedule import slices
from clic_jax.settings import from_json
from tests.conftest import photograph
from tests.micro import MICRO

ALONE = """
import os, sys
for name in ({without}):
    sys.modules[name] = None  # as if it were not installed
import numpy as np
given = dict(np.load("given.npz"))
found = {{}}
{body}
assert not any(name.startswith(("clic_jax", "flax")) and module for name, module in sys.modules.items())
np.savez("found.npz", **found)
"""


def alone(folder, body: str, given: dict, without=("clic_jax", "flax")) -> dict:
    """What the code leaves in `found`, run in a process of its own in that folder."""
    np.savez(folder / "given.npz", **given)
    code = ALONE.format(without=", ".join(map(repr, without)), body=body)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "found.npz"))


def command(*arguments) -> int:
    with pytest.raises(SystemExit) as error:
        main(["export", *map(str, arguments)])
    return error.value.code


STABLEHLO = """
from jax import export

for name in sorted(os.listdir("out")):
    if not name.endswith(".stablehlo"):
        continue
    with open(f"out/{name}", "rb") as file:
        function = export.deserialize(bytearray(file.read()))
    assert function.platforms == ("cpu", "cuda", "tpu"), function.platforms
    name = name.removesuffix(".stablehlo")
    for case in ("0", "1"):
        inputs = []
        while f"{case}/{name}/{len(inputs)}" in given:
            inputs.append(given[f"{case}/{name}/{len(inputs)}"])
        outputs = function.call(*inputs)
        for i, output in enumerate(outputs if isinstance(outputs, (list, tuple)) else [outputs]):
            found[f"{case}/{name}/{i}"] = np.asarray(output)
"""


def test_stablehlo(published_micro, tmp_path, capsys):
    """Every function, at two sizes: integers the same, pictures and y as near as compilers leave them."""
    assert command(published_micro, "--format", "stablehlo", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out == f"{published_micro} as stablehlo: {tmp_path / 'out'}\n"
    programs, groups = api.open_model(published_micro, runtime="jax").programs, MICRO.model.groups
    rng, given, expected = np.random.default_rng(0), {}, {}

    def case(name, *inputs, gives):
        prefix = f"{size}/{name}"
        given.update({f"{prefix}/{i}": np.asarray(value) for i, value in enumerate(inputs)})
        outputs = gives if isinstance(gives, tuple) else (gives,)
        expected.update({f"{prefix}/{i}": np.asarray(value) for i, value in enumerate(outputs)})

    for size, (h, w) in enumerate(((64, 64), (128, 192))):
        x, lmbda = photograph(h, w, size)[None], np.float32([0.004])
        y = np.asarray(programs.analyse(x, lmbda))
        _, z = programs.hyper(y, None)
        features, feature = programs.features(z), programs.feature(z)
        case("g_a", x, lmbda, gives=y)
        case("h_a", y, gives=z)
        case("h_s", z, gives=features)
        case("feature", z, gives=feature)
        case("maps", y, gives=programs.maps(y))
        case("g_s", y, feature, lmbda, gives=programs.synthesise(y, feature, lmbda))
        decoded = [np.int32(64 * part) for part in slices(np.rint(y) + rng.integers(-2, 3, y.shape), groups)]
        for k in range(len(groups)):
            *distribution, support = programs.steps[0](k, decoded[:k], features)
            case(f"anchors_{k}", features, *decoded[:k], gives=(*distribution, support))
            half = split(decoded[k])[0]
            case(f"others_{k}", half, support, gives=tuple(programs.steps[1](k, half, support)))
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["model_id"] == published.load_published(published_micro)[2]
    assert about["functions"]["g_a"]["inputs"] == ["uint8[1,64*h,64*w,3]", "float32[1]"]
    found = alone(tmp_path, STABLEHLO, given)
    assert found.keys() == expected.keys()
    assert {name.split("/")[1] for name in found} == about["functions"].keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        if value.dtype == np.int32:
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        else:
            atol = 1e-5 * max(np.abs(value).max(), 1)
            np.testing.assert_allclose(found[name], value, atol=atol, rtol=1e-4, err_msg=name)


ONNX = """
import onnxruntime

for name in ("g_a", "h_a", "feature", "maps", "g_s"):
    session = onnxruntime.InferenceSession(f"out/{name}.onnx", providers=["CPUExecutionProvider"])
    inputs = {value.name: given[f"{name}/{i}"] for i, value in enumerate(session.get_inputs())}
    found[name] = session.run(None, inputs)[0]
"""


def test_onnx(tmp_path, capsys):
    """A copy of what an installed model has, named by its name."""
    assert command("clic-tiny", "--format", "onnx", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out == f"clic-tiny as onnx: {tmp_path / 'out'}\n"
    programs = api.open_model("clic-tiny", runtime="jax").programs
    x, lmbda = photograph(128, 64)[None], np.float32([0.01])
    log_gain, log_inverse = programs.analyse.args[0].apply(
        {"params": programs.analyse.args[1]}, lmbda, method=type(programs.analyse.args[0]).gains
    )
    y = np.asarray(programs.analyse(x, lmbda))
    _, z = programs.hyper(y, None)
    feature = np.asarray(programs.feature(z))
    lines = (np.arange(n, dtype=np.float32) / (n - 1) - 0.5 for n in x.shape[1:3])
    given = {
        "g_a/0": np.float32(x),
        "g_a/1": np.stack(np.meshgrid(*lines, indexing="ij"), -1)[None],
        "h_a/0": y,
        "feature/0": np.float32(z),
        "maps/0": y,
        "g_s/0": np.concatenate([y * np.exp(log_inverse), feature], -1),
    }
    found = alone(tmp_path, ONNX, given, ("clic_jax", "flax", "jax"))
    expected = {
        "g_a": y / np.exp(log_gain),
        "feature": feature,
        "maps": programs.maps(y),
        "g_s": programs.synthesise(y, feature, lmbda),
    }
    np.testing.assert_array_equal(np.rint(found.pop("h_a")), z)
    found["g_s"] = np.clip(found["g_s"], 0, 255)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=2e-3 * np.abs(value).max(), err_msg=name)


SAFETENSORS = """
from safetensors import safe_open

with safe_open("out/params.safetensors", "np") as file:
    found = {name: file.get_tensor(name) for name in file.keys()}
    assert sorted(os.listdir("out")) == ["params.safetensors"]
    found |= {f"about/{name}": np.array(value) for name, value in file.metadata().items()}
"""


def test_safetensors(published_micro, tmp_path):
    """Names are paths in the tree; the metadata have the model id and the config."""
    pytest.importorskip("safetensors", reason="needs the package safetensors")
    assert command(published_micro, "--format", "safetensors", "--out", tmp_path / "out") == 0
    assert command(published_micro, "--format", "safetensors", "--out", tmp_path / "out") == 0  # replaced
    found = alone(tmp_path, SAFETENSORS, {}, ("clic_jax", "flax", "jax"))
    config, params, identity = published.load_published(published_micro)
    assert found.pop("about/model_id") == identity and from_json(str(found.pop("about/config"))) == config
    params = {path: np.asarray(leaf) for path, leaf in flat(params).items()}
    assert found.keys() == params.keys() and "g_a/stem/conv/kernel" in found
    for name, value in params.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("kind", ["onnx", "safetensors", "stablehlo"])
@pytest.mark.parametrize("there", ["empty", "more", "others", "file"])
def test_what_is_no_export_stays(kind, there, published_micro, tmp_path):
    """A folder that is empty or holds anything else, be it called the same, and a file."""
    if kind == "safetensors":
        pytest.importorskip("safetensors", reason="needs the package safetensors")
    out = tmp_path / "out"
    if there == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        own = {
            "onnx": ["about.json", "network.npz"],
            "safetensors": ["params.safetensors"],
            "stablehlo": ["about.json"],
        }
        names = {"empty": [], "others": own[kind], "more": [*own[kind], "b.txt"]}[there]
        for name in names:
            (out / name).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(exports.ExportError, match="is no export as .*: name another --out"):
        exports.write(published_micro, kind, out)
    assert sorted(tmp_path.rglob("*")) == before


def test_mistakes(published_micro, tmp_path, capfd, monkeypatch):
    """One line, status 2, nothing left behind."""
    monkeypatch.setitem(sys.modules, "safetensors", None)
    damaged = tmp_path / "damaged"
    shutil.copytree(published_micro, damaged)
    (damaged / "coding.json").write_text("{")
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"
    for arguments, told in (
        (("clic-tiny", "--format", "gguf"), "invalid choice: 'gguf'"),
        (("clic-none", "--format", "stablehlo", "--out", out), "no model 'clic-none'"),
        ((published_micro, "clic-tiny", "--format", "stablehlo", "--out", out), "one folder for 2 models"),
        ((published_micro, "--format", "safetensors", "--out", out), "safetensors, which this needs, is not installed"),
        ((damaged, "--format", "stablehlo", "--out", out), "cannot read"),
        ((damaged, "--format", "onnx", "--out", out), "cannot read"),
    ):
        assert command(*arguments) == 2, arguments
        (line,) = capfd.readouterr().err.splitlines()
        assert told in line, line
    assert sorted(tmp_path.rglob("*")) == before
