"""Ablation: without GuidedPQF.

y_hat goes into g_s as it is rounded.

As published: +4.6 % of rate at equal PSNR (w/o PQF; one model near 0.2 bpp, Kodak).
Ours: not resolved, +1.1 % (95 %: ±2.1), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +4.6  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, pqf="none")
    return dataclasses.replace(base, name=f"{base.name}-no-pqf", model=model)
