"""What has run once does not compile again: steps, pictures of one size, and the command line's second process."""

import os
import subprocess
import sys

import jax
import numpy as np
from PIL import Image

from clic_jax import api, runtime
from clic_jax.model import clic
from clic_jax.training import steps
from experiments import device
from tests.conftest import ROOT, photograph
from tests.training.test_steps import LEARNER


def test_training_step():
    """Compiled ahead of time, it compiles no more, and forgetting other programs leaves it as it is."""
    mesh = steps.make_mesh(jax.devices()[:1])
    sweep = steps.replicate(mesh, steps.Sweep.of(LEARNER))
    shapes = steps.state_shapes(LEARNER, mesh), steps.batch_shape(LEARNER, mesh), sweep
    step = steps.compile_step(steps.make_streamed_step(LEARNER, mesh), *shapes)
    state = steps.replicate(mesh, steps.new_state(LEARNER, clic.init_params(LEARNER.model)))
    runtime.release_memory(programs=True)
    for seed in range(3):
        crops = np.random.default_rng(seed).integers(0, 256, (8, 64, 64, 3)).astype(np.uint8)
        with device.compilations() as found:
            state, _ = step(state, steps.shard_batch(mesh, crops), sweep)
        assert not found.count
    assert int(state.step) == 3


def test_next_picture_of_a_size(published_micro):
    def there_and_back(height, width, seed, quality):
        data = api.compress(photograph(height, width, seed), model=published_micro, quality=quality)
        assert api.decompress(data, model=published_micro).shape == (height, width, 3)

    jax.clear_caches()  # of other tests' pictures of these sizes
    with device.compilations() as found:
        for seed in range(3):  # several: the filter's last program runs only where it might pay
            there_and_back(100, 180, seed, 5)
    assert found.count
    with device.compilations() as found:
        there_and_back(100, 180, 3, 5)
        there_and_back(128, 192, 4, 93)  # the same size when padded
    assert not found.count
    with device.compilations() as found:
        there_and_back(100, 200, 5, 50)
    assert found.count


def test_second_run_of_the_command_line(published_micro, tmp_path):
    """Another process and another picture of that size find every program on disk."""
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla"), "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}

    def new_programs(*arguments):
        before = set((tmp_path / "xla").glob("*-cache"))
        command = [sys.executable, "-m", "clic_jax", *arguments, "--model", str(published_micro)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return set((tmp_path / "xla").glob("*-cache")) - before

    for seed in range(2):
        Image.fromarray(photograph(64, 128, seed)).save(tmp_path / f"{seed}.png")
    for command, source, target in (("compress", "{}.png", "{}.clic"), ("decompress", "{}.clic", "{}.bmp")):
        new = [new_programs(command, source.format(i), "-o", target.format(i)) for i in range(2)]
        assert new[0] and not new[1]
