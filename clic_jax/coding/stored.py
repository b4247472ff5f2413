"""The coding data of a published model, as `clic_jax.coding.measured` found them, and the gains of one quality.

NumPy only, as all that decides a symbol or a table without a network.
"""

import json

import numpy as np

from clic_jax.coding import fixedpoint
from clic_jax.coding.tables import Table, measured_tables, y_tables
from clic_jax.config import ModelConfig
from clic_jax.errors import UserError
from clic_jax.quality import Quality
from clic_jax.scales import LOG_STEP


class OtherArithmetic(UserError):
    """A model whose integers other versions of clic_jax compute, and this one does not."""


def check(config: ModelConfig, data: dict) -> None:
    """Whether `measure`'s coding data are for this arithmetic and this config, which the model id rests on.

    Raises: OtherArithmetic; UserError naming a setting of the model that was changed since.
    """
    version = data.get("arithmetic", 1)  # the first models said neither this nor their config
    if version not in (fixedpoint.ARITHMETIC, fixedpoint.WITH_MEDIANS):
        raise OtherArithmetic(
            f"the model codes in arithmetic {version!r:.20}, this clic_jax in arithmetic {fixedpoint.ARITHMETIC}: "
            f"{'upgrade clic_jax' if version > fixedpoint.ARITHMETIC else 'publish the model anew'}"
        )
    for name, value in data.get("model", {}).items():
        if json.dumps(getattr(config, name)) != json.dumps(value):
            raise UserError(
                f"the model was published with model.{name} = {value!r:.200}: its config.json was changed since"
            )


def stored_tables(data: dict) -> list[Table]:
    """The z tables of `measure`'s coding data."""
    return [Table(entry["first"], np.asarray(entry["freq"])) for entry in data["prior"]]


def slice_tables(config: ModelConfig, data: dict) -> list[tuple[Table, ...]]:
    """The tables of each slice of y: of the model's density, corrected by the counts in `measure`'s coding data."""
    assumed = y_tables(config.density)
    counts = data.get("counts")  # models published before there were any have none
    return [measured_tables(assumed, part) for part in counts] if counts else [assumed] * len(config.groups)


def index_gain(config: ModelConfig, params, quality: Quality) -> np.ndarray:
    """int32 [M]: the gain's share of the log scale, in 1/256 of a table step; additions and products only, so exact."""
    if not (config.variable_rate and config.log_scale):
        return np.zeros(config.latent_channels, np.int32)
    rows = params["log_gain"]
    gain = between(rows, quality.place(len(rows)))
    gain = np.broadcast_to(gain, config.latent_channels)  # a scalar gain is one for all channels
    return np.floor(gain / LOG_STEP * 2**fixedpoint.INDEX_BITS + 0.5).astype(np.int32)


def between(rows, place: float) -> np.ndarray:
    """float64 [M]: the rows [anchors, M] of gains at a place such as 1.5, linear between two of them."""
    rows = np.asarray(rows, np.float64)
    left = min(int(place), len(rows) - 2)
    return rows[left] + (place - left) * (rows[left + 1] - rows[left])
