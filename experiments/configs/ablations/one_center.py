"""Ablation: one centre a head.

Not in the paper: what is left is a mean of the whole map, weighted by similarity.

As published: no figure.
Ours: not measured yet (`python -m experiments.ablation`).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = None  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, centers=1)
    return dataclasses.replace(base, name=f"{base.name}-one-center", model=model)
