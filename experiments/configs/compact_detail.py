r"""`compact` with 64 more channels of y for texture (`model.detail_channels`), grown from its weights."""

import dataclasses

from clic_jax.config import COMPACT, Config


def get_config() -> Config:
    """The preset with detail channels, coded last."""
    model = dataclasses.replace(COMPACT.model, detail_channels=64, groups=(*COMPACT.model.groups, 64))
    return dataclasses.replace(COMPACT, name="compact-detail", model=model)
