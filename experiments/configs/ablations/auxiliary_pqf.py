"""Ablation: GuidedPQF trained beside the model.

The filter learns from y_hat, and nothing else learns from the filter; g_s is trained on y_hat as it is rounded. It is
that of `tiny`, `compact` and `small`, which can be coded without it.

As published: no figure.
Ours: not resolved, -0.3 % (95 %: ±2.1), `mini`, 2 seeds, 600 steps, 7 held-out photographs (docs/ablations.md).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = None  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, pqf="auxiliary")
    return dataclasses.replace(base, name=f"{base.name}-auxiliary-pqf", model=model)
