"""Ablation: GuidedPQF trained beside the model.

The filter learns from y_hat, and nothing else learns from the filter; g_s is trained on y_hat as it is rounded. It is
that of `tiny`, `compact` and `small`, which can be coded without it.

As published: no figure.
Ours: not measured yet (`python -m experiments.ablation`).
"""

import dataclasses

from clic_jax.config import MINI, Config

PUBLISHED = None  # percent


def get_config(base: Config = MINI) -> Config:
    """`base` with this one change."""
    model = dataclasses.replace(base.model, pqf="auxiliary")
    return dataclasses.replace(base, name=f"{base.name}-auxiliary-pqf", model=model)
