"""The range of each layer of the entropy model's networks, measured once: `clic_jax.fixedpoint` scales by it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from clic_jax.checkerboard import TAPS, merge, split
from clic_jax.config import ModelConfig
from clic_jax.fixedpoint import LIMIT, hyper_decoders
from clic_jax.layers import activation, depth_to_space


def calibrate(config: ModelConfig, params, y_hat_and_z_hat) -> dict:
    """The exponent of every layer's output: the finest at which no value of the float networks saturates.

    A factor of two is left for photographs that were not looked at.

    Args:
      y_hat_and_z_hat: list of (y_hat [B, h, w, M], z_hat) float arrays of photographs over the range of rates.
    Returns: {stack name: list of int}, JSON-ready.
    """
    largest: dict[str, np.ndarray] = {}
    stacks = jax.jit(lambda y_hat, z_hat: _ranges(config, params, y_hat, z_hat))
    for y_hat, z_hat in y_hat_and_z_hat:
        for name, values in stacks(y_hat, z_hat).items():
            largest[name] = np.maximum(largest.get(name, 0), np.asarray(values, np.float64))
    return {
        name: [int(np.floor(np.log2(LIMIT / max(2 * v, 1e-3)))) for v in values] for name, values in largest.items()
    }


def _ranges(config: ModelConfig, params, y_hat, z_hat) -> dict:
    """Largest output of each layer of each stack, after the activation where it has one."""
    act, found = activation(config.activation), {}

    def watch(name, tree, x, masked=False):
        seen = []
        for i in range(len(tree)):
            leaf = tree[f"conv{i}"].get("expand", tree[f"conv{i}"])
            kernel = leaf["kernel"] * (TAPS[..., None, None] if masked else 1)
            if kernel.ndim == 2:
                x = x @ kernel + leaf["bias"]
            else:
                pad = ((kernel.shape[0] // 2,) * 2,) * 2
                dims = ("NHWC", "HWIO", "NHWC")
                x = lax.conv_general_dilated(x, kernel, (1, 1), pad, dimension_numbers=dims) + leaf["bias"]
            x = depth_to_space(x) if "expand" in tree[f"conv{i}"] else x
            x = act(x) if i < len(tree) - 1 else x
            seen.append(jnp.abs(x).max())
        found[name] = jnp.stack(seen)
        return x

    c = config
    features = [watch(name, tree, z_hat) for name, tree in hyper_decoders(c, params).items()]
    cuts = np.cumsum((0, *c.groups))
    for k in range(len(c.groups)):
        value = y_hat[..., cuts[k] : cuts[k + 1]]
        anchors = merge(split(value)[0], jnp.zeros_like(split(value)[1]))
        inputs = [watch(f"spatial_{k}", params["context"][f"spatial_{k}"], anchors, masked=True)]
        if k:
            seen = [y_hat[..., : cuts[k]]]
            if c.channel_support != "all" and k > 1:
                seen = [y_hat[..., : cuts[1]], y_hat[..., cuts[k - 1] : cuts[k]]]
            name = f"channel_{k - 1}"
            inputs.append(watch(name, params["context"][name], jnp.concatenate(seen, -1)))
        watch(f"parameters_{k}", params["context"][f"parameters_{k}"], jnp.concatenate([*inputs, *features], -1))
        found[f"parameters_{k}"] = found[f"parameters_{k}"][:-1]
    return found
