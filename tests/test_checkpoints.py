"""Checkpoints come back bit for bit, on any number of devices; half-written, foreign and damaged ones are refused."""

import dataclasses
import json
import os
import shutil
import signal
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

from clic_jax import checkpoints
from clic_jax.checkpoints import (
    CheckpointError,
    TrainingCheckpoints,
    load_published,
    model_id,
    published_names,
    save_published,
)
from clic_jax.config import PAPER, TINY

# orbax leaves coroutines behind when files are damaged or the disk is full; they complain when they are collected
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
    here = Path(__file__).parent
    environment = dict(
        os.environ,
        JAX_PLATFORMS="cpu",
        PYTHONPATH=os.pathsep.join([str(here), str(here.parent)]),
        XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}",
    )
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120)


def biggest_file(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def replaced(config, section, **changes):
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **changes)})


# training checkpoints


def test_round_trip_is_exact_and_keeps_types(tmp_path):
    state = make_state(7)
    with TrainingCheckpoints(tmp_path / "run", TINY) as saved:
        assert saved.latest_step() is None and saved.best_step() is None
        assert saved.save(7, state, {"loss": np.float32(1.5)})
        assert_same(saved.restore(state), state)
    with TrainingCheckpoints(tmp_path / "run", TINY) as saved:
        shapes = jax.eval_shape(lambda: make_state())
        assert saved.latest_step() == saved.best_step() == 7
        restored = saved.restore(shapes)
        assert_same(restored, state)
        assert isinstance(restored, State) and isinstance(restored.opt_state[1][0], optax.ScaleByAdamState)
        assert all(x.devices() == jnp.zeros(()).devices() for x in jax.tree.leaves(restored))


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    spoil = jax.jit(lambda state: jax.tree.map(lambda x: x * 0 + 3, state), donate_argnums=0)
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        state = make_state(1, size=512)
        expected = jax.tree.map(lambda x: np.array(x), state)
        saved.save(1, state)
        for _ in range(5):  # overwrites the buffers while the disk is being written
            state = spoil(state)
        assert_same(saved.restore(state), expected)


def test_keeps_the_best_and_the_last(tmp_path):
    state = make_state()
    losses = {1: {"loss": 5.0}, 2: {"loss": 1.0}, 3: None, 4: {"loss": float("nan")}, 5: {"loss": 2.0}, 6: {}}
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        for step, metrics in losses.items():
            saved.save(step, state, metrics)
        assert (saved.best_step(), saved.latest_step()) == (2, 6)
    assert sorted(os.listdir(tmp_path)) == ["2", "5", "6"]
    with TrainingCheckpoints(tmp_path, TINY, keep_last=1) as saved:  # the losses are read back from the disk
        assert saved.best_step() == 2
        saved.save(7, state, {"loss": 0.5})
        saved.wait()
        assert saved.best_step() == 7
    assert os.listdir(tmp_path) == ["7"]
    with pytest.raises(ValueError, match="keep_last"):
        TrainingCheckpoints(tmp_path, TINY, keep_last=0)


def test_saving_a_step_twice_or_an_older_one(tmp_path):
    first, second = make_state(1), make_state(2)
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        assert saved.save(4, first) and saved.save(5, first)
        assert not saved.save(5, second)
        assert_same(saved.restore(first), first)
        with pytest.raises(CheckpointError, match="step 3 is older than step 5"):
            saved.save(3, second)
        assert saved.save(5, second, force=True)
        assert_same(saved.restore(first), second)
        assert_same(saved.restore(first, step=4), first)
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 9 in .*: it has \[4, 5\]$"):
            saved.restore(first, step=9)


