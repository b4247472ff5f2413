"""What a study is: variants and seeds, trained alike, and the folder that remembers which."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

from clic_jax import settings
from clic_jax.checkpoints import arrays
from clic_jax.config import Config
from clic_jax.errors import UserError
from clic_jax.files import atomic
from experiments import experiment
from experiments.paths import CONFIGS

FULL = "full"  # the base itself, which every study has
STUDY = "study.json"
NEVER = 10**9  # steps: a turn ends with a checkpoint, and the study with the evaluation


class StudyError(UserError):
    """A study that cannot be: no such variant, no budget, or a folder that holds another study."""


class Run(NamedTuple):
    """One training: a variant from a seed."""

    variant: str
    seed: int
    folder: Path

    @property
    def step(self) -> int:
        """Steps that are on disk."""
        return max(arrays.steps_in(self.folder), default=0)

    @property
    def diverged(self) -> Path:
        """The note of a run that cannot go on, if it is there."""
        return self.folder / "diverged.txt"


@dataclasses.dataclass(frozen=True)
class Study:
    """All that decides the result of a study, and where it is kept."""

    out: Path
    configs: dict[str, Config]  # by variant, `full` first
    seeds: int
    steps: int
    chunk: int  # steps of a turn
    about: dict  # of the command line: what another command must share to go on

    def runs(self) -> list[Run]:
        """In the order of their turns."""
        return [Run(name, seed, self.out / name / str(seed)) for seed in range(self.seeds) for name in self.configs]


def there() -> list[str]:
    """The variants that exist: the files of `experiments/configs/ablations`."""
    return sorted(path.stem for path in (CONFIGS / "ablations").glob("*.py"))


def published(variant: str) -> float | None:
    """The paper's figure in percent, or None."""
    return None if variant == FULL else experiment.module(_path(variant)).PUBLISHED


def _path(variant: str) -> str:
    return str(CONFIGS / "ablations" / f"{variant}.py")


def configs(base: Config, variants: list[str]) -> dict[str, Config]:
    """The config of each variant of `base`, `full` before all. Raises: StudyError naming those that exist."""
    names = list(dict.fromkeys([FULL, *variants]))
    if unknown := [name for name in names if name not in (FULL, *there())]:
        raise StudyError(f"no variant {unknown[0]!r}: there are {FULL}, {', '.join(there())}")
    return {name: base if name == FULL else experiment.module(_path(name)).get_config(base) for name in names}


def of_length(cfg: Config, steps: int) -> Config:
    """The config for a run of so many steps, which its schedule ends with; nothing happens between turns."""
    train = dataclasses.replace(cfg.train, steps=steps, save_every=NEVER, eval_every=NEVER)
    return dataclasses.replace(cfg, train=train)


def remembered(out: Path, about: dict) -> int | None:
    """The steps of the study in a folder, or None where there is none yet.

    Raises: StudyError for a study of other settings, or a folder with something else in it.
    """
    path = out / STUDY
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise StudyError(f"{out} is there and holds no study: name another --out")
        return None
    try:
        stored = json.loads(path.read_text())
        before, steps = stored["about"], int(stored["steps"])
    except (OSError, ValueError, LookupError, TypeError):
        raise StudyError(f"{path} cannot be read: name another --out") from None
    for name in before | about:
        if before.get(name) != about.get(name):
            was, now = (str(value.get(name))[:80] for value in (before, about))
            text = f"{name} = {was}, this one has {now}" if name != "configs" else "another base or --set"
            raise StudyError(f"{out} holds a study with {text}: name another --out, or give the same command")
    return steps


def remember(study: Study) -> None:
    """Writes what `remembered` reads."""
    study.out.mkdir(parents=True, exist_ok=True)
    atomic.write(study.out / STUDY, json.dumps({"steps": study.steps, "about": study.about}, indent=1).encode())


def describe(cfgs: dict[str, Config], **options) -> dict:
    """What another command must share to go on with a study, as JSON has it."""
    about = options | {
        "variants": list(cfgs),
        "configs": {name: json.loads(settings.to_json(cfg)) for name, cfg in cfgs.items()},
    }
    return json.loads(json.dumps(about))
