"""Rate and distortion of a model on whole photographs, by its own bit counts (the codec counts files)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax import metrics
from clic_jax.config import ModelConfig
from clic_jax.files import images
from clic_jax.model import clustering
from clic_jax.model.clic import CLIC

STRIDE = 64  # of z: what photographs are padded to


@functools.partial(jax.jit, static_argnums=0)
def code(config: ModelConfig, params, x, lmbda):
    """(x_hat uint8 [B, H, W, 3], bits [B], `clustering.assignments`) of x uint8 [B, H, W, 3]; lmbda [B].

    H and W are multiples of 64.
    """
    x = x.astype(jnp.float32) / 255
    out, state = CLIC(config).apply({"params": params}, x, lmbda, mutable=["intermediates"])
    x_hat = jnp.round(jnp.clip(out.x_hat, 0, 1) * 255).astype(jnp.uint8)
    return x_hat, out.bits_y + out.bits_z, clustering.assignments(state.get("intermediates", {}))


def reconstruct(config: ModelConfig, params, x, lmbda: float):
    """Codes one photograph x uint8 [H, W, 3] of any size: (x_hat uint8 [H, W, 3], estimated bits)."""
    h, w = x.shape[:2]
    x_hat, spent, _ = code(config, params, images.pad_to_multiple(x, STRIDE)[None], jnp.full((1,), lmbda))
    return np.asarray(x_hat[0, :h, :w]), float(spent[0])


def assignments(config: ModelConfig, params, x, lmbda: float) -> dict[str, np.ndarray]:
    """The centre that each position of a photograph x uint8 [H, W, 3] is most like, `within` it, by block."""
    padded = images.pad_to_multiple(x, STRIDE)
    found = code(config, params, padded[None], jnp.full((1,), lmbda))[2]
    return within(x, {name: value[0] for name, value in found.items()})


def within(x, maps: dict) -> dict[str, np.ndarray]:
    """Maps [E, h, w] over the padded x [H, W, 3] without the positions that lie in the padding alone."""
    found = {}
    for name, value in maps.items():
        stride = -(-x.shape[0] // STRIDE) * STRIDE // value.shape[1]
        found[name] = np.asarray(value)[:, : -(-x.shape[0] // stride), : -(-x.shape[1] // stride)]
    return found


def evaluate(config: ModelConfig, params, photographs, lmbdas=None, metric: str = "mse") -> list[dict]:
    """One row a lmbda: {"lmbda", "bpp", "psnr", "loss"}, each the mean over photographs of its value on each of them.

    Args:
      photographs: iterable of uint8 [H, W, 3], any sizes; each size compiles once.
      lmbdas: operating points; the config's where None.
      metric: the distortion of `loss`, as TrainConfig.metric; "ms-ssim" needs sides of 161 pixels.
    Returns: bpp counts estimated bits over the true size; psnr is of the 8-bit image, in dB; loss is lmbda * distortion
    + bpp, the distortion being 255^2 * MSE of [0, 1] pixels, or 1 - MS-SSIM, which is then there as "ms_ssim" as well.
    Raises: UserError for a photograph too small for MS-SSIM.
    """
    rows = []
    photographs = list(photographs)
    for lmbda in lmbdas or config.lmbdas:
        points = []
        for x in photographs:
            x_hat, spent = reconstruct(config, params, x, lmbda)
            bpp = spent / (x.shape[0] * x.shape[1])
            point = {"bpp": bpp, "psnr": metrics.psnr(x, x_hat)}
            if metric == "ms-ssim":
                point["ms_ssim"] = metrics.ms_ssim(x, x_hat)
            distortion = 1 - point["ms_ssim"] if metric == "ms-ssim" else metrics.mse(x, x_hat)
            points.append(point | {"loss": lmbda * distortion + bpp})
        rows.append({name: float(np.mean([p[name] for p in points])) for name in points[0]} | {"lmbda": lmbda})
    return rows
