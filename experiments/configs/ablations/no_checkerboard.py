"""Ablation: without checkerboard cluster blocks.

Odd cluster blocks are like even ones: one set of parameters on the whole map, at half their arithmetic.

As published: +4.0 % of rate at equal PSNR (w/o CP CCB; one model near 0.2 bpp, Kodak).
Ours: not resolved, +0.8 % (95 %: ±2.1), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +4.0  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, checkerboard_blocks=False)
    return dataclasses.replace(base, name=f"{base.name}-no-checkerboard", model=model)
