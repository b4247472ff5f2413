"""Published parameters come back bit for bit, on any number of devices; damaged and foreign folders are refused."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clic_jax.checkpoints.arrays import CheckpointError, model_id
from clic_jax.checkpoints.installed import NoModel, installed
from clic_jax.checkpoints.published import load_published, save_published
from clic_jax.checkpoints.states import TrainingCheckpoints
from clic_jax.config import TINY
from tests.conftest import ROOT

# orbax leaves coroutines behind when files are damaged; they complain when they are collected
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class State(NamedTuple):
    """The shape of a training state, small."""

    step: Any
    params: Any
    ema: Any
    opt_state: Any


def make_state(seed: int = 0, size: int = 64) -> State:
    """A state of random numbers (which do not compress) with every kind of leaf that training has."""
    normal = np.random.default_rng(seed).standard_normal
    params = {
        "g_a": {"kernel": normal((3, 3, size, 8), np.float32), "bias": np.full(8, -0.0, np.float32)},
        "h_a": {"kernel": normal((size, size), np.float32), "half": np.ones(3, jnp.bfloat16)},
    }
    params = jax.tree.map(jnp.asarray, params)
    ema = jax.tree.map(lambda x: x * 0.5 + 1, params)
    opt_state = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params)
    return State(jnp.asarray(seed, jnp.int32), params, ema, jax.tree.map(lambda x: x + 1, opt_state))


def assert_same(a, b):
    """Structure, dtypes and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype and x.shape == y.shape and np.asarray(x).tobytes() == np.asarray(y).tobytes()


def python(code: str, *arguments, devices: int = 1) -> subprocess.CompletedProcess:
    """Runs `code` in a fresh process with that many CPU devices; a device count is fixed when JAX starts."""
    environment = dict(
        os.environ,
        JAX_PLATFORMS="cpu",
        PYTHONPATH=str(ROOT),
        XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}",
    )
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120)


