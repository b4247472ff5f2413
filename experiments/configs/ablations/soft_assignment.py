"""Ablation: each pixel belongs to all centres, in proportion.

Not in the paper, unless this is what it means by normalising by similarity (see similarity_normalized).

As published: no figure.
Ours: not resolved, +2.3 % (95 %: ±2.9), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = None  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, assignment="soft")
    return dataclasses.replace(base, name=f"{base.name}-soft-assignment", model=model)
