"""Ablation: without coordinates.

The picture alone goes into g_a.

As published: +3.1 % of rate at equal PSNR (w/o PE; one model near 0.2 bpp, Kodak).
Ours: not resolved, +2.0 % (95 %: ±2.1), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +3.1  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, positions=False)
    return dataclasses.replace(base, name=f"{base.name}-no-positions", model=model)
