"""Ablation: variable rate by the quantiser's step.

The supplement's QVRF: against VTM the paper has -10.5 % with it, as with a model for each rate. Our reading: one number
an anchor scales y, and its inverse y_hat. Against per-channel gains, which are ours, it has no figure.

As published: no figure.
Ours: not resolved, +2.0 % (95 %: ±2.9), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = None  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, gains="scalar")
    return dataclasses.replace(base, name=f"{base.name}-scalar-gains", model=model)
