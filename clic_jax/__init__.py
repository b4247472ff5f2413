"""clic_jax: a learned image codec built on contextual clustering (CLIC, Zhang et al., AAAI 2024) in JAX and Flax.

Shapes in docstrings: B batch, H W image, h w latent grid, C channels, E clustering heads, M clustering centres in
`clustering` and latent channels elsewhere, D channels of a head. Images are NHWC, RGB.

    data = clic_jax.compress("photo.jpg", quality=60)        # the bytes of a .clic file
    pixels = clic_jax.decompress(data)                       # uint8 [H, W, 3]
    model, params = clic_jax.load("clic-compact-detail")
    out = model.apply({"params": params}, x, lmbda)          # x: [B, H, W, 3] in [0, 1]
"""

from clic_jax.config import Config, ConfigError, ModelConfig, TrainConfig, preset

__all__ = ["Config", "ConfigError", "ModelConfig", "TrainConfig", "compress", "decompress", "load", "preset"]


def load(name_or_path):
    """(model, params) of published weights: a name that ships with the package, or a folder.

    Args:
      name_or_path: see `clic_jax.checkpoints.published.load_published`; a training run's folder gives its averaged
        parameters.
    Returns: (`clic_jax.model.clic.CLIC`, parameter tree on the default device).
    Raises: clic_jax.checkpoints.arrays.CheckpointError for a name or folder that holds no weights, or damaged ones.
    """
    from clic_jax.checkpoints import published
    from clic_jax.model import clic

    config, params, _ = published.load_published(name_or_path)
    return clic.CLIC(config.model), params


def __getattr__(name):
    """`compress` and `decompress` of `clic_jax.api`, imported at their first use."""
    if name not in ("compress", "decompress"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from clic_jax import api

    return getattr(api, name)
