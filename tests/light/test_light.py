"""The runtime without JAX against JAX: the same symbols, pictures within a grey level, and JAX never imported."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from PIL import Image

from clic_jax import api, metrics, runtimes
from clic_jax.checkpoints import published
from clic_jax.checkpoints.explained import CheckpointError
from clic_jax.coding import fixedpoint, measured
from clic_jax.coding.effort import EffortError
from clic_jax.light import export, integers, programs
from clic_jax.model.clic import init_params
from clic_jax.model.schedule import code_slices
from clic_jax.quality import Quality
from experiments import int8
from tests.conftest import ROOT, photograph
from tests.micro import MICRO, MICRO_PAPER


@pytest.fixture(scope="module")
def exported(published_micro, tmp_path_factory):
    folder = tmp_path_factory.mktemp("light") / "micro"
    shutil.copytree(published_micro, folder)
    command = [sys.executable, "-m", "clic_jax", "export", str(folder)]
    done = subprocess.run(command, env=_env(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder} is ready for the runtime onnx\n", "")
    return folder


@pytest.fixture(scope="module")
def both(exported):
    return {name: api.open_model(exported, runtime=name) for name in ("onnx", "jax")}


@given(st.integers(1, 200), st.integers(1, 200), st.integers(100, 10000), st.integers(0, 10**6))
@settings(max_examples=12, deadline=None)
def test_each_reads_what_the_other_wrote(both, h, w, hundredths, seed):
    """Symbols by the checksum in each file; pictures by a grey level."""
    x, quality = photograph(h, w, seed), Quality(hundredths)
    files, shown = {}, {}
    for name, codec in both.items():
        files[name] = codec.encode(x, quality)[0]
    assert abs(len(files["onnx"].stream) - len(files["jax"].stream)) <= 2 + 0.0005 * len(files["jax"].stream)
    for coded in files.values():
        for name, codec in both.items():
            latents = codec.read(coded.stream, coded.pqf_bytes is not None, coded.check, h, w, quality)
            shown[name] = codec.show(latents, h, w).astype(int)
        assert np.abs(shown["onnx"] - shown["jax"]).max() <= 1


def test_tiles(both):
    x = photograph(300, 500)
    pictures = []
    for codec in both.values():
        coded, latents = codec.encode(x, Quality(5000), tile=256)
        pictures.append(codec.show(latents, 300, 500, tile=256).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_the_papers_graph(tmp_path):
    """Checkerboard blocks, three hyper decoders, medians, joint filter, one rate: exported, and the same."""
    config, rng = MICRO_PAPER.model, np.random.default_rng(0)
    params = jax.device_get(init_params(config))
    params["prior"]["median"] = rng.uniform(-2, 2, params["prior"]["median"].shape).astype(np.float32)
    crops = np.stack([photograph(64, 64, seed) for seed in range(4)])
    data = measured.measure(config, params, crops)
    published.save_published(tmp_path / "paper", MICRO_PAPER, params, {}, coding=data)
    export.write(tmp_path / "paper")
    codecs = {name: api.open_model(tmp_path / "paper", runtime=name) for name in ("onnx", "jax")}
    x = rng.integers(0, 256, (70, 130, 3)).astype(np.uint8)
    coded, _ = codecs["jax"].encode(x, Quality(5000))
    shown = [
        c.show(c.read(coded.stream, coded.pqf_bytes is not None, coded.check, 70, 130, Quality(5000)), 70, 130)
        for c in codecs.values()
    ]
    assert np.abs(shown[0].astype(int) - shown[1]).max() <= 1


def test_integer_networks_are_equal(both):
    """Through the schedule, on integers far beyond what photographs give, where activations saturate."""
    light, own = (both[name].programs.context for name in ("onnx", "jax"))
    rng = np.random.default_rng(0)
    for scale in (3, 300, 30000):
        z = np.int32(np.clip(rng.normal(0, scale, (1, 4, 6, MICRO.model.hyper_layers[-1][0])), -32768, 32767))

        def code(k, colour, mean, raw):
            q = np.random.default_rng(2 * k + colour).integers(-scale, scale, mean.shape)
            heard.append(np.asarray((mean, raw)))
            return (np.int32(q) << fixedpoint.Y_BITS) + mean

        results = []
        for context, to in ((light, np.asarray), (own, jnp.asarray)):
            heard = []
            code_slices(context, context.features(to(z)), code)
            results.append(heard)
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)


def test_stored_integers_are_those_of_the_model(both):
    light, own = (both[name].programs.context for name in ("onnx", "jax"))
    for group in integers.GROUPS:
        pairs = zip(jax.tree.leaves(getattr(light, group)), jax.tree.leaves(getattr(own, group)), strict=True)
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def test_both_look_back(both):
    """At effort 1, to files that either reads and that cost less; the same symbols but where floats decide a few."""
    x, quality, lmbda, y_hat = photograph(100, 140), Quality(6000), Quality(6000).lmbda(MICRO.model.lmbdas), []
    for coder, other in (both.values(), reversed(both.values())):
        costs = []
        for effort in (0, 1):
            coded, latents = coder.encode(x, quality, effort=effort)
            costs.append(8 * len(coded.stream) + lmbda * metrics.squared_error(x, coder.show(latents, 100, 140)) / 3)
        assert costs[1] < costs[0]
        read = other.read(coded.stream, coded.pqf_bytes is not None, coded.check, 100, 140, quality)
        y_hat.append(np.asarray(latents.y_hat))
        np.testing.assert_array_equal(np.asarray(read.y_hat), y_hat[-1])
    assert (np.abs(y_hat[0] - y_hat[1]) < 0.5).mean() > 0.99


def test_a_search_needs_jax(both):
    with pytest.raises(EffortError, match="effort 3 needs the runtime jax"):
        both["onnx"].encode(photograph(64, 64), Quality(5000), effort=3)


WITHOUT = """
import sys
import zipfile
from pathlib import Path
for name in ("jax", "jaxlib", "flax", "optax", "orbax", "tensorstore"):
    sys.modules[name] = None  # as if it were not installed, for imports and for those who ask
