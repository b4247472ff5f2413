"""Runs that differ in seed, learning rate and lmbdas alone share one compiled step, and end as each would by itself."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.config import Config
from clic_jax.model import clic
from clic_jax.training import data, steps
from experiments import device
from experiments.train import feed
from tests.micro import MICRO
from tests.training.test_steps import photographs

FIXED = dataclasses.replace(MICRO, model=dataclasses.replace(MICRO.model, lmbdas=(0.01,)))


def other(config: Config, seed: int, rate: float, factor: float) -> Config:
    """The config with another seed and learning rate, and `factor` times its lmbdas."""
    lmbdas = tuple(factor * lmbda for lmbda in config.model.lmbdas)
    model = dataclasses.replace(config.model, lmbdas=lmbdas)
    return dataclasses.replace(
        config, model=model, train=dataclasses.replace(config.train, seed=seed, learning_rate=rate, lmbda_power=0.5)
    )


def run(step, config, mesh, count, *more):
    """The state and metrics after `count` steps from the config's own start; step(state, photos, *more)."""
    state = steps.new_state(config, jax.tree.map(jnp.array, clic.init_params(config.model)))
    state, photos = steps.replicate(mesh, state), steps.replicate(mesh, photographs())
    for _ in range(count):
        state, metrics = step(state, photos, *more)
    return jax.device_get((state, metrics))


@pytest.fixture(scope="module", params=[FIXED, pytest.param(MICRO, marks=pytest.mark.slow)], ids=["fixed", "variable"])
def program(request):
    """(config, mesh, its compiled step)."""
    mesh, config = steps.make_mesh(jax.devices()[:1]), other(request.param, 0, 1e-3, 1.0)
    return config, mesh, steps.make_cached_steps(config, mesh)


def test_one_program(program):
    """Two seeds, two rates and two lmbdas: eight runs, all different, of a step that compiles once."""
    config, mesh, step = program
    runs = [other(config, seed, rate, factor) for seed in (0, 1) for rate in (1e-3, 3e-3) for factor in (1.0, 1.5)]
    state = jax.device_get(steps.new_state(config, clic.init_params(config.model)))
    photos, ends = steps.replicate(mesh, photographs()), []

    def end(cfg):
        new, metrics = jax.device_get(step(steps.replicate(mesh, state), photos, steps.Sweep.of(cfg)))
        return tuple(
            map(float, (metrics["loss"], metrics["learning_rate"], new.params["h_a"]["conv0"]["kernel"].sum()))
        )

    with device.compilations() as found:
        ends.append(end(runs[0]))
        first = found.count
        ends += [end(cfg) for cfg in runs[1:]]
    assert found.count == first <= 1  # none where another test of this program came before
    assert step._cache_size() == 1
    assert len(set(ends)) == 8 and len({loss for loss, *_ in ends}) == 4  # the first loss knows no rate


def test_equals_constants(program):
    """Three steps end bit for bit as those of a program in which the numbers are constants.

    With a variable rate nearly so: XLA rounds the logarithms of constants, which it takes itself, another way.
    """
    config, mesh, step = program
    cfg = other(config, 7, 2e-3, 1.5)

    @jax.jit
    def constant(state, photos):
        key = steps._step_key(cfg.train.seed, state.step, 0)
        crops = data.random_crops(photos, key, batch=cfg.train.batch, size=cfg.train.crop)
        return steps.train_step(cfg, state, crops)

    ours, theirs = run(step, cfg, mesh, 3, steps.Sweep.of(cfg)), run(constant, cfg, mesh, 3)
    tolerance = dict(rtol=1e-6, atol=1e-6) if cfg.model.variable_rate else dict(rtol=0, atol=0)
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), ours, theirs)


def test_numbers_of_a_config():
    """As they are in it; a seed beyond 32 bits is cut as JAX cuts it."""
    sweep = steps.Sweep.of(other(MICRO, 2**32 + 5, 1e-3, 1.0))
    assert sweep.learning_rate == np.float32(1e-3) and sweep.lmbdas.tolist() == np.float32(MICRO.model.lmbdas).tolist()
    for seed in (0, 5, 2**31, 2**32 + 5):
        ours, theirs = (jax.random.key(s) for s in (steps.Sweep.of(other(MICRO, seed, 1e-3, 1.0)).seed, seed))
        assert jnp.array_equal(jax.random.key_data(ours), jax.random.key_data(theirs))


def test_feeds_of_other_numbers():
    """Data follow the seed, annealing the rate of the run at hand; neither touches the feed that they come from."""
    mesh = steps.make_mesh(jax.devices()[:1])
    sweep = steps.Sweep.of(MICRO)
    plain = feed.Feed(sweep, lambda first, seed: iter([(first, seed)] * 2), None, None, None, 1, 0.0, 0)
    source = feed.with_sweep(plain, sweep._replace(seed=np.uint32(3), learning_rate=np.float32(0.5)), mesh)
    shares = iter([1.0, 0.25])
    fallen = feed.annealed(source, lambda: next(shares))
    (where, first), (_, second) = fallen.batches(10)
    assert where == (10, 3) and (float(first.learning_rate), float(second.learning_rate)) == (0.5, 0.125)
    assert {int(numbers.seed) for numbers in (first, second)} == {3}
    ((where, numbers), _) = feed.with_seed(source, 4, mesh).batches(0)
    assert where == (0, 4) and int(numbers.seed) == 4 and float(numbers.learning_rate) == 0.5
    assert source.sweep.seed == 3 and plain.sweep.seed == MICRO.train.seed
