"""What is lowered: the programs that the codec consists of for one photograph, and training steps of every kind."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from clic_jax.coding import compiled, hyper
from clic_jax.config import Config, ModelConfig
from clic_jax.config.train import DTYPES
from clic_jax.model.clic import init_params
from clic_jax.training import data, steps

HEIGHT, WIDTH = 512, 768  # of the photograph that is coded
PHOTOS = 447  # in the memory of a device that trains, 512x512 each


class Program(NamedTuple):
    """A function of `jax.jit`, and the shapes it is called with."""

    name: str
    function: Callable
    arguments: tuple


def parameters(model: ModelConfig) -> dict:
    """Small random parameters: what they are decides nothing here, but dead taps would be left out of the programs."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(model))
    params = jax.tree.map(lambda x: np.float32(random.normal(0, 0.02, x.shape)), shapes)
    params["prior"]["median"][:] = 0  # as training leaves it
    return params


def exponents(model: ModelConfig, params) -> dict:
    """The exponents of `measured.measure` for parameters that nobody has measured."""
    stacks = hyper.decoders(model, params) | params["context"]
    return {name: [6] * (len(tree) - name.startswith("parameters_")) for name, tree in stacks.items()}


def of_codec(model: ModelConfig, mesh=None, height: int = HEIGHT, width: int = WIDTH) -> Iterator[Program]:
    """The programs of the codec of such a model, one after the other, for one photograph.

    Args: mesh: of one device, which they are compiled for; None to lower them only.
    """
    params = parameters(model)
    ready = compiled.programs(model, params, exponents(model, params))
    h, w, m = height // 16, width // 16, model.latent_channels

    def shape(kind, *sizes):
        return jax.ShapeDtypeStruct(sizes, kind)

    def program(name, function, *arguments):
        if isinstance(function, functools.partial):
            function, arguments = function.func, (*function.args, *arguments)
        return Program(name, function, _placed(arguments, mesh))

    def shapes_of(function, *arguments):
        return jax.eval_shape(lambda *dynamic: function(*arguments[:1], *dynamic), *arguments[1:])

    x, lmbda = shape(jnp.uint8, 1, height, width, 3), shape(jnp.float32, 1)
    y, z = shape(jnp.float32, 1, h, w, m), shape(jnp.int32, 1, h // 4, w // 4, model.hyper_layers[-1][0])
    feature = shape(jnp.float32, 1, h, w, model.feature_channels) if model.feature_channels else None
    yield program("analyse", ready.analyse, x, lmbda)
    yield program("hyper", ready.hyper, y, None)
    yield program("features", ready.features, z)
    features = jax.eval_shape(ready.features, z)
    anchor_step, other_step, _ = ready.steps
    for k, g in enumerate(model.groups):
        decoded = [shape(jnp.int32, 1, h, w, n) for n in model.groups[:k]]
        half = shape(jnp.int32, 1, h, w // 2, g)
        yield program(f"anchor step {k}", anchor_step, k, decoded, features)
        support = shapes_of(anchor_step, k, decoded, features)[2]
        yield program(f"other step {k}", other_step, k, half, support)
    real, whole, gain = shape(jnp.float32, *half.shape), half, shape(jnp.int32, g)
    yield program("quantise", ready.quantise, real, whole, whole, gain)
    yield program("table index", ready.table_index, whole, gain)
    yield program("dequantise", ready.dequantise, whole, whole)
    yield program("joined", ready.joined, [shape(jnp.int32, 1, h, w, n) for n in model.groups])
    yield program("feature", ready.feature, z)
    yield program("synthesise", ready.synthesise, y, feature, lmbda)
    yield program("log inverse gain", ready.log_inverse_gain, lmbda)
    if model.pqf != "none":
        n = sum(model.groups[: model.pqf_slices])
        maps, coefficients = shape(jnp.float32, 1, h, w, n, model.pqf_basis), shape(jnp.float32, 1, n, model.pqf_basis)
        halves = [(shape(jnp.float32, 1, h, w // 2, g),) * 2 for g in model.groups]
        yield program("maps", ready.maps, y)
        yield program("fitted", ready.fitted, maps, halves, y)
        yield program("corrected", ready.corrected, y, maps, coefficients)
    search, (model_, params_) = ready.searched.func, ready.searched.args
    one_step = jax.jit(lambda params, *latents: search(model_, params, *latents, range(1), 1))
    yield program("searched", one_step, params_, y, z, x, shape(jnp.float32, height, width), lmbda)


def _placed(arguments, mesh):
    """Shapes of arrays on the device of `mesh`; anything else, such as a model, as it is."""
    sharding = None if mesh is None else NamedSharding(mesh, P())

    def place(value):
        array = hasattr(value, "shape") and hasattr(value, "dtype")
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding) if array else value

    return tuple(jax.tree.map(place, argument) for argument in arguments)


def of_training(config: Config, mesh, side: int = 512) -> Program:
    """The step (or `steps_per_call` of them) that `experiments.train` runs on photographs in memory, over a mesh."""
    t = config.train
    sharding = NamedSharding(mesh, P())

    def shape(kind, *sizes):
        return jax.ShapeDtypeStruct(sizes, kind, sharding=sharding)

    sizes = (shape(jnp.int32, PHOTOS),) * 3
    photos = data.Photos(shape(jnp.uint8, PHOTOS * side * side * 3), *sizes, tuple(map(str, range(PHOTOS))))
    sweep = jax.tree.map(lambda x: shape(x.dtype, *x.shape), steps.Sweep.of(config))
    name = f"{t.dtype}, {t.optimizer}, {t.steps_per_call} a call, {mesh.size} devices"
    return Program(name, steps.make_cached_steps(config, mesh), (steps.state_shapes(config, mesh), photos, sweep))


def training_configs(config: Config, everything: bool) -> Iterator[tuple[Config, int]]:
    """(config, devices) of the training steps of a preset: every combination, or its own and one change at a time."""
    choices = {
        "dtype": DTYPES,
        "optimizer": tuple(steps.OPTIMIZERS),
        "steps_per_call": (1, 10),
        "devices": (1, 8),
    }
    base = dict(dtype="float32", optimizer="adam", steps_per_call=1, devices=1)
    rows = [base]
    for name, values in choices.items():
        if everything:
            rows = [row | {name: value} for row in rows for value in values]
        else:
            rows += [base | {name: value} for value in values if value != base[name]]
    for row in rows:
        devices = row.pop("devices")
        # as for a GPU: crops of a size, and as many for each device as the presets that were made for one have
        changes = row | dict(batch=2 * devices, crop=256)
        yield dataclasses.replace(config, train=dataclasses.replace(config.train, **changes)), devices
