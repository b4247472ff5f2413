"""The training step learns, is the same on one device and on eight, and a function of (seed, step) alone."""

import dataclasses
import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax import metrics
from clic_jax.checkpoints.states import TrainingCheckpoints
from clic_jax.config import ConfigError
from clic_jax.model import clic
from clic_jax.training import data, losses, steps
from tests.micro import MICRO, MICRO_PAPER


def photographs():
    """Two smooth random photographs as `Photos`."""
    rng = np.random.default_rng(0)
    images = [np.kron(rng.integers(0, 256, (12, 14, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(2)]
    sizes = [x.size for x in images]
    return data.Photos(
        np.concatenate([x.ravel() for x in images]),
        np.int32([0, sizes[0]]),
        np.int32([96, 96]),
        np.int32([112, 112]),
        ("a", "b"),
    )


LEARNER = dataclasses.replace(MICRO, train=dataclasses.replace(MICRO.train, learning_rate=3e-3))


@functools.cache
def compiled(config, devices, streamed):
    """(mesh, compiled step), once for all tests."""
    mesh = steps.make_mesh(jax.devices()[:devices])
    return mesh, (steps.make_streamed_step if streamed else steps.make_cached_steps)(config, mesh)


@pytest.fixture(scope="module")
def params():
    return clic.init_params(MICRO.model, 0)


def run(config, devices, count, params, streamed=False):
    """`count` calls from fresh state on that many devices; (state, list of metrics)."""
    mesh, call = compiled(config, devices, streamed)
    state = steps.replicate(mesh, steps.new_state(config, jax.tree.map(jnp.array, params)))
    photos, history = steps.replicate(mesh, photographs()), []
    for step in range(count):
        batch = photos
        if streamed:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.train.seed), step), 0)
            crops = data.random_crops(photographs(), key, batch=config.train.batch, size=config.train.crop)
            batch = steps.shard_batch(mesh, np.asarray(crops))
        state, metrics = call(state, batch, steps.Sweep.of(config))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


def largest_difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)))


def test_loss_falls(params):
    _, history = run(LEARNER, 1, 60, params)
    assert all(np.isfinite(list(row.values())).all() for row in history)
    assert np.mean([row["loss"] for row in history[-10:]]) < 0.5 * np.mean([row["loss"] for row in history[:10]])


