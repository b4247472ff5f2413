"""The range of each layer of the entropy model's networks, seen once on photographs: `fixedpoint` scales by it."""

import jax
import numpy as np

from clic_jax.coding.fixedpoint import LIMIT
from clic_jax.coding.hyper import decoders
from clic_jax.config import ModelConfig
from clic_jax.model.checkerboard import split
from clic_jax.model.clic import CLIC
from clic_jax.model.schedule import code_slices, slices


def calibrate(config: ModelConfig, params, y_hat_and_z_hat) -> dict:
    """The exponent of every layer's output: the finest at which no value of the float networks saturates.

    A factor of two is left for photographs that were not looked at.

    Args:
      y_hat_and_z_hat: list of (y_hat [B, h, w, M], z_hat) float arrays of photographs over the range of rates.
    Returns: {stack name: list of int}, JSON-ready.
    """
    largest: dict[str, np.ndarray] = {}
    look = jax.jit(lambda y_hat, z_hat: _ranges(config, params, y_hat, z_hat))
    for y_hat, z_hat in y_hat_and_z_hat:
        for name, values in jax.device_get(look(y_hat, z_hat)).items():
            largest[name] = np.maximum(largest.get(name, 0), np.float64(values))
    return {
        name: [int(np.floor(np.log2(LIMIT / max(2 * v, 1e-3)))) for v in values] for name, values in largest.items()
    }


def _ranges(config: ModelConfig, params, y_hat, z_hat) -> dict:
    """Largest output of each layer of each stack, after the activation where it has one, as the networks sow them."""

    def decode(model):
        halves = [split(s) for s in slices(y_hat, config.groups)]
        features, _ = model.hyper_features(z_hat)
        code_slices(model.context, features, lambda k, colour, *_: halves[k][colour])

    sown = CLIC(config).apply({"params": params}, method=decode, mutable=["intermediates"])[1]["intermediates"]

    def largest(tree, channels=None):
        """Of each layer, over the channels; of the last layer, over the first `channels` of them."""
        ranges = [tree[f"range{i}"] for i in range(len(tree))]
        return [*(v.max() for v in ranges[:-1]), ranges[-1][:channels].max()]

    hyper = decoders(config, params)
    found = {name: largest(sown[name], 2 * config.hyper_channels // len(hyper)) for name in hyper}
    found |= {name: largest(tree) for name, tree in sown["context"].items()}
    for k in range(len(config.groups)):
        found[f"parameters_{k}"].pop()  # means and scales have units of their own
    return found
