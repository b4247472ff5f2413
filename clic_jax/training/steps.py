"""One training step as a pure function of (state, crops, step), compiled for any number of devices.

Data parallelism is sharding: the batch is split over the mesh, the state is on every device, and XLA sums the
gradients. All randomness is a function of (seed, step), so that a resumed run repeats an uninterrupted one bit for bit.
The numbers that runs of one model differ in are arguments of the compiled step (`Sweep`): it serves all of these runs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from clic_jax import runtime
from clic_jax.config import Config, ConfigError, TrainConfig
from clic_jax.model.clic import CLIC, init_params
from clic_jax.training.data import random_crops
from clic_jax.training.losses import rate_distortion
from clic_jax.training.soap import soap

PQF_WEIGHT = 0.01  # of the filter's own loss when it is "auxiliary"; nothing else depends on those parameters


class TrainState(NamedTuple):
    """Everything a checkpoint holds."""

    step: jax.Array  # int32, optimiser steps done
    params: Any
    ema: Any  # exponential average of params: what is evaluated and published
    opt_state: Any


class Sweep(NamedTuple):
    """The numbers of a run that a compiled step is given, instead of those of the config that it was compiled for.

    Whatever they are, the program is the same; everything else in a config is part of it.
    """

    seed: Any  # uint32, train.seed
    learning_rate: Any  # float32, train.learning_rate: the peak
    lmbdas: Any  # float32 [K], model.lmbdas; as many as the program has

    @classmethod
    def of(cls, config: Config) -> "Sweep":
        """Those of a config, on the host."""
        t = config.train  # a seed beyond 32 bits is cut to them, as jax.random.key does
        return cls(np.uint32(t.seed % 2**32), np.float32(t.learning_rate), np.float32(config.model.lmbdas))


def learning_rate(t: TrainConfig, peak=None):
    """The schedule, a function of the step: linear warm-up, then a cosine, or a plateau and a linear fall at the end.

    peak: instead of `train.learning_rate`, a scalar.
    """
    peak, warm = t.learning_rate if peak is None else peak, min(t.warmup, t.steps)
    rise = optax.linear_schedule(1 / max(warm, 1), 1.0, warm)
    if t.schedule == "cosine":
        rest = optax.cosine_decay_schedule(1.0, max(t.steps - warm, 1), t.final_rate)
        share = optax.join_schedules([rise, rest], [warm])
    else:
        fall = max(int(t.steps * t.cooldown), 1)
        parts = [rise, optax.constant_schedule(1.0), optax.linear_schedule(1.0, t.final_rate, fall)]
        share = optax.join_schedules(parts, [warm, max(t.steps - fall, warm)])
    return lambda step: peak * share(step)


OPTIMIZERS = {"adam": optax.adam, "soap": soap, "muon": optax.contrib.muon}  # functions of the learning rate


def make_optimizer(t: TrainConfig, peak=None) -> optax.GradientTransformation:
    """Gradient clipping by global norm, then the optimiser; peak as for `learning_rate`.

    Raises: ConfigError for an unknown name.
    """
    if t.optimizer not in OPTIMIZERS:
        raise ConfigError(f"train.optimizer must be one of {', '.join(OPTIMIZERS)}, not {t.optimizer!r}")
    return optax.chain(optax.clip_by_global_norm(t.grad_clip), OPTIMIZERS[t.optimizer](learning_rate(t, peak)))


def new_state(config: Config, params) -> TrainState:
    """The state before the first step."""
    # params and ema start equal but must not share buffers: the step donates both
    return TrainState(jnp.int32(0), params, jax.tree.map(jnp.copy, params), make_optimizer(config.train).init(params))


def draw_lmbda(lmbdas, key, batch: int):
    """lmbda of each sample [B]: log-uniform over the range of `lmbdas` [K], one draw from each of B equal parts."""
    if len(lmbdas) == 1:
        return jnp.full((batch,), lmbdas[0])
    low, high = jnp.log(lmbdas[0]), jnp.log(lmbdas[-1])
    return jnp.exp(low + (high - low) * (jnp.arange(batch) + jax.random.uniform(key, (batch,))) / batch)


def loss_and_metrics(params, config: Config, x, lmbda, key, lmbdas=None):
    """Mean training loss over the batch, and the mean of each quantity worth logging.

    x: [B, S, S, 3] in [0, 1]. lmbda: [B]. lmbdas: [K], instead of `model.lmbdas`.
    """
    lmbdas = jnp.float32(config.model.lmbdas) if lmbdas is None else lmbdas
    dtype = None if config.train.dtype == "float32" else config.train.dtype
    output = CLIC(config.model, dtype, config.train.remat).apply({"params": params}, x, lmbda, lmbdas, key=key)
    losses, parts = rate_distortion(output, x, lmbda, config.train.metric, config.train.ms_ssim_share)
    middle = jnp.sqrt(lmbdas[0] * lmbdas[-1])
    loss = jnp.mean(losses * (lmbda / middle) ** -config.train.lmbda_power)
    metrics = jax.tree.map(jnp.mean, parts | {"pqf_residual": output.pqf_residual}) | {"loss": loss}
    if config.model.pqf == "auxiliary":
        loss = loss + PQF_WEIGHT * output.pqf_residual.mean()
    return loss, metrics


def metrics_and_gradients(params, config: Config, x, lmbda, key, lmbdas=None):
    """(metrics, gradients) of `loss_and_metrics`, averaged over `train.accumulate` parts of the batch in turn."""
    n = config.train.accumulate

    def of(x, lmbda, key):
        found = jax.value_and_grad(loss_and_metrics, has_aux=True)(params, config, x, lmbda, key, lmbdas)
        (_, metrics), grads = found
        return metrics, grads

    if n == 1:
        return of(x, lmbda, key)
    # every n-th crop is one part, so that each device has its share of each
    parts = jax.tree.map(lambda v: v.reshape(-1, n, *v.shape[1:]).swapaxes(0, 1), (x, lmbda))

    def add(total, part):
        return jax.tree.map(lambda a, b: a + b / n, total, of(*part)), None

    start = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), jax.eval_shape(of, parts[0][0], parts[1][0], key))
    return jax.lax.scan(add, start, (*parts, jax.random.split(key, n)))[0]


def train_step(config: Config, state: TrainState, crops, sweep: Sweep | None = None) -> tuple[TrainState, dict]:
    """One optimiser step.

    Args:
      state: the state so far; its step number is the only source of randomness besides the seed.
      crops: uint8 [B, S, S, 3].
      sweep: numbers instead of the config's.
    Returns: (state, metrics): loss, bpp, bpp_z, mse, psnr, pqf_residual, grad_norm, learning_rate; scalars.
    """
    t, (seed, peak, lmbdas) = config.train, Sweep.of(config) if sweep is None else sweep
    noise_key, lmbda_key = jax.random.split(_step_key(seed, state.step, 1))
    lmbda = draw_lmbda(lmbdas, lmbda_key, crops.shape[0])
    x = crops.astype(jnp.float32) / 255
    metrics, grads = metrics_and_gradients(state.params, config, x, lmbda, noise_key, lmbdas)
    with jax.default_matmul_precision("highest"):  # of bases and orthogonalisations, which must not drift
        updates, opt_state = make_optimizer(t, peak).update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # an average of few steps must not remember the start
    decay = jnp.minimum(t.ema, (1 + state.step) / (10 + state.step))
    ema = jax.tree.map(lambda average, new: average + (1 - decay) * (new - average), state.ema, params)
    metrics |= {"grad_norm": optax.global_norm(grads), "learning_rate": learning_rate(t, peak)(state.step)}
    return TrainState(state.step + 1, params, ema, opt_state), metrics


def make_mesh(devices=None) -> jax.sharding.Mesh:
    """A mesh with one axis, "data", over all devices of all processes. Raises: NoDevice."""
    runtime.check_device()
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), ("data",), devices=devices, axis_types=(jax.sharding.AxisType.Auto,))


def replicate(mesh, tree):
    """`tree` on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def state_shapes(config: Config, mesh) -> TrainState:
    """The state's shapes and types on every device: what a step is compiled for and a checkpoint restored onto."""
    state = jax.eval_shape(lambda: new_state(config, init_params(config.model)))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, P())), state)


