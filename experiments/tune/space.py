"""What a search may change: settings by name, each with its choices or a range."""

import ast
import math
from typing import NamedTuple

from clic_jax import settings
from clic_jax.config import Config
from clic_jax.errors import UserError

# what a search sets itself, or what would make losses of two trials incomparable, and why
REFUSED = {
    "name": "names nothing but the result",
    "train.steps": "is the budget's: --steps or --minutes",
    "train.seed": "is the study's: --seeds",
    "train.save_every": "is the study's",
    "train.eval_every": "is the study's",
    "train.log_every": "changes no result",
    "train.steps_per_call": "changes no result",
    "train.metric": "changes what the loss is, so that trials cannot be compared",
    "model.lmbdas": "changes what the loss is, so that trials cannot be compared",
}
LOG_FACTOR = 10  # a positive range that spans more is drawn from evenly in its logarithm


class TuneError(UserError):
    """A search that cannot be: its space, its budget, its folder, or a missing package."""


class Choice(NamedTuple):
    """One of several values, each as it was typed: "cosine", "4", "(16, 16, 32)"."""

    values: tuple[str, ...]


class Range(NamedTuple):
    """A number from `low` to `high`, both included."""

    low: float
    high: float
    whole: bool  # integers alone
    log: bool


Space = dict[str, Choice | Range]


def parse(base: Config, texts: list[str]) -> Space:
    """The space of arguments such as `model.centers=4,9` and `train.learning_rate=1e-4..3e-3`.

    Raises: TuneError; ConfigError for a setting that is not there, or a value that it cannot have.
    """
    space: Space = {}
    for text in texts:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not values:
            raise TuneError(f"cannot read --space {text!r}: write model.centers=4,9 or train.learning_rate=1e-4..1e-3")
        if key in REFUSED:
            raise TuneError(f"--space {key}: it {REFUSED[key]}")
        if key in space:
            raise TuneError(f"--space {key} is given twice: name all of its values at once")
        space[key] = _range(base, key, values) if ".." in values else _choice(base, key, values)
    if not space:
        raise TuneError("nothing to choose: give --space KEY=VALUES")
    return space


def _range(base: Config, key: str, text: str) -> Range:
    ends = [part.strip() for part in text.split("..")]
    configs = [settings.override(base, [f"{key}={end}"]) for end in ends]  # of the right type, within what is allowed
    low, high = (value_of(cfg, key) for cfg in (configs[0], configs[-1]))
    if len(ends) != 2 or type(low) not in (int, float):
        raise TuneError(f"--space {key}={text}: a range is LOW..HIGH, of numbers; list the values of anything else")
    if not low < high or not math.isfinite(high - low):
        raise TuneError(f"--space {key}={text}: the range is empty, for {low:g} is not below {high:g}")
    return Range(low, high, isinstance(low, int), low > 0 and high / low > LOG_FACTOR)


def _choice(base: Config, key: str, text: str) -> Choice:
    values = tuple(_split(text))
    kinds = {_kind(value) for value in values}
    if len(kinds) > 1:
        raise TuneError(f"--space {key}={text}: its values are of several types ({', '.join(sorted(kinds))})")
    found = [value_of(settings.override(base, [f"{key}={value}"]), key) for value in values]
    if len(set(found)) < len(found) or len(found) < 2:
        raise TuneError(f"--space {key}={text}: two values or more, all different; --set {key}=VALUE sets one")
    return Choice(values)


def _split(text: str) -> list[str]:
    """The parts between commas, of which those inside brackets are none."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _kind(text: str) -> str:
    """What a value looks like: a number, text, a tuple, true or false."""
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        return "text"
    if isinstance(value, bool):
        return "true or false"
    return "number" if isinstance(value, (int, float)) else "tuple" if isinstance(value, (tuple, list)) else "text"


def value_of(cfg: Config, key: str):
    """What a config has for "model.centers" and the like."""
    section, _, field = key.rpartition(".")
    return getattr(getattr(cfg, section), field)


def applied(base: Config, params: dict) -> Config:
    """The config of a trial: {key: a Choice's text, or a Range's number}. Raises: ConfigError for a contradiction."""
    return settings.override(base, [f"{key}={value}" for key, value in params.items()])


def of_base(base: Config, space: Space) -> dict | None:
    """The params that leave the base as it is; None where the space does not have them."""
    params = {}
    for key, axis in space.items():
        value = value_of(base, key)
        if isinstance(axis, Range):
            if not axis.low <= value <= axis.high:
                return None
            params[key] = value
        else:
            same = [text for text in axis.values if value_of(settings.override(base, [f"{key}={text}"]), key) == value]
            if not same:
                return None
            params[key] = same[0]
    return params


def size(space: Space) -> float:
    """How many configs it has; infinite with a range."""
    return math.prod(len(axis.values) if isinstance(axis, Choice) else math.inf for axis in space.values())


def told(params: dict) -> str:
    """Params in a line, shortly."""
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
    )
