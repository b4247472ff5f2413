"""Ablation: centres as they are pooled.

No MLP moves them.

As published: +2.4 % of rate at equal PSNR (w/o MLP offset; one model near 0.2 bpp, Kodak).
Ours: not resolved, +1.1 % (95 %: ±2.1), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +2.4  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, center_offset="none")
    return dataclasses.replace(base, name=f"{base.name}-no-offset", model=model)