def test_one_device_equals_eight(params):
    if len(jax.devices()) < 8:
        pytest.skip("needs 8 (virtual) devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    one, history_one = run(LEARNER, 1, 3, params)
    eight, history_eight = run(LEARNER, 8, 3, params)
    # Adam's first updates are of size learning_rate whatever the gradient
    assert largest_difference(one.params, eight.params) < 3e-4
    for a, b in zip(history_one, history_eight, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)
        np.testing.assert_allclose(a["grad_norm"], b["grad_norm"], rtol=1e-3)


def test_streamed_equals_cached(params):
    """The two data paths differ only in where the crops come from."""
    cached, _ = run(LEARNER, 1, 2, params)
    streamed, _ = run(LEARNER, 1, 2, params, streamed=True)
    assert largest_difference(cached.params, streamed.params) < 1e-5


def test_several_steps_in_one_call(params):
    single, _ = run(LEARNER, 1, 4, params)
    config = dataclasses.replace(LEARNER, train=dataclasses.replace(LEARNER.train, steps_per_call=2))
    double, history = run(config, 1, 2, params)
    assert int(double.step) == int(single.step) == 4
    assert largest_difference(single.params, double.params) < 1e-5
    assert np.isfinite(history[0]["loss"])


def test_average_starts_with_recent_parameters(params):
    """After one step the average is nearly the new parameters, not the initial ones: decay (1 + step) / (10 + step)."""
    state, _ = run(LEARNER, 1, 1, params)
    expected = jax.tree.map(lambda old, new: old + 0.9 * (new - old), jax.device_get(params), state.params)
    assert largest_difference(state.ema, expected) < 1e-6


@pytest.mark.parametrize("schedule", ["cosine", "hold"])
def test_learning_rate(schedule):
    t = dataclasses.replace(MICRO.train, steps=100, warmup=10, learning_rate=1.0, schedule=schedule, cooldown=0.2)
    rate = steps.learning_rate(t)
    assert float(rate(0)) == pytest.approx(0.1)
    assert float(rate(10)) == pytest.approx(1.0)
    cosine = 0.5 * (1 + np.cos(np.pi * 69 / 90))
    assert float(rate(79)) == pytest.approx({"hold": 1.0, "cosine": cosine}[schedule], abs=1e-5)
    assert float(rate(100)) == pytest.approx(0.0, abs=1e-6)


def test_lmbda_covers_the_range():
    draws = steps.draw_lmbda(np.float32(MICRO.model.lmbdas), jax.random.key(1), 64)
    low, high = np.log(MICRO.model.lmbdas[0]), np.log(MICRO.model.lmbdas[-1])
    place = (np.log(draws) - low) / (high - low) * 64
    np.testing.assert_array_equal(np.floor(place + 1e-3).astype(int).clip(0, 63), np.arange(64))
    np.testing.assert_allclose(steps.draw_lmbda(np.float32([0.01]), jax.random.key(1), 3), 0.01)


def test_loss_is_rate_plus_lmbda_distortion():
    x = jnp.full((2, 64, 64, 3), 0.5)
    output = clic.Output(x + 0.1, jnp.array([4096.0, 8192.0]), jnp.array([0.0, 4096.0]), jnp.ones(2), {})
    loss, parts = losses.rate_distortion(output, x, jnp.array([0.01, 0.02]))
    np.testing.assert_allclose(parts["bpp"], [1.0, 3.0])
    np.testing.assert_allclose(parts["psnr"], [20.0, 20.0], atol=1e-4)
    np.testing.assert_allclose(loss, [0.01 * 650.25 + 1, 0.02 * 650.25 + 3], rtol=1e-5)


def test_a_share_of_ms_ssim():
    rng = np.random.default_rng(0)
    x = np.float32(rng.random((1, 192, 192, 3)))
    x_hat = np.float32(np.clip(x + 0.1 * rng.standard_normal(x.shape), 0, 1))
    output = clic.Output(jnp.asarray(x_hat), jnp.array([4096.0]), jnp.array([0.0]), jnp.ones(1), {})

    def distortion(metric, share=0.0):
        loss, parts = losses.rate_distortion(output, jnp.asarray(x), 0.01, metric, share)
        return float((loss - parts["bpp"])[0])

    mse, unlike = 0.01 * 255**2 * metrics.mse(x, x_hat)[0], 0.01 * (1 - metrics.ms_ssim(x, x_hat)[0])
    assert distortion("ms-ssim") == pytest.approx(unlike, rel=1e-3)
    assert distortion("mse", 0.25) == pytest.approx(0.75 * mse + 0.25 * 1280 * unlike, rel=1e-3)


def test_a_step_learns_from_that_share(params):
    def traced(share):
        config = dataclasses.replace(MICRO, train=dataclasses.replace(MICRO.train, crop=192, ms_ssim_share=share))
        arguments = jnp.zeros((1, 192, 192, 3)), jnp.array([0.01]), jax.random.key(0)
        return str(jax.make_jaxpr(lambda *a: steps.loss_and_metrics(params, config, *a)[0])(*arguments))

    weight = " 320.0"  # a quarter of 1280, what 1 - MS-SSIM is multiplied by
    assert weight in traced(0.25) and weight not in traced(0.0)


def test_batch_must_divide():
    mesh = steps.make_mesh()
    if mesh.size == 1:
        pytest.skip("needs several (virtual) devices")
    config = dataclasses.replace(MICRO, train=dataclasses.replace(MICRO.train, batch=mesh.size + 1))
    with pytest.raises(ConfigError, match=rf"does not divide over {mesh.size} devices.*batch={2 * mesh.size}"):
        steps.check_batch(config, mesh)
    config = dataclasses.replace(MICRO, train=dataclasses.replace(MICRO.train, batch=mesh.size, accumulate=3))
    with pytest.raises(ConfigError, match=rf"devices and train.accumulate=3.*batch={3 * mesh.size}"):
        steps.check_batch(config, mesh)


def test_accumulation(params):
    """Gradients and metrics are the means over the parts, every second crop being one."""
    config = dataclasses.replace(MICRO, train=dataclasses.replace(MICRO.train, accumulate=2))
    x = jax.random.uniform(jax.random.key(0), (4, 64, 64, 3))
    lmbda, key = steps.draw_lmbda(np.float32(MICRO.model.lmbdas), jax.random.key(1), 4), jax.random.key(2)
    found = jax.jit(functools.partial(steps.metrics_and_gradients, config=config))(params, x=x, lmbda=lmbda, key=key)
    one = jax.jit(functools.partial(steps.metrics_and_gradients, config=MICRO))
    parts = [one(params, x=x[i::2], lmbda=lmbda[i::2], key=k) for i, k in enumerate(jax.random.split(key))]
    expected = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max() + 1e-9)


