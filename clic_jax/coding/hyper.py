"""The parameters of the hyper decoders as `fixedpoint` takes them."""

import numpy as np

from clic_jax.config import ModelConfig

ONE = 16  # stands for 1 in the channel of the medians, so that its taps are about as large as the others


def decoders(config: ModelConfig, params) -> dict:
    """Parameters of what makes the mean and scale features: h_s without its latent feature, or the paper's two."""
    if not config.shared_hyper_decoder:
        return {name: params[name] for name in ("h_mean_s", "h_scale_s")}
    tree = params["h_s"]
    name = f"conv{len(tree) - 1}"
    last = tree[name]
    leaf = last.get("expand", last)
    taken = 2 * config.hyper_channels * (4 if "expand" in last else 1)  # depth to space is channel-major
    leaf = {key: value[..., :taken] for key, value in leaf.items()}
    return {"h_s": {**tree, name: {"expand": leaf} if "expand" in last else leaf}}


def with_medians(tree, median) -> dict:
    """A hyper decoder's parameters with one channel of z more, which is 1 everywhere and stands for the medians.

    So z_hat = z + median enters its first layer without rounding, and is 0 beyond the border, as in the float networks.
    """
    first = tree["conv0"]
    leaf = first.get("expand", first)
    kernel = np.asarray(leaf["kernel"], np.float64)
    leaf = leaf | {"kernel": np.concatenate([kernel, (median @ kernel)[..., None, :]], -2)}
    return {**tree, "conv0": {"expand": leaf} if "expand" in first else leaf}