def shard_batch(mesh, crops):
    """This process's share of a batch as one array over the mesh."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, P("data")), crops)


def batch_shape(config: Config, mesh):
    """Shape and type of a batch over the mesh."""
    shape = (config.train.batch, config.train.crop, config.train.crop, 3)
    return jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=NamedSharding(mesh, P("data")))


def compile_step(step, *shapes):
    """`step` (of `make_streamed_step`, `make_cached_steps`) compiled for these arguments or shapes.

    Ahead of time, and before there is a state, because compiling takes more memory for a while than the state does:
    four 256x256 crops of `paper`, with `remat` and `accumulate=4`, peak at 4.4 GB (5.7 when it compiled at its first
    step).
    """
    compiled = step.lower(*shapes).compile()
    runtime.release_memory()
    return compiled


def check_batch(config: Config, mesh) -> None:
    """Raises: ConfigError when the batch cannot be divided over the devices and the parts of a step."""
    t = config.train
    unit = mesh.size * t.accumulate
    if t.batch % unit:
        parts = f" and train.accumulate={t.accumulate}" if t.accumulate > 1 else ""
        raise ConfigError(
            f"train.batch={t.batch} does not divide over {mesh.size} devices{parts}: "
            f"use a multiple of {unit}, for example --set train.batch={-(-t.batch // unit) * unit}"
        )


def make_streamed_step(config: Config, mesh):
    """(state, crops, Sweep) -> (state, metrics), compiled; crops come from the host, split over the mesh."""
    rep, batch = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))

    def step(state, crops, sweep):
        return train_step(config, state, crops, sweep)

    return jax.jit(step, in_shardings=(rep, batch, rep), out_shardings=(rep, rep), donate_argnums=0)


def make_cached_steps(config: Config, mesh):
    """(state, photos, Sweep) -> (state, mean metrics), compiled: `steps_per_call` steps on crops of photographs.

    The photographs live in the memory of every device, so that no input pipeline feeds an accelerator.
    """
    rep, batch = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))

    def one(state, photos, sweep):
        key = _step_key(sweep.seed, state.step, 0)
        crops = random_crops(photos, key, batch=config.train.batch, size=config.train.crop)
        return train_step(config, state, jax.lax.with_sharding_constraint(crops, batch), sweep)

    def many(state, photos, sweep):
        if config.train.steps_per_call == 1:
            return one(state, photos, sweep)
        state, history = jax.lax.scan(lambda s, _: one(s, photos, sweep), state, length=config.train.steps_per_call)
        return state, jax.tree.map(jnp.mean, history)

    return jax.jit(many, in_shardings=(rep, rep, rep), out_shardings=(rep, rep), donate_argnums=0)


def _step_key(seed, step, purpose: int):
    """The key of one purpose (0 crops, 1 the step itself) at one step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), purpose)
