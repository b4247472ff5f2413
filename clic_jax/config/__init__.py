"""Every number that changes a result, in frozen dataclasses: the model, its training, and the presets.

An experiment is a file in `experiments/configs/` whose `get_config()` returns a `Config` made from a preset with
`dataclasses.replace`. Dataclasses are hashable, so a config may be a static argument of `jax.jit`; a misspelt field is
a `TypeError`, and on the command line (`--set train.batch=8`) a `ConfigError` that lists the names that exist.
"""

from clic_jax.config.model import ConfigError, ModelConfig
from clic_jax.config.presets import (
    COMPACT,
    MEDIUM,
    MINI,
    PAPER,
    PAPER_LMBDAS,
    PRESETS,
    SMALL,
    TINY,
    Config,
    preset,
)
from clic_jax.config.train import TrainConfig

STEP_AT_UNIT_LMBDA = 0.02  # in an orthonormal transform of [0, 1] pixels, dR = -dD gives a step of 0.02 / sqrt(lmbda)

__all__ = [
    "COMPACT",
    "MEDIUM",
    "MINI",
    "PAPER",
    "PAPER_LMBDAS",
    "PRESETS",
    "SMALL",
    "STEP_AT_UNIT_LMBDA",
    "TINY",
    "Config",
    "ConfigError",
    "ModelConfig",
    "TrainConfig",
    "preset",
]