@pytest.mark.parametrize(
    "config, words",
    [
        (replaced(TINY, "model", heads=(4, 8)), ["model.heads", "(4, 4)", "(4, 8)", "--out", "--resume"]),
        (PAPER, ["model.stem_kernel", "8", "5"]),
        (replaced(TINY, "train", optimizer="lion"), ["train.optimizer", "'adam'", "'lion'"]),
        (replaced(TINY, "train", metric="ms-ssim"), ["train.metric"]),
    ],
)
def test_another_config_is_refused_by_its_first_field(tmp_path, config, words):
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        saved.save(1, make_state())
    with pytest.raises(CheckpointError) as caught:
        TrainingCheckpoints(tmp_path, config)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_settings_of_the_run_may_change(tmp_path):
    state = make_state()
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        saved.save(1, state)
    longer = dataclasses.replace(replaced(TINY, "train", steps=7, batch=2, log_every=3, learning_rate=0.1), name="more")
    with TrainingCheckpoints(tmp_path, longer) as saved:
        assert_same(saved.restore(state), state)
        saved.save(2, state)
    assert load_published(tmp_path)[0] == longer


def test_another_state_is_refused_by_its_first_array(tmp_path, capfd):
    state = make_state()
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        with pytest.raises(CheckpointError, match=r"no checkpoint .*: it has \[\]"):
            saved.restore(state)
        saved.save(1, state)
        g_a = state.params["g_a"]
        cases = [
            (
                {**state.params, "g_a": {**g_a, "kernel": jnp.zeros((3, 3, 64, 9))}},
                r"params/g_a/kernel is float32\[3, 3, 64, 8\] there and float32\[3, 3, 64, 9\] here",
            ),
            (
                {**state.params, "g_a": {**g_a, "kernel": g_a["kernel"].astype(jnp.float16)}},
                "params/g_a/kernel is float32.* there and float16",
            ),
            ({**state.params, "new": jnp.zeros(2)}, r"params/new is absent there and float32\[2\] here"),
            ({"g_a": g_a}, r"params/h_a/half is bfloat16\[3\] there and absent here"),
        ]
        for params, message in cases:
            with pytest.raises(CheckpointError, match=message):
                saved.restore(state._replace(params=params))
    assert capfd.readouterr().err == ""


WRITE = """
    import sys, jax, numpy as np
    from jax.sharding import NamedSharding, PartitionSpec as P
    from clic_jax.checkpoints import TrainingCheckpoints, load_published, save_published
    from clic_jax.config import TINY
    from test_checkpoints import State, assert_same, make_state
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


KILLED = """
    import os, signal, sys, threading, time
    from pathlib import Path
    from clic_jax.checkpoints import TrainingCheckpoints
    from clic_jax.config import TINY
    from test_checkpoints import make_state
    folder, moment = Path(sys.argv[1]), sys.argv[2]
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    def rename(source, target, original=os.rename):
        if Path(target).name != "2":
            return original(source, target)
        while moment == "writing":  # the commit must not win the race against the other thread
            time.sleep(1)
        die()
    def watch():
        while not any(path.stat().st_size > 1e5 for path in folder.glob("2.*/**/d/*")):
            time.sleep(0.001)
        die()
    saved = TrainingCheckpoints(folder, TINY, keep_last=1)
    saved.save(1, make_state(1))
    saved.wait()
    os.rename = rename
    if moment == "writing":
        threading.Thread(target=watch).start()
    saved.save(2, make_state(2, size=512))  # long enough to be caught writing
    saved.wait()
    print("survived")
