"""Ablation: one centre a head.

Not in the paper: what is left is a mean of the whole map, weighted by similarity.

As published: no figure.
Ours: not resolved, +2.1 % (95 %: ±2.9), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = None  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, centers=1)
    return dataclasses.replace(base, name=f"{base.name}-one-center", model=model)
