"""Starts the small presets as a transform codec: the linear path of g_a and g_s is a principal-component transform.

A deviation from the paper, for short training: step 0 then codes photographs like a KLT, and the nonlinear blocks learn
what is left. Needs `linear_path` (patch merges without MLP and norm) and a stem whose kernel equals its stride.
"""

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax.config import STEP_AT_UNIT_LMBDA, ConfigError, ModelConfig
from clic_jax.model.clic import CLIC

RESIDUAL_GAIN = 0.1  # the residual branches start at a tenth of their usual size
# lmbda of 1 - MS-SSIM over that of 255^2 * MSE at the same rate: 1,333 to 1,253 in the lists that papers train with
MS_SSIM_LMBDA = 1300
BALANCE = 0.5  # activations between the levels are divided by their standard deviation to this power


def transform_codec(params, config: ModelConfig, crops, metric: str = "mse"):
    """`params` with the linear path of g_a, g_s and the scales of y set from photographs.

    Args:
      params: initial parameters of `CLIC(config)`.
      crops: uint8 [n, S, S, 3], S a multiple of 16; some hundred thousand pixels are enough.
      metric: the distortion that the config's lmbdas are of, as TrainConfig.metric: it decides the quantisation step.
    Returns: a new parameter tree of NumPy arrays.
    Raises: ConfigError when the config has no linear path.
    """
    c = config
    fits = c.linear_path and c.stem_kernel == c.stem_stride and len(c.widths) > 1
    if not fits or c.synthesis_width not in (c.widths[-1], c.widths[-1] + c.feature_channels):
        raise ConfigError(
            "train.pca_start needs model.linear_path=True, two stages or more, model.stem_kernel equal to "
            "model.stem_stride, and model.synthesis_width equal to the last of model.widths, alone or with "
            "model.feature_channels"
        )
    params = jax.tree.map(np.array, params)
    for name in ("g_a", "g_s"):
        params[name] = _damp(params[name], c)
    g_a, g_s = params["g_a"], params["g_s"]
    step = _step(c, metric)
    s, x = c.stem_stride, crops.astype(np.float64) / 255 - 0.5

    patches = _blocks(x, s)
    basis, deviation = _principal(patches, c.widths[0])
    balance = deviation**-BALANCE
    stem = g_a["stem"]["conv"]
    known = len(balance)  # a stem wider than a patch has samples keeps its other channels as drawn
    stem["kernel"][:, :known] = 0
    rows = np.arange(len(stem["kernel"])).reshape(s * s, -1)  # a pixel each: RGB, then coordinates where there are any
    colour = rows[:, :3].ravel()
    stem["kernel"][colour, :known] = basis * balance
    stem["bias"][:known] = -0.5 * basis.sum(0) * balance
    leave = g_s["leave"]
    leave["kernel"] *= RESIDUAL_GAIN
    leave["kernel"][:known] = _channel_major((basis / balance).T, s, 3)
    leave["bias"][:] = 0.5

    x = patches @ basis * balance
    for i in range(1, len(c.widths)):
        patches = _blocks(x, 2) / np.tile(balance, 4)  # back to orthonormal coordinates
        basis, deviation = _principal(patches, c.widths[i])
        last = i == len(c.widths) - 1
        after = np.full(len(deviation), 1 / step) if last else deviation**-BALANCE
        merge, split = g_a[f"merge{i - 1}"]["reduction"], g_s[f"split{i - 1}"]["expand"]
        known = len(balance)
        forward = (basis / np.tile(balance, 4)[:, None] * after).reshape(2, 2, known, -1)
        for layer in (merge, split):
            layer["kernel"][:], layer["bias"][:] = 0, 0
        blocks = merge["kernel"].reshape(2, 2, c.widths[i - 1], -1)  # a view
        blocks[:, :, :known] = forward.swapaxes(0, 1)  # blocks column-major
        backward = (basis * np.tile(balance, 4)[:, None] / after).T
        # where the latent feature joins y_hat without a layer between, its rows, which come last, stay zero
        split["kernel"][: len(after), : 4 * known] = _channel_major(backward, 2, known)
        x, balance = patches @ basis * after, after
    if "enter" in g_s:
        _set_identity(g_s["enter"], min(c.widths[-1], c.synthesis_width))
    if c.log_scale:
        _set_scales(params["context"], c, np.maximum(deviation / step, 0.05))
    return params


