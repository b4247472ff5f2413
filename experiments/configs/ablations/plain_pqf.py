"""Ablation: a filter without guidance.

Our reading: the same network ends in one map a channel, the correction itself, and nothing is sent.

As published: +2.9 % of rate at equal PSNR (GuidedPQF -> normal PQF; one model near 0.2 bpp, Kodak).
Ours: not measured yet (`python -m experiments.ablation`).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = +2.9  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, pqf="plain")
    return dataclasses.replace(base, name=f"{base.name}-plain-pqf", model=model)
