"""Our models as an older checkout of this repository runs them, for `experiments.benchmark --before`.

They take turns with today's, so that a change of speed is measured in one run on one machine.
"""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

from experiments.benchmark.peers import PeersError, Process

WORKER = "experiments/benchmark/worker.py"  # what a checkout must have
PRESET = "import sys; from clic_jax import config, settings; print(settings.to_json(config.preset(sys.argv[1])))"


def check(checkout: Path):
    """Raises: PeersError for a folder that is no checkout, or one from before there were such workers."""
    if not (checkout / WORKER).exists():
        raise PeersError(
            f"--before wants an older checkout of clic_jax, and {checkout} has no {WORKER}: "
            "make one with `git worktree add FOLDER REVISION`"
        )


def processes(checkout: Path, models: dict[str, str], folder: Path) -> list[Process]:
    """The same models in that checkout.

    Args:
      models: name of a preset -> published name, which the checkout must have as well, or folder.
      folder: where copies of published folders go: the same parameters, with the preset as the checkout has it.
    Raises: PeersError if it has no preset of that name.
    """
    then = _revision(checkout)
    copies = {name: _copy(checkout, name, path, folder) for name, path in models.items()}
    return [Process(f"clic_jax {name} at {then}", "worker", copy, checkout) for name, copy in copies.items()]


def _revision(checkout: Path) -> str:
    """What git calls the checkout's state, or else the folder's name."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return checkout.resolve().name


def _copy(checkout: Path, name: str, path: str, folder: Path) -> str:
    """A published folder as the older checkout reads it: a config there knows no field that is newer."""
    if not Path(path).is_dir():
        return path
    found = subprocess.run([sys.executable, "-c", PRESET, name], cwd=checkout, capture_output=True, text=True)
    if found.returncode:
        raise PeersError(f"{checkout} has no preset {name}: {found.stderr.strip().splitlines()[-1]}")
    copy = folder / f"before-{name}"
    shutil.copytree(path, copy)
    (copy / "config.json").write_text(found.stdout)
    return str(copy)