def with_details(params, config: ModelConfig, crops, metric: str = "mse", kept: int = 0):
    """`params` whose `model.detail_channels` are the principal components of what the rest of the model leaves.

    That is the error of decoding y without rounding at the largest lmbda, as far as it is linear in the pixels.

    Args: as for `transform_codec`; params may be trained; crops uint8 [n, S, S, 3], S a multiple of 64: some ten
        million pixels, for 769 numbers a patch are fitted. kept: of the channels, the first that stay as they are.
    Returns: a new parameter tree of NumPy arrays.
    """
    c, model = config, CLIC(config)
    params = jax.tree.map(np.array, params)
    analysis, synthesis = (params[name]["detail"] for name in ("g_a", "g_s"))
    synthesis["kernel"][kept:] = 0
    if not kept:
        synthesis["bias"][:] = 0

    @jax.jit
    def error(params, x):
        lmbda = jnp.float32(c.lmbdas[-1:])
        tensors = model.apply({"params": params}, x, lmbda).tensors
        log_inverse = model.apply({"params": params}, lmbda, method=CLIC.gains)[1]
        return x - model.apply(
            {"params": params}, tensors["y"], tensors["feature"], log_inverse, method=CLIC.synthesise
        )

    pictures = [crop[None] / np.float32(255) for crop in crops]
    left = np.concatenate([_patches(error(params, x)) for x in pictures])
    seen = np.concatenate([_patches(x - 0.5) for x in pictures])
    seen = np.concatenate([seen, np.ones((len(seen), 1))], 1)
    gram = seen.T @ seen / len(seen)
    gram += 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram))  # photographs leave some directions empty
    fit = np.linalg.solve(gram, seen.T @ left / len(seen))
    basis, deviation = _principal(seen @ fit, c.detail_channels - kept)
    step = _step(c, metric)
    forward = fit @ basis / step
    analysis["kernel"][:, kept:] = forward[:-1]
    analysis["bias"][kept:] = forward[-1] - 0.5 * forward[:-1].sum(0)
    synthesis["kernel"][kept:] = _channel_major(basis.T * step, 16, 3)
    if c.log_scale:
        _set_scales(params["context"], c, np.maximum(deviation / step, 0.05), c.widths[-1] + kept)
    return params


def _patches(x):
    """[1, H, W, 3] -> float64 [H/16 * W/16, 768], pixel-major."""
    return _blocks(np.float64(x), 16).reshape(-1, 3 * 16**2)


def _step(config: ModelConfig, metric: str) -> float:
    """The quantisation step of an orthonormal transform at the lmbda whose gain is 1."""
    return STEP_AT_UNIT_LMBDA / np.sqrt(config.reference_lmbda / (MS_SSIM_LMBDA if metric == "ms-ssim" else 1))


def _principal(rows, count):
    """The first `count` principal axes [D, count] of rows [..., D] about zero, and the deviation along each."""
    rows = rows.reshape(-1, rows.shape[-1])
    variance, axes = np.linalg.eigh(rows.T @ rows / len(rows))
    order = np.argsort(variance)[::-1][:count]
    return axes[:, order], np.sqrt(np.maximum(variance[order], 1e-8))


def _blocks(x, s):
    """[n, H, W, C] -> [n, H/s, W/s, s*s*C], pixel-major, rows first."""
    n, h, w, c = x.shape
    return x.reshape(n, h // s, s, w // s, s, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // s, w // s, s * s * c)


def _channel_major(kernel, s, c):
    """Columns from (row, column, channel) to the (channel, row, column) order of depth_to_space."""
    return kernel.reshape(-1, s, s, c).transpose(0, 3, 1, 2).reshape(len(kernel), -1)


def _damp(tree, config: ModelConfig):
    """Scales the last layer of every residual branch by RESIDUAL_GAIN."""
    last = {"pointwise", "conv2"}
    if config.attention == "none":  # nothing comes after the mixer and the MLP
        last |= {"fc2", "mixer" if config.mixer == "conv" else "proj"}

    def visit(path, leaf):
        names = {getattr(p, "key", "") for p in path}
        return leaf * RESIDUAL_GAIN if last & names and "offset" not in names else leaf

    return jax.tree_util.tree_map_with_path(visit, tree)


def _set_identity(layer, n):
    """A 1x1 layer that copies its first n channels; the rest of the kernel is damped."""
    layer["kernel"] *= RESIDUAL_GAIN
    layer["kernel"][:n] = 0
    layer["kernel"][np.arange(n), np.arange(n)] = 1
    layer["bias"][:] = 0


def _set_scales(context, c, deviation, begin=0):
    """Starts the predicted log scale of y's channels from `begin` on at their deviation in steps, the mean at zero."""
    first = 0
    for k, g in enumerate(c.groups):
        channels = np.arange(max(first, begin), min(first + g, begin + len(deviation)))
        if len(channels):
            last = context[f"parameters_{k}"][f"conv{len(c.parameter_widths)}"]
            last["kernel"] *= RESIDUAL_GAIN
            last["bias"][channels - first] = 0
            last["bias"][g + channels - first] = np.log(deviation[channels - begin])
        first += g
