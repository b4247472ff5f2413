"""What a published model needs to write files besides its parameters; `stored` makes tables and gains of it.

`measure` looks at photographs once, when a model is published: exponents for the integer networks, frequencies for z,
and counts of the symbols of y. All are integers, stored and hashed with the model, so that every machine codes with the
same ones.
"""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax import runtime
from clic_jax.coding import calibration, fixedpoint
from clic_jax.coding.tables import Table, pmf_table
from clic_jax.config import ModelConfig
from clic_jax.model.checkerboard import split
from clic_jax.model.clic import CLIC, init_params
from clic_jax.model.entropy import FactorizedPrior, logit_likelihood
from clic_jax.model.schedule import slices
from clic_jax.scales import LOG_MIN, LOG_STEP, SCALE_LEVELS, SCALE_MIN

COUNTED = 256  # larger symbols of y keep the frequencies of their density
Z_TAIL = 1e-7  # of a channel of z is left to the escape symbol on each side


def measure(config: ModelConfig, params, crops, watch: Callable[[range], Iterable] = iter) -> dict:
    """The coding data of a model, JSON-ready.

    {"arithmetic": version, "model": the config's fields, "exponents": {stack: [int]}, "prior": [{"first", "freq"}],
    "counts": [for each slice of y [for each scale table [symbols that were 0, that were +-1, ...]]]}

    Args:
      crops: uint8 [n, S, S, 3], S a multiple of 64; some dozens of 256x256 pixels, over all kinds of content.
      watch: wraps the range of batches of four crops at each lmbda, as `tqdm.tqdm` does, to show progress.
    """
    model = CLIC(config)

    @jax.jit
    def look(x, lmbda):
        tensors = model.apply({"params": params}, x.astype(jnp.float32) / 255, lmbda).tensors
        return tensors["y_hat"], tensors["z_hat"], _counts(config, tensors)

    seen, counts = [], 0
    batches = -(-len(crops) // 4)
    for i in watch(range(len(config.lmbdas) * batches)):
        lmbda, start = config.lmbdas[i // batches], i % batches * 4
        batch = crops[start : start + 4]
        y_hat, z_hat, here = look(batch, jnp.full(len(batch), lmbda))
        counts = counts + np.asarray(here, np.int64)
        if lmbda in (config.lmbdas[0], config.lmbdas[-1]):
            seen.append((y_hat, z_hat))
    prior = prior_tables(params["prior"])
    return {
        "arithmetic": fixedpoint.WITH_MEDIANS if np.any(params["prior"]["median"]) else fixedpoint.ARITHMETIC,
        "model": dataclasses.asdict(config),
        "exponents": calibration.calibrate(config, params, seen),
        "prior": [{"first": table.first, "freq": table.freq.tolist()} for table in prior],
        "counts": [[np.trim_zeros(row, "b").tolist() for row in part] for part in counts],
    }


def _counts(config: ModelConfig, tensors):
    """How often each |symbol| of y below COUNTED came in each table of each slice: int32 [slices, tables, COUNTED]."""
    found = []
    for k, y_hat in enumerate(slices(tensors["y_hat"], config.groups)):
        pair = slice(2 * k, 2 * k + 2)  # anchors, then the others
        mean, scale = (jnp.concatenate(tensors[name][pair], 2) for name in ("means", "scales"))
        symbol = jnp.abs(jnp.round(jnp.concatenate(split(y_hat), 2) - mean)).astype(jnp.int32)
        table = jnp.round((jnp.log(jnp.maximum(scale, SCALE_MIN)) - LOG_MIN) / LOG_STEP)
        table = jnp.clip(table.astype(jnp.int32), 0, SCALE_LEVELS - 1)
        empty = jnp.zeros((SCALE_LEVELS, COUNTED), jnp.int32)
        found.append(empty.at[table, symbol].add(1, mode="drop"))
    return jnp.stack(found)


def prior_tables(prior) -> list[Table]:
    """The learned prior of z about its medians, a table a channel, from its quantile at Z_TAIL to that at 1 - Z_TAIL.

    At most from -255 to 255.
    """
    channels = prior["bias0"].shape[0]
    values = jnp.arange(-255.0, 256.0)[:, None] + jnp.broadcast_to(prior["median"], channels)
    _, logits = FactorizedPrior().apply({"params": prior}, values)
    pmf = np.asarray(logit_likelihood(logits, values), np.float64)
    below, above = np.cumsum(pmf, 0), np.cumsum(pmf[::-1], 0)[::-1]
    tables = []
    for c in range(channels):
        inside = np.flatnonzero((below[:, c] > Z_TAIL) & (above[:, c] > Z_TAIL))
        first, last = (inside[0], inside[-1]) if inside.size else (255, 255)
        part = pmf[first : last + 1, c]
        tables.append(pmf_table(part / max(part.sum(), 1.0), int(first) - 255))
    return tables


def parameters(config: ModelConfig) -> dict:
    """The tree of `jax.ShapeDtypeStruct`s of a model's parameters; takes no memory, whatever the config says."""
    with runtime.usual_settings():
        return jax.eval_shape(lambda: init_params(config))
