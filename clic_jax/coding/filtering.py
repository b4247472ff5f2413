"""GuidedPQF in the encoder: for which pictures it is tried, and the coefficients that are sent where it pays."""

from collections.abc import Callable

import numpy as np

from clic_jax import metrics
from clic_jax.coding import coefficients
from clic_jax.config import STEP_AT_UNIT_LMBDA, Config, ModelConfig

# lmbda from which an encoder does not try a filter that was trained beside the model ("auxiliary"). From quality 40 of
# `tiny` on, the last at which it is tried, it gained 0.01 % of the rate at most, and trying it takes 60 % of encoding.
LMBDA_MAX = 0.0066


def tried(config: Config, lmbda) -> bool:
    """Whether an encoder looks if the filter pays; one trained beside the model is for squared error alone."""
    if config.model.pqf != "auxiliary":
        return config.model.pqf == "joint"
    return config.train.metric == "mse" and lmbda[0] < LMBDA_MAX


def fitted(programs, config: ModelConfig, x, halves, plain, show: Callable):
    """(coefficients in steps, corrected latents) where the filter lowers rate + lmbda * distortion, or None.

    Both pictures are compared where the filter was trained apart; a "joint" g_s has never seen latents without it.

    Args: programs, plain: the codec's, and its `Latents` without the filter. show: latents -> uint8 like x [H, W, 3].
    """
    maps, lmbda = programs.maps(plain.y_hat), plain.lmbda
    exact = np.asarray(programs.fitted(maps, halves, plain.y_hat))
    weight = float(lmbda[0]) * 255**2 / 3 * maps.shape[1] * maps.shape[2]  # bits that one unit of energy is worth
    step = _energy(programs, config, lmbda)[:, : maps.shape[3], None]
    q = coefficients.rounded(exact)
    gained = (exact**2 - (exact - q * coefficients.STEP) ** 2) * step * weight
    cost = coefficients.bits(q) - coefficients.bits(np.zeros_like(q))
    q = np.where(gained > cost, q, 0)
    if not q.any():
        return None
    latents = plain._replace(y_hat=programs.corrected(plain.y_hat, maps, coefficients.values(q, maps)))
    if config.pqf == "joint":
        return q.ravel(), latents
    # of the image itself: what the filter does to the padding is nobody's gain
    before, after = (metrics.squared_error(x, show(v)) for v in (plain, latents))
    gain = float(lmbda[0]) * (before - after) / 3
    return (q.ravel(), latents) if gain > coefficients.bits(q).sum() + coefficients.FIELD_BITS else None


def _energy(programs, config: ModelConfig, lmbda):
    """Squared size of one step of each channel of y_hat in pixels of [0, 1]: [1, M]."""
    log_inverse = np.broadcast_to(programs.log_inverse_gain(lmbda), (1, 1, 1, config.latent_channels))
    return STEP_AT_UNIT_LMBDA**2 / config.reference_lmbda * np.exp(2 * log_inverse[0, 0])