"""


def test_without_jax(exported, tmp_path):
    """The command line, the library and the Pillow plugin where nothing of JAX can be imported."""
    code = f"""{WITHOUT}
import numpy as np
from PIL import Image
import clic_jax, clic_jax.pillow
from clic_jax.__main__ import main
folder = {str(exported)!r}
x = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
Image.fromarray(x).save("a.png")
for line in (["compress", "a.png", "--effort", "1", "-o", "a.clic", "--model", folder], ["info", "a.clic"],
             ["models", folder], ["decompress", "a.clic", "-o", "b.png", "--model", folder]):
    try:
        main(line)
    except SystemExit as error:
        assert not error.code, (line, error.code)
pixels = clic_jax.decompress("a.clic", model=folder)
assert (pixels == np.array(Image.open("b.png"))).all()
print(any(name.startswith("jax") and module for name, module in sys.modules.items()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=_env(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_errors_without_jax(exported, tmp_path, published_micro):
    """One line that says what to do, and exit status 2: a search, JAX asked for, a model that is not exported."""
    code = f"{WITHOUT}\nfrom clic_jax.__main__ import main\nmain(sys.argv[1:])"
    Image.fromarray(photograph(64, 64)).save(tmp_path / "a.png")
    for arguments, text in (
        (["--model", exported, "--effort", "3"], "JAX, which this needs, is not installed"),
        (["--model", exported, "--runtime", "jax"], "JAX, which this needs, is not installed"),
        (["--model", published_micro], "is not exported (`clic-jax export`, with JAX), and JAX is not installed"),
        (["--model", published_micro, "--runtime", "onnx"], "is not exported for onnxruntime"),
    ):
        command = [sys.executable, "-c", code, "compress", "a.png", "-o", "x.clic", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=_env(), capture_output=True, text=True)
        assert done.returncode == 2 and text in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "x.clic").exists()


def _env():
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_damage_is_named(exported, tmp_path):
    """Any file of the folder, truncated or with a bit flipped; another model's; another version."""

    def damaged(change, match):
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(exported, folder)
        change(folder / "light")
        with pytest.raises(CheckpointError, match=match):
            programs.load(folder)

    def flip(name):
        def change(light):
            data = bytearray((light / name).read_bytes())
            data[len(data) // 2] ^= 4
            (light / name).write_bytes(data)

        return change

    for name in ("g_a.onnx", "g_s.onnx", "h_a.onnx", "feature.onnx", "maps.onnx", "network.npz", "../coding.json"):
        damaged(flip(name), "is not what was exported with the model")
    damaged(lambda light: (light / "g_s.onnx").unlink(), "cannot read .*light")
    damaged(lambda light: (light / "about.json").write_text("{"), "cannot read .*light")

    def rewritten(**changes):
        def change(light):
            about = json.loads((light / "about.json").read_text()) | changes
            (light / "about.json").write_text(json.dumps(about))

        return change

    def named(name, content, target=None):
        """The hash of a file that somebody else has put there, or linked."""

        def change(light):
            about = json.loads((light / "about.json").read_text())
            path = light.parent / name
            path.unlink(missing_ok=True)
            if target:
                path.symlink_to(target)
            else:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            about["sha256"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
            (light / "about.json").write_text(json.dumps(about))

        return change

    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file, file.open("a.npy", "w") as entry:
        for _ in range(1025):
            entry.write(bytes(2**20))
    damaged(named("../elsewhere", b"x"), "is a link or no file of an export")
    damaged(named("light/g_s.onnx", b"", ROOT / "README.md"), "is a link or no file of an export")
    damaged(named("light/g_s.onnx", b"...location...secret"), "g_s.onnx names other files")
    damaged(named("light/network.npz", bomb.getvalue()), "network.npz unfolds to more than")
    damaged(named("light/network.npz", b"PK"), "cannot read .*light")
    damaged(rewritten(format=2), "has format 2, not 1")
    damaged(rewritten(model_id="12345678"), "is of model '12345678', not")


def test_runtimes(exported, published_micro, monkeypatch):
    """The argument, the environment, and what is possible without either."""
    monkeypatch.delenv(runtimes.VARIABLE, raising=False)
    assert [runtimes.choose(folder) for folder in (exported, published_micro)] == ["onnx", "jax"]
    monkeypatch.setenv(runtimes.VARIABLE, "jax")
    assert [runtimes.choose(exported), runtimes.choose(exported, "onnx")] == ["jax", "onnx"]
    monkeypatch.setenv(runtimes.VARIABLE, "cuda")
    with pytest.raises(runtimes.NoRuntime, match="CLIC_JAX_RUNTIME 'cuda' is none: choose onnx, jax, int8"):
        runtimes.choose(exported)
    monkeypatch.setattr(runtimes, "_have", lambda package: package == "jax")
    assert runtimes.choose(exported, "jax") == "jax"
    with pytest.raises(runtimes.NoRuntime, match="onnxruntime is not installed"):
        runtimes.choose(exported, "onnx")


def test_int8(exported, tmp_path, monkeypatch):
    """The command, on a copy: products are integers, files go both ways, pictures differ little, damage is named."""
    folder = Path(shutil.copytree(exported, tmp_path / "micro"))
    with pytest.raises(runtimes.NoRuntime, match="has no transforms in int8: `python -m experiments.int8`"):
        api.open_model(folder, runtime="int8")
    for setting, value in (("CROPS", 4), ("SIDE", 64)):
        monkeypatch.setattr(int8, setting, value)
    assert int8.main([str(folder)]) == 0
    for name in ("g_a", "g_s"):
        graph = onnx.load(folder / "light" / f"{name}.int8.onnx").graph
        arrays = map(numpy_helper.to_array, graph.initializer)
        weights = np.concatenate([x.ravel() for x in arrays if x.dtype == np.int8]).astype(int)
        assert weights.size > 200 and 60 < abs(weights).max() <= 64  # 2 x 255 x 64 < 2^15: nothing saturates
    codecs = {name: api.open_model(folder, runtime=name) for name in ("onnx", "int8")}
    x, quality = photograph(100, 150), Quality(5000)
    for writer in codecs.values():
        coded, _ = writer.encode(x, quality)
        shown = []
        for reader in codecs.values():
            latents = reader.read(coded.stream, coded.pqf_bytes is not None, coded.check, 100, 150, quality)
            shown.append(reader.show(latents, 100, 150).astype(float))
        assert 0 < np.square(shown[0] - shown[1]).mean() < int8.TOGETHER * x.astype(float).var()
    os.truncate(folder / "light" / "g_s.int8.onnx", 1000)
    with pytest.raises(CheckpointError, match="g_s.int8.onnx is not what was exported"):
        programs.load(folder, int8=True)
