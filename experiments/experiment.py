"""Which experiment a command line means: a file with `get_config()`, a preset, or that of weights to start from."""

import importlib.util
import itertools
from pathlib import Path

from clic_jax import config
from clic_jax.checkpoints import published
from experiments.paths import CONFIGS


def named(name: str) -> config.Config:
    """The Config of a file (NAME.py) or of a preset. Raises: ConfigError naming those there are."""
    return read(name) if name.endswith(".py") else config.preset(name)


def read(path: str) -> config.Config:
    """The Config of an experiment file. Raises: as `module`."""
    return module(path).get_config()


def module(path: str):
    """An experiment file, imported. Raises: ConfigError when it is missing or has no get_config()."""
    if not Path(path).is_file():
        there = ", ".join(sorted(p.name for p in CONFIGS.glob("*.py")))
        raise config.ConfigError(f"no experiment file {path}; experiments/configs has {there}")
    spec = importlib.util.spec_from_file_location("experiment", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    if not hasattr(found, "get_config"):
        raise config.ConfigError(f"{path} has no get_config() returning a clic_jax Config")
    return found


def of_weights(name_or_path: str) -> config.Config:
    """The preset or experiment file whose model published weights are; their own Config, as trained, where none is.

    Raises: as `clic_jax.checkpoints.published.load_published`.
    """
    given = published.load_published(name_or_path)[0]
    recipes = itertools.chain(config.PRESETS.values(), map(read, sorted(CONFIGS.glob("*.py"))))
    return next((recipe for recipe in recipes if recipe.model == given.model), given)
