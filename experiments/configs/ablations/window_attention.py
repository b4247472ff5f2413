"""Ablation: window attention in the place of the clustering.

Our reading: windows of 8x8 pixels, as many heads as the clustering has, a learned bias for each offset, no shift.

As published: +1.0 % of rate at equal PSNR (clustering -> W-MHSA; one model near 0.2 bpp, Kodak).
Ours: not resolved, +0.0 % (95 %: ±2.1), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +1.0  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, mixer="window_attention")
    return dataclasses.replace(base, name=f"{base.name}-window-attention", model=model)
