"""Ablation: nine centres a head.

In a square, pooled from 3x3 windows, which share a row where three does not divide the map.

As published: +2.6 % of rate at equal PSNR (four -> nine centres; one model near 0.2 bpp, Kodak).
Ours: not resolved, +1.5 % (95 %: ±2.1), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +2.6  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, centers=9)
    return dataclasses.replace(base, name=f"{base.name}-nine-centers", model=model)
