"""Configs as text: assignments on a command line, JSON beside a checkpoint."""

import ast
import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any

from clic_jax.config import Config, ConfigError, ModelConfig, TrainConfig

# Of a config that is read, far beyond any use: what a model is made of is counted before anything of it is made.
MAX_NUMBER, MAX_LAYERS, MAX_BLOCKS = 8192, 64, 256


def override(config: Config, assignments: Iterable[str]) -> Config:
    """`config` with assignments such as `train.batch=4` or `model.groups=(16, 16, 32)` applied, all at once.

    Values are JSON or Python literals, or bare words for text. Raises: ConfigError for an unknown key or a wrong type.
    """
    assignments = list(assignments)
    changes: dict[str, dict[str, Any]] = {"": {}, "model": {}, "train": {}}
    for text in assignments:
        key, equals, value = text.partition("=")
        section, _, field = key.strip().rpartition(".")
        if not equals or section not in changes:
            raise ConfigError(f"cannot read {text!r}: write section.key=value, for example train.batch=4")
        owner = getattr(config, section) if section else config
        names = [f.name for f in dataclasses.fields(owner) if not dataclasses.is_dataclass(getattr(owner, f.name))]
        if field not in names:
            raise ConfigError(f"no setting {key.strip()!r}; {section or 'the config'} has {', '.join(names)}")
        try:
            parsed = ast.literal_eval({"true": "True", "false": "False"}.get(value.strip(), value.strip()))
        except (ValueError, SyntaxError):
            parsed = value.strip()
        changes[section][field] = _coerce(key, parsed, getattr(owner, field))
    try:
        model = dataclasses.replace(config.model, **changes["model"])
        return dataclasses.replace(
            config, **changes[""], model=model, train=dataclasses.replace(config.train, **changes["train"])
        )
    except TypeError as error:  # a tuple that holds other things than its field does
        raise ConfigError(f"cannot set {', '.join(assignments)}: {error}") from None


def to_json(config: Config) -> str:
    """The config as JSON text; `from_json` gives it back."""
    return json.dumps(dataclasses.asdict(config), indent=1)


def from_json(text: str) -> Config:
    """The config that `to_json` wrote. Raises: ConfigError for a field this version does not know."""
    try:
        data = json.loads(text)
        config = Config(
            name=data["name"],
            model=_section("model", ModelConfig(), data["model"]),
            train=_section("train", TrainConfig(), data["train"]),
        )
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ConfigError(f"this config was written by another version of clic_jax: {error}") from None
    if max(sum(config.model.depths), sum(config.model.depths_of_g_s)) > MAX_BLOCKS or not isinstance(config.name, str):
        raise ConfigError(f"this config has more than {MAX_BLOCKS} blocks in g_a or g_s, or a name that is no text")
    return config


def _section(section: str, default, values: dict):
    """`values` as a dataclass like `default`. Raises: ConfigError for a value of another type or beyond all use."""
    values = _tuples(values)
    for name in values.keys() & vars(default).keys():
        if not _fits(values[name], getattr(default, name), section == "model"):
            text = f"such as {getattr(default, name)!r}, not {values[name]!r:.100}"
            raise ConfigError(f"{section}.{name} must be {text}; a model has at most {MAX_NUMBER} of anything")
    return type(default)(**values)


def _fits(value, default, limited: bool) -> bool:
    """Whether `value` is of the type of `default`, a tuple of such of any length up to MAX_LAYERS."""
    if isinstance(default, tuple):
        fits = isinstance(value, tuple) and len(value) <= MAX_LAYERS
        return fits and all(_fits(item, (default or (0,))[0], limited) for item in value)  # () is of whole numbers
    if isinstance(default, (bool, str)):
        return type(value) is type(default)
    kinds = (int, float) if isinstance(default, float) else (int,)
    return type(value) in kinds and math.isfinite(value) and (not limited or 0 <= value <= MAX_NUMBER)


def _tuples(value):
    """JSON lists as tuples, so that a config read back is hashable and equal to the one written."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _coerce(key: str, value, old):
    """`value` as the type of `old`, or ConfigError."""
    value = _tuples(value)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(old, tuple) and isinstance(value, (int, float, str)):
        value = (value,)
    if type(value) is not type(old):
        raise ConfigError(f"{key.strip()} wants {type(old).__name__}, for example {old!r}; got {value!r}")
    return value
