"""Ablation: similarity by distance.

Our reading: less the root of the mean squared difference, in the same sigmoid.

As published: +2.4 % of rate at equal PSNR (cosine -> Euclidean distance; one model near 0.2 bpp, Kodak).
Ours: not measured yet (`python -m experiments.ablation`).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +2.4  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, similarity="euclidean")
    return dataclasses.replace(base, name=f"{base.name}-euclidean", model=model)
