"""Configs as text: assignments on a command line, JSON beside a checkpoint."""

import ast
import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from clic_jax.config import Config, ConfigError, ModelConfig, TrainConfig


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
        return Config(
            name=data["name"], model=ModelConfig(**_tuples(data["model"])), train=TrainConfig(**_tuples(data["train"]))
        )
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ConfigError(f"this config was written by another version of clic_jax: {error}") from None


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
