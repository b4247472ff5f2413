"""Ablation: a filter without guidance.

Our reading: the same network ends in one map a channel, the correction itself, and nothing is sent.

As published: +2.9 % of rate at equal PSNR (GuidedPQF -> normal PQF; one model near 0.2 bpp, Kodak).
Ours: not resolved, +0.4 % (95 %: ±2.1), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +2.9  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, pqf="plain")
    return dataclasses.replace(base, name=f"{base.name}-plain-pqf", model=model)
