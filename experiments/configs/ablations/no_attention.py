"""Ablation: without local attention.

What clustering and MLP give is added as it is. (At the six rates: +9.5, 11.7, 11.4, 8.1, 5.7, 4.2 %.)

As published: +11.7 % of rate at equal PSNR (w/o attention; one model near 0.2 bpp, Kodak).
Ours: not resolved, +0.7 % (95 %: ±2.1), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +11.7  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, attention="none")
    return dataclasses.replace(base, name=f"{base.name}-no-attention", model=model)
