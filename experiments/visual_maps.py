"""What happens inside the model on one picture, as maps: the numbers that `experiments.visualize` draws.

Everything comes from the model itself: the clusters from what `ClusterMixer` sows, the rest from the tensors of its
`Output` and the functions that made them.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from clic_jax.config import ModelConfig
from clic_jax.model import clustering
from clic_jax.model.checkerboard import merge, split
from clic_jax.model.clic import CLIC
from clic_jax.model.entropy import y_bits
from clic_jax.model.schedule import slices


class Maps(NamedTuple):
    """Of one padded picture [H, W, 3]; h w is the latent grid, H/16 x W/16."""

    # by block, such as "g_a/stage2/block0": the centre that each position is most like, [E, h', w']
    assignments: dict[str, jax.Array]
    bits: jax.Array  # [h, w] bits of y at each position, all channels together
    bits_y: jax.Array  # the model's own sum, []
    bits_z: jax.Array  # []
    correction: jax.Array | None  # [h, w] root mean square, in quantisation steps, over the channels the filter serves
    x_hat: jax.Array  # [H, W, 3] without the filter, not clipped
    x_hat_filtered: jax.Array | None  # with it


@functools.partial(jax.jit, static_argnums=0)
def look_inside(config: ModelConfig, params, x, lmbda) -> Maps:
    """The maps of x uint8 [H, W, 3], sides multiples of 64; lmbda [1]. GuidedPQF is shown with exact coefficients."""
    model, variables = CLIC(config), {"params": params}
    out, state = model.apply(variables, x[None].astype(jnp.float32) / 255, lmbda, mutable=["intermediates"])
    tensors = out.tensors
    log_inverse = model.apply(variables, lmbda, method=CLIC.gains)[1]

    def picture(y_hat):
        return model.apply(variables, y_hat, tensors["feature"], log_inverse, method=CLIC.synthesise)[0]

    correction = filtered = None
    if config.pqf in ("joint", "auxiliary"):  # a plain filter is a part of the synthesis
        served = sum(config.groups[: config.pqf_slices])
        moved = (tensors["y_hat_corrected"] - tensors["y_hat"])[0, ..., :served]
        correction = jnp.sqrt(jnp.square(moved).mean(-1))
        filtered = picture(tensors["y_hat_corrected"])
    return Maps(
        assignments={name: value[0] for name, value in clustering.assignments(state["intermediates"]).items()},
        bits=_bits(config, tensors),
        bits_y=out.bits_y[0],
        bits_z=out.bits_z[0],
        correction=correction,
        x_hat=picture(tensors["y_hat"]),
        x_hat_filtered=filtered,
    )


def _bits(config: ModelConfig, tensors) -> jax.Array:
    """[h, w] bits of y_hat, from the means and scales of both colours of each slice."""
    total, bits = 0.0, functools.partial(y_bits, config.density)
    for k, y_hat in enumerate(slices(tensors["y_hat"], config.groups)):
        means, scales = (tensors[name][2 * k : 2 * k + 2] for name in ("means", "scales"))
        total += merge(*map(bits, split(y_hat), means, scales)).sum(-1)[0]
    return total


@functools.partial(jax.jit, static_argnums=0)
def squared_gradient(config: ModelConfig, params, x, lmbda, weights) -> jax.Array:
    """[H, W]: square of the gradient of sum(weights * y at the grid's centre) to x [H, W, 3] in [0, 1], mean over RGB.

    The centre is row h // 2, column w // 2 of the latent grid; weights [M].
    """

    def center(x):
        y = CLIC(config).apply({"params": params}, x[None], lmbda, method=CLIC.analyse)[0]
        return jnp.vdot(weights, y[0, y.shape[1] // 2, y.shape[2] // 2])

    return jnp.square(jax.grad(center)(x)).mean(-1)


def receptive_field(config: ModelConfig, params, crops, lmbda, draws: int, seed: int = 0) -> np.ndarray:
    """The effective receptive field of one position of y: root mean square of d y / d x, [S, S].

    The mean is over the channels of y, RGB and the crops. Channels are summed with random signs, `draws` times a crop,
    for the mean square of such sums is the sum of the channels' squares: as good as a gradient a channel, and quicker.

    Args: crops: uint8 [n, S, S, 3], S a multiple of 64.
    Source: Luo et al. 2016, "Understanding the effective receptive field in deep convolutional neural networks".
    """
    rng, total = np.random.default_rng(seed), 0.0
    for crop in tqdm(crops, "receptive field", unit="crop", disable=None):
        for _ in range(draws):
            signs = rng.choice(np.float32([-1, 1]), config.latent_channels)
            total += np.asarray(
                squared_gradient(config, params, crop.astype(np.float32) / 255, lmbda, signs), np.float64
            )
    return np.sqrt(total / (len(crops) * draws * config.latent_channels))


def spread_crops(x: np.ndarray, side: int) -> np.ndarray:
    """Crops at the corners of the middle of x [H, W, 3], [n, S, S, 3]; fewer, and smaller, where x is.

    H, W and side are multiples of 64. Crops that would be the same are taken once.
    """
    side = min(side, *x.shape[:2])
    rows, columns = ({(length - side) // 4, (length - side) * 3 // 4} for length in x.shape[:2])
    return np.stack([x[i : i + side, j : j + side] for i in sorted(rows) for j in sorted(columns)])
