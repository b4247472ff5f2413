"""Ablation: a convolution in the place of the clustering.

Our reading: one dense 3x3 convolution, C to C. It makes `paper` 21 % costlier to encode with, 30 % to decode, 25 % in
all (`experiments.complexity --preset paper --set model.mixer=conv`), as the paper says: about 25 %.

As published: +2.5 % of rate at equal PSNR (clustering -> convolution; one model near 0.2 bpp, Kodak).
Ours: not resolved, -2.0 % (95 %: ±2.1), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +2.5  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, mixer="conv")
    return dataclasses.replace(base, name=f"{base.name}-conv-mixer", model=model)