@pytest.mark.parametrize("optimizer", [name for name in steps.OPTIMIZERS if name != "adam"])  # which the others use
def test_other_optimizers(params, optimizer, tmp_path):
    """The loss falls; what a checkpoint brings back goes on bit for bit."""
    config = dataclasses.replace(MICRO, train=dataclasses.replace(MICRO.train, learning_rate=1e-2, optimizer=optimizer))
    state, history = run(config, 1, 40, params)
    losses = [row["loss"] for row in history]
    assert np.isfinite(losses).all() and np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    mesh, call = compiled(config, 1, False)
    with TrainingCheckpoints(tmp_path, config) as saved:
        saved.save(40, state)
        restored = saved.restore(steps.state_shapes(config, mesh))
    photos, sweep = steps.replicate(mesh, photographs()), steps.Sweep.of(config)
    ours, theirs = (jax.device_get(call(steps.replicate(mesh, s), photos, sweep)) for s in (state, restored))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert int(ours[0].step) == 41


def test_unknown_optimizer():
    with pytest.raises(ConfigError, match="must be one of adam, soap, muon, not 'sgdd'"):
        steps.make_optimizer(dataclasses.replace(MICRO.train, optimizer="sgdd"))


def test_bfloat16_transforms(params):
    """The accelerator setting: the same step in bfloat16 is finite and close; parameters stay float32."""
    config = dataclasses.replace(LEARNER, train=dataclasses.replace(LEARNER.train, dtype="bfloat16"))
    state, history = run(config, 1, 2, params)
    _, reference = run(LEARNER, 1, 2, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}
    assert history[0]["loss"] == pytest.approx(reference[0]["loss"], rel=0.05)
    assert np.isfinite(history[1]["loss"])


@pytest.mark.parametrize("micro", [MICRO, MICRO_PAPER], ids=["tiny", "paper"])
def test_rematerialisation(micro):
    """The same loss and gradients from less memory: as JAX hands it over and as XLA, which may undo that, plans it."""
    x = jax.random.uniform(jax.random.key(0), (2, 256, 256, 3))
    lmbda, found = steps.draw_lmbda(np.float32(micro.model.lmbdas), jax.random.key(1), 2), []
    params = clic.init_params(micro.model, 0)
    for remat in (False, True):
        config = dataclasses.replace(micro, train=dataclasses.replace(micro.train, remat=remat))
        loss = functools.partial(steps.loss_and_metrics, config=config, x=x, lmbda=lmbda, key=jax.random.key(2))
        _, pullback, _ = jax.eval_shape(functools.partial(jax.vjp, loss, has_aux=True), params)
        step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params).compile()
        kept = sum(leaf.size for leaf in jax.tree.leaves(pullback))
        found.append((step(params), np.array([kept, step.memory_analysis().temp_size_in_bytes])))
    (((loss, _), plain), much), (((loss_again, _), again), less) = found
    assert (less < 0.75 * much).all()  # of what the gradient is to keep, and of what XLA then allocates
    assert float(loss) == pytest.approx(float(loss_again), rel=1e-6)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max() + 1e-9)


def moved(call, mesh, params, batch, sweep):
    """(how far a step moves the parameters, a vector; its metrics)."""
    state = steps.replicate(mesh, steps.new_state(LEARNER, jax.tree.map(jnp.array, params)))
    state, metrics = jax.device_get(call(state, batch, sweep))
    tree = jax.tree.map(lambda new, old: new - np.asarray(old), state.params, params)
    return jax.flatten_util.ravel_pytree(tree)[0], metrics


def test_another_rate(params):
    """Half the rate moves every parameter half as far, none not at all; what is told of the rate says so."""
    mesh, call = compiled(LEARNER, 1, False)
    sweep, photos = steps.Sweep.of(LEARNER), photographs()
    found = []
    for share in np.float32([1, 0.5, 0]):
        rate = share * sweep.learning_rate
        change, metrics = moved(call, mesh, params, photos, sweep._replace(learning_rate=rate))
        assert metrics["learning_rate"] == pytest.approx(share * float(steps.learning_rate(LEARNER.train)(0)))
        found.append(change)
    whole, half, none = found
    assert np.abs(whole).max() > 1e-5 and not np.any(none)
    np.testing.assert_allclose(half, whole / 2, atol=1e-7)


def test_another_rate_of_crops_from_the_host(params):
    mesh, call = compiled(LEARNER, 2, True)
    crops = data.random_crops(photographs(), jax.random.key(0), batch=LEARNER.train.batch, size=LEARNER.train.crop)
    sweep = steps.Sweep.of(LEARNER)._replace(learning_rate=np.float32(0))
    change, metrics = moved(call, mesh, params, steps.shard_batch(mesh, np.asarray(crops)), sweep)
    assert not np.any(change) and metrics["grad_norm"] > 0
