"""Ablation: similarity by distance.

Our reading: less the root of the mean squared difference, in the same sigmoid.

As published: +2.4 % of rate at equal PSNR (cosine -> Euclidean distance; one model near 0.2 bpp, Kodak).
Ours: not resolved, +1.0 % (95 %: ±2.1), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +2.4  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, similarity="euclidean")
    return dataclasses.replace(base, name=f"{base.name}-euclidean", model=model)
