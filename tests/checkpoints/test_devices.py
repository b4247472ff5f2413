"""A training state on other devices than those that wrote it: of eight on one, and of one on eight."""

import jax
import numpy as np
import pytest

from clic_jax.checkpoints.states import TrainingCheckpoints
from clic_jax.training import steps
from tests.checkpoints.test_published import python
from tests.micro import MICRO

ONE_DEVICE = """
    import sys
    import jax
    from clic_jax.checkpoints.states import TrainingCheckpoints
    from clic_jax.training import steps
    from tests.micro import MICRO
    assert jax.device_count() == 1
    shapes = steps.state_shapes(MICRO, steps.make_mesh())
    with TrainingCheckpoints(sys.argv[1], MICRO) as theirs, TrainingCheckpoints(sys.argv[2], MICRO) as ours:
        state = theirs.restore_newest(shapes)
        assert all(x.sharding.device_set == set(jax.devices()) for x in jax.tree.leaves(state))
        ours.save(5, state)
"""


def test_of_eight_devices_on_one_and_back(tmp_path):
    """Bit for bit, and on all devices of the reader; in processes that have no other devices."""
    if len(jax.devices()) < 8:
        pytest.skip("needs 8 (virtual) devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    mesh, random = steps.make_mesh(), np.random.default_rng(0)
    shapes = steps.state_shapes(MICRO, mesh)
    expected = jax.tree.map(lambda x: random.normal(0, 9, x.shape).astype(x.dtype), shapes)
    with TrainingCheckpoints(tmp_path / "eight", MICRO) as saved:
        saved.save(5, steps.replicate(mesh, expected))
    result = python(ONE_DEVICE, tmp_path / "eight", tmp_path / "one")
    assert result.returncode == 0, result.stderr
    with TrainingCheckpoints(tmp_path / "one", MICRO) as saved:
        state = saved.restore_newest(shapes)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert all(x.sharding.device_set == set(jax.devices()[:8]) for x in jax.tree.leaves(state))