def flip_a_bit(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def biggest_file(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_published_round_trip(tmp_path):
    params = make_state(3).params
    metrics = {"bpp": 0.25, "psnr_db": [30.0, 31.5]}
    identity = save_published(tmp_path / "a", TINY, params, metrics)
    config, loaded, loaded_identity = load_published(tmp_path / "a")
    assert config == TINY and hash(config) == hash(TINY)
    assert_same(loaded, params)
    assert identity == loaded_identity == model_id(params) == model_id(loaded)
    assert all(x.devices() == jnp.zeros(()).devices() for x in jax.tree.leaves(loaded))
    assert json.loads((tmp_path / "a" / "metrics.json").read_text()) == metrics
    assert os.listdir(tmp_path) == ["a"]  # nothing temporary is left
    assert sum(path.is_file() for path in (tmp_path / "a").rglob("*")) < 40
    with pytest.raises(CheckpointError, match="exists"):
        save_published(tmp_path / "a", TINY, params, metrics)


def test_half_precision_is_the_rounded_model(tmp_path):
    params = make_state(3).params
    identity = save_published(tmp_path / "half", TINY, params, {}, half=True)
    _, loaded, loaded_identity = load_published(tmp_path / "half")
    rounded = jax.tree.map(lambda x: x.astype(jnp.float16).astype(x.dtype) if x.dtype == jnp.float32 else x, params)
    assert_same(loaded, rounded)
    assert identity == loaded_identity == model_id(rounded) != model_id(params)
    save_published(tmp_path / "full", TINY, params, {})
    half, full = (sum(path.stat().st_size for path in (tmp_path / name).rglob("d/*")) for name in ("half", "full"))
    assert half < 0.6 * full
    for bad, name in ((np.float32(1e6), "half2"), (np.float32("nan"), "half3")):
        with pytest.raises(CheckpointError, match="h_a/w is not finite in float16"):
            save_published(tmp_path / name, TINY, {"h_a": {"w": bad[None]}}, {}, half=True)
    assert sorted(os.listdir(tmp_path)) == ["full", "half"]


def test_model_id():
    params = make_state(3).params
    backwards = {name: dict(reversed(list(block.items()))) for name, block in reversed(list(params.items()))}
    assert list(backwards) != list(params) and model_id(backwards) == model_id(params)
    assert model_id(jax.tree.map(np.asarray, params)) == model_id(params)
    assert model_id({"a": np.arange(6, dtype=np.float32).reshape(2, 3)}) == "ec43f356"  # stays, as files hold ids
    kernel = np.array(params["h_a"]["kernel"])
    kernel.view(np.uint32)[5, 5] ^= 1
    others = [
        {**params, "h_a": {**params["h_a"], "kernel": kernel}},
        {**params, "h_a": {**params["h_a"], "kernel": kernel.reshape(2, -1)}},
        {**params, "h_a": {**params["h_a"], "kernel": kernel.view(np.int32)}},
        {**params, "h_s": params["h_a"]},
        {**params, "g_a": {**params["g_a"], "bias": jnp.zeros(8)}},
    ]  # +0 for -0
    ids = [model_id(tree) for tree in (params, *others)]
    assert len(set(ids)) == len(ids) and all(len(identity) == 8 and int(identity, 16) >= 0 for identity in ids)


@pytest.mark.parametrize("damage", ["bit", "truncated", "gone", "other model", "json", "format"])
def test_a_damaged_published_checkpoint_is_refused(tmp_path, damage):
    folder = tmp_path / "model"
    save_published(folder, TINY, make_state(3).params, {})
    data, about = biggest_file(folder / "params"), folder / "checkpoint.json"
    assert data.stat().st_size > 10_000
    if damage == "bit":
        flip_a_bit(data)
    elif damage == "truncated":
        os.truncate(data, 100)
    elif damage == "gone":
        shutil.rmtree(folder / "params")
    elif damage == "other model":
        save_published(tmp_path / "other", TINY, make_state(4).params, {})
        shutil.rmtree(folder / "params")
        (tmp_path / "other" / "params").rename(folder / "params")
    elif damage == "json":
        about.write_text(about.read_text()[:20])
    else:
        about.write_text(about.read_text().replace('"format": 1', '"format": 2'))
    expected = "format 2.*upgrade" if damage == "format" else "if it is damaged"
    with pytest.raises(CheckpointError, match=expected) as caught:
        load_published(folder)
    assert "\n" not in str(caught.value)


def test_weights_are_read_without_orbax(published_micro):
    code = "import sys; from clic_jax.checkpoints.published import load_published as load; load(sys.argv[1])"
    result = python(code + "; print('orbax.checkpoint' in sys.modules)", published_micro)
    assert result.stdout == "False\n"


def test_nothing_tells_where_it_was_written(tmp_path):
    save_published(tmp_path / "a", TINY, make_state().params, {})
    for path in (tmp_path / "a").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path


def test_names_of_the_packaged_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr("clic_jax.checkpoints.installed.WEIGHTS", tmp_path / "weights")
    assert not installed()
    with pytest.raises(NoModel, match="there are none"):
        load_published("tiny")
    identities = {
        name: save_published(tmp_path / "weights" / name, TINY, make_state(seed).params, {})
        for seed, name in enumerate(("tiny", "base"))
    }
    assert installed() == {name: identities[name] for name in ("base", "tiny")}
    assert load_published("tiny")[2] == identities["tiny"]
    with pytest.raises(NoModel, match="no model 'huge'.*base, tiny"):
        load_published("huge")


def test_a_training_folder_gives_the_averaged_parameters_of_its_newest_step(tmp_path):
    one, two = make_state(1), make_state(2)
    with TrainingCheckpoints(tmp_path / "run" / "checkpoints", TINY) as saved:
        saved.save(9, one, {"loss": 0.1})
        saved.save(10, two, {"loss": 0.2})
    for path, state in (("run", two), ("run/checkpoints", two), ("run/checkpoints/9", one)):
        config, params, identity = load_published(tmp_path / path)
        assert config == TINY and identity == model_id(state.ema)
        assert_same(params, state.ema)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_published(tmp_path / "empty")
    with TrainingCheckpoints(tmp_path / "odd", TINY) as saved:
        saved.save(1, {"weights": jnp.ones(3)})
    with pytest.raises(CheckpointError, match="holds weights, but no 'ema'"):
        load_published(tmp_path / "odd")


def test_a_config_of_another_version_says_so(tmp_path):
    save_published(tmp_path / "model", TINY, make_state().params, {})
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace('"head_dim"', '"head_size"'))
    with pytest.raises(CheckpointError, match="another version.*head_size"):
        load_published(tmp_path / "model")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        save_published(tmp_path / "file" / "model", TINY, make_state().params, {})


WRITE = """
    import sys, jax, numpy as np
    from jax.sharding import NamedSharding, PartitionSpec as P
    from clic_jax.checkpoints.states import TrainingCheckpoints
    from clic_jax.config import TINY
    from clic_jax.checkpoints.published import load_published, save_published
    from tests.checkpoints.test_published import assert_same, make_state
    folder, source, count = sys.argv[1], int(sys.argv[2]), len(jax.devices())
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    place = lambda x: jax.device_put(x, NamedSharding(mesh, P("data") if x.ndim == 2 else P()))
    example = jax.tree.map(place, make_state())
    with TrainingCheckpoints(folder + "/run", TINY) as saved:
        if source:
            restored = saved.restore(example)
            assert_same(restored, make_state(source))
            assert_same(load_published(folder + "/run")[1], make_state(source).ema)
            assert_same(load_published(f"{folder}/published{source}")[1], make_state(source).params)
            assert restored.params["h_a"]["kernel"].sharding == example.params["h_a"]["kernel"].sharding
            assert len(restored.params["g_a"]["kernel"].devices()) == count
        saved.save(count, jax.tree.map(place, make_state(count)), force=True)
    if source != 1:
        save_published(f"{folder}/published{count}", TINY, jax.tree.map(place, make_state(count).params), {})
    print("done on", count)
"""


def test_eight_devices_to_one_and_back(tmp_path):
    """Saved sharded over 8 devices, restored by a process with 1 that knows nothing of the mesh, and the reverse."""
    for devices, source in ((8, 0), (1, 8), (8, 1)):
        result = python(WRITE, tmp_path, source, devices=devices)
        assert result.stdout == f"done on {devices}\n", result.stderr
        assert "Traceback" not in result.stderr
