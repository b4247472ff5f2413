"""The wrapper of every `python -m experiments.X`, the same as that of `clic-jax`."""

from clic_jax.cli import run

__all__ = ["run"]