"""


@pytest.mark.parametrize("moment", ["writing", "before the commit"])
def test_a_process_killed_while_saving_leaves_the_previous_step(tmp_path, moment):
    result = python(KILLED, tmp_path, moment)
    assert result.returncode == -signal.SIGKILL and result.stdout == "", result.stderr
    half_written = [name for name in os.listdir(tmp_path) if name.startswith("2")]
    assert half_written and "2" not in half_written
    assert load_published(tmp_path)[2] == model_id(make_state(1).ema)  # readers ignore it
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        assert saved.latest_step() == 1
        assert_same(saved.restore(make_state()), make_state(1))
        assert saved.save(2, make_state(2))
        assert_same(saved.restore(make_state()), make_state(2))
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_a_process_killed_while_deleting_old_steps_can_resume(tmp_path):
    state = make_state()
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        saved.save(1, state, {"loss": 2.0})
        saved.save(2, state, {"loss": 1.0})
    for name in ("_CHECKPOINT_METADATA", "metrics", "state"):  # what a half-finished rmtree leaves of an old step
        path = tmp_path / "1" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        assert_same(saved.restore(state), state)
        saved.save(3, state)
        saved.save(4, state)
    assert sorted(os.listdir(tmp_path)) == ["2", "3", "4"]


FULL = """
    import resource, sys
    from clic_jax.checkpoints import CheckpointError, TrainingCheckpoints
    from clic_jax.config import TINY
    from test_checkpoints import assert_same, make_state
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with TrainingCheckpoints(sys.argv[1], TINY, keep_last=1) as saved:
            saved.save(1, make_state(1))
            saved.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, unlimited[1]))
            saved.save(2, make_state(2, size=512))
    except CheckpointError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    with TrainingCheckpoints(sys.argv[1], TINY) as saved:
        assert saved.latest_step() == 1
        assert_same(saved.restore(make_state()), make_state(1))
"""


def test_a_full_disk_is_one_line_and_costs_no_checkpoint(tmp_path):
    result = python(FULL, tmp_path)  # a limit on the size of a file stands in for a full disk
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"cannot write a checkpoint to {tmp_path}: File too large\n"


def test_an_error_in_the_loop_is_not_hidden_by_one_of_the_disk(tmp_path, monkeypatch):
    with pytest.raises(FloatingPointError) as caught:
        with TrainingCheckpoints(tmp_path, TINY) as saved:
            monkeypatch.setattr(os, "rename", lambda *_: 1 / 0)  # the commit of the save
            saved.save(1, make_state())
            raise FloatingPointError("loss is NaN")
    assert "division by zero" in caught.value.__notes__[0]


def test_an_unusable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot keep checkpoints in"):
        TrainingCheckpoints(tmp_path / "file" / "run", TINY)
    with pytest.raises(CheckpointError, match="cannot write"):
        save_published(tmp_path / "file" / "model", TINY, make_state().params, {})


def flip_a_bit(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["bit", "truncated", "gone"])
def test_a_damaged_step_is_named(tmp_path, damage):
    state = make_state()
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        saved.save(1, state)
        saved.save(2, state)
        saved.wait()
        for path in (tmp_path / "2" / "state").rglob("d/*"):
            if damage == "truncated":
                os.truncate(path, min(path.stat().st_size, 1000))
            elif damage == "gone":
                path.unlink()
            elif path.stat().st_size > 10_000:
                flip_a_bit(path)
        with pytest.raises(CheckpointError, match=r"/2 .*delete that folder") as caught:
            saved.restore(state)
        assert "\n" not in str(caught.value)
        assert_same(saved.restore(state, step=1), state)
    if damage != "bit":  # the bit may be in a part that is not loaded here
        with pytest.raises(CheckpointError, match="/2 .*delete that folder"):
            load_published(tmp_path)


# published checkpoints


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


def test_names_of_the_packaged_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path / "weights")
    assert published_names() == ()
    with pytest.raises(CheckpointError, match="this installation has none"):
        load_published("tiny")
    identities = {
        name: save_published(tmp_path / "weights" / name, TINY, make_state(seed).params, {})
        for seed, name in enumerate(("tiny", "base"))
    }
    assert published_names() == ("base", "tiny")
    assert load_published("tiny")[2] == identities["tiny"]
    with pytest.raises(CheckpointError, match="no checkpoint 'huge'.*base, tiny"):
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


def test_importing_is_quick():
    result = python("import sys, clic_jax.checkpoints; print('orbax.checkpoint' in sys.modules)")
    assert result.stdout == "False\n", result.stderr
