"""Training states come back bit for bit; half-written, foreign and damaged ones are refused and cost no other one."""

import dataclasses
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clic_jax.checkpoints.arrays import CheckpointError, model_id, stored_config
from clic_jax.checkpoints.published import load_published
from clic_jax.checkpoints.states import TrainingCheckpoints
from clic_jax.config import PAPER, TINY
from tests.checkpoints.test_published import State, assert_same, flip_a_bit, make_state, python

# orbax leaves coroutines behind when files are damaged or the disk is full; they complain when they are collected
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def replaced(config, section, **changes):
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **changes)})


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
        (replaced(TINY, "model", heads=(4, 4, 8)), ["model.heads", "(4, 4, 4)", "(4, 4, 8)", "--out", "--resume"]),
        (PAPER, ["model.stem_kernel", "4", "5"]),
        (replaced(TINY, "train", optimizer="lion"), ["train.optimizer", "'adam'", "'lion'"]),
        (replaced(TINY, "train", metric="ms-ssim", crop=192), ["train.metric"]),
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


KILLED = """
    import os, signal, sys, threading, time
    from pathlib import Path
    from clic_jax.checkpoints.states import TrainingCheckpoints
    from clic_jax.config import TINY
    from tests.checkpoints.test_published import make_state
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
    from clic_jax.checkpoints.states import TrainingCheckpoints
    from clic_jax.config import TINY
    from clic_jax.checkpoints.arrays import CheckpointError
    from tests.checkpoints.test_published import assert_same, make_state
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


def test_importing_is_quick():
    result = python("import sys, clic_jax.checkpoints.states; print('orbax.checkpoint' in sys.modules)")
    assert result.stdout == "False\n", result.stderr


def test_a_step_that_does_not_say_its_config_is_passed_over(tmp_path):
    """The config and the state come from the newest step that has both; the damaged one is gone after that."""
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        saved.save(1, make_state(1))
        saved.save(2, make_state(2))
    (tmp_path / "2" / "about" / "metadata").write_text("{")
    assert stored_config(tmp_path) == TINY
    with TrainingCheckpoints(tmp_path, TINY) as saved:
        with pytest.warns(UserWarning, match="going on from step 1"):
            assert_same(saved.restore_newest(make_state()), make_state(1))
        assert saved.latest_step() == 1
        saved.save(2, make_state(2))
    (tmp_path / "1" / "about" / "metadata").write_text("{")
    (tmp_path / "2" / "about" / "metadata").write_text("{")
    with pytest.raises(CheckpointError):
        stored_config(tmp_path)
