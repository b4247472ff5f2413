"""The wrapper of every `python -m experiments.X`, the same as that of `clic-jax`."""

from pathlib import Path

from clic_jax.cli import expanded, run

__all__ = ["expanded", "path", "run"]


def path(text: str) -> Path:
    """`expanded` as a Path, for the options that name files."""
    return Path(expanded(text))
