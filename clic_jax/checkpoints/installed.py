"""Which models ship with the package, which ones ever did, and where a model that is named lies.

Does not import JAX: `clic-jax info` is quick.
"""

import json
import os
from pathlib import Path

from clic_jax.errors import UserError

WEIGHTS = Path(__file__).parents[1] / "weights"  # one published folder each
RELEASED = WEIGHTS / "released.json"  # every model that ever was in it
DEFAULT_MODEL = "clic-compact-detail"


class NoModel(UserError):
    """The model that was named does not exist; or none was named, and none is installed."""


def folder_of(name_or_path: str | os.PathLike | None = None) -> Path:
    """The folder of a model, its name and the default resolved. Raises: NoModel."""
    names = installed()
    if name_or_path is None:
        if not names:
            raise NoModel("no model is installed: give --model FOLDER, the folder `published` of a training run")
        name_or_path = DEFAULT_MODEL if DEFAULT_MODEL in names else next(iter(names))
    folder = (WEIGHTS / name_or_path if name_or_path in names else Path(name_or_path)).absolute()
    if not folder.exists():
        known = ", ".join(names) or "there are none"
        raise NoModel(f"no model {str(name_or_path)!r}: it is neither a folder nor an installed model ({known})")
    return folder


def installed() -> dict[str, str]:
    """Model ids of the models that ship with the package, by name."""
    ids = {}
    for path in sorted(WEIGHTS.glob("*/checkpoint.json")):
        try:
            ids[path.parent.name] = str(json.loads(path.read_text())["model_id"])
        except (OSError, ValueError, LookupError, TypeError):
            ids[path.parent.name] = "unreadable"  # opening it says why
    return ids


def released() -> list[dict[str, str]]:
    """Every model that was ever released, newest first: id, name, date, arithmetic, and status.

    status: "installed", its weights are in the package; or "retired", and then `commit` is the last state of this
        repository that has them. A row is never removed, and an id never means other weights.
    """
    return json.loads(RELEASED.read_text())


def remedy(model_id: str) -> str:
    """What to do about a file of a model that is not installed, as the rest of a sentence."""
    row = next((row for row in released() if row["id"] == model_id), None)
    if row is None:
        return "no model of that id was released: give its folder (--model RUN/published), or upgrade clic_jax"
    if row["status"] == "installed":
        return f"that is {row['name']}, whose weights are missing from this installation: install clic_jax anew"
    return (
        f"that is {row['name']} of {row['date']}, which is retired: decode with clic_jax as of its commit "
        f"{row['commit']} (git checkout {row['commit']}; pip install . in an environment of its own)"
    )
