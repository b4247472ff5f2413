"""On an accelerator: `JAX_PLATFORMS=cuda,cpu python -m pytest -m gpu`. Files and training are those of a CPU."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clic_jax
from clic_jax import api, metrics
from clic_jax.checkpoints.states import TrainingCheckpoints
from clic_jax.model.clic import init_params
from clic_jax.quality import Quality
from clic_jax.training import steps
from tests.conftest import photograph
from tests.golden import pinned
from tests.micro import MICRO

pytestmark = pytest.mark.gpu

STEPS = 10


def cpu():
    return jax.devices("cpu")[0]


@pytest.fixture(scope="module")
def training():
    """train(device, state, first, last) -> (state on the host, losses): streamed steps, the same crops everywhere."""
    compiled = {}

    def train(device, state, first, last):
        if device not in compiled:
            mesh = steps.make_mesh([device])
            compiled[device] = mesh, steps.make_streamed_step(MICRO, mesh)
        (mesh, step), losses, sweep = compiled[device], [], steps.Sweep.of(MICRO)
        state = steps.replicate(mesh, jax.tree.map(jnp.array, state))
        for i in range(first, last):
            crops = np.stack([photograph(64, 64, 8 * i + j) for j in range(MICRO.train.batch)])
            state, found = step(state, steps.shard_batch(mesh, crops), sweep)
            losses.append(float(found["loss"]))
        return jax.device_get(state), losses

    return train


@pytest.fixture(scope="module")
def start():
    """A state before the first step, drawn on the CPU, as other generators draw other values."""
    with jax.default_device(cpu()):
        return jax.device_get(steps.new_state(MICRO, init_params(MICRO.model)))


@pytest.fixture(scope="module")
def trained(training, start):
    return training(jax.devices()[0], start, 0, STEPS)


def assert_close(a, b):
    """Parameters of as many steps, each of which moves one by the learning rate at most, a tenth of that apart."""
    far = STEPS * MICRO.train.learning_rate
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=0.1 * far), a.params, b.params)


def test_a_file_written_here_is_read_here_and_on_a_cpu(published_micro):
    """The same integers, and pictures that are one grey level apart at most."""
    x = photograph(101, 150)
    data = clic_jax.compress(x, quality=60, model=published_micro)
    there = pinned.listening(published_micro)
    ours = np.array(api.decompress_image(data, model=there), int)
    with jax.default_device(cpu()):
        here = pinned.listening(published_micro)
        theirs = np.array(api.decompress_image(data, model=here), int)
    assert there.heard == here.heard
    assert np.abs(ours - theirs).max() <= 1
    assert metrics.psnr(x, ours.astype(np.uint8)) > 20
    symbols = [codec.encode(x, Quality.of(60))[0].stream for codec in (there, here)]
    assert len(symbols[0]) == pytest.approx(len(symbols[1]), rel=0.01)  # encoders are free, if not by much


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in pinned.FOLDER.glob("*/expected.json")), ids=lambda p: p.name
)
def test_golden_files_of_a_cpu(folder):
    """Released models read what CPUs wrote: every integer alike, pixels to one grey level."""
    expected = json.loads((folder / "expected.json").read_text())
    pinned.check(pinned.listening(expected["name"]), folder.name, expected, folder)


def test_ten_steps_are_those_of_a_cpu(training, start, trained):
    ours, losses = trained
    theirs, reference = training(cpu(), start, 0, STEPS)
    np.testing.assert_allclose(losses, reference, rtol=2e-3)
    assert_close(ours, theirs)


def test_resume(training, start, trained, tmp_path):
    """Six steps, a checkpoint, four more are ten in one go; and a CPU reads the checkpoint as it is."""
    half, losses = training(jax.devices()[0], start, 0, 6)
    with TrainingCheckpoints(tmp_path, MICRO) as saved:
        saved.save(6, steps.replicate(steps.make_mesh([jax.devices()[0]]), half))
        state = saved.restore_newest(steps.state_shapes(MICRO, steps.make_mesh([jax.devices()[0]])))
        on_cpu = saved.restore_newest(steps.state_shapes(MICRO, steps.make_mesh([cpu()])))
    jax.tree.map(np.testing.assert_array_equal, half, on_cpu)
    assert {device for x in jax.tree.leaves(on_cpu) for device in x.devices()} == {cpu()}
    rest, more = training(jax.devices()[0], state, 6, STEPS)
    np.testing.assert_allclose(losses + more, trained[1], rtol=1e-3)
    assert int(rest.step) == STEPS
    assert_close(rest, trained[0])
