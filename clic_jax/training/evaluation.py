"""Rate and distortion of a model on whole photographs, by its own bit counts (the codec counts files)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax import metrics
from clic_jax.config import ModelConfig
from clic_jax.files import images
from clic_jax.model.clic import CLIC

STRIDE = 64  # of z: what photographs are padded to


@functools.partial(jax.jit, static_argnums=0)
def code(config: ModelConfig, params, x, lmbda):
    """(x_hat uint8 [B, H, W, 3], bits [B]) of x uint8 [B, H, W, 3] with H and W multiples of 64; lmbda [B]."""
    out = CLIC(config).apply({"params": params}, x.astype(jnp.float32) / 255, lmbda)
    x_hat = jnp.round(jnp.clip(out.x_hat, 0, 1) * 255).astype(jnp.uint8)
    return x_hat, out.bits_y + out.bits_z


def reconstruct(config: ModelConfig, params, x, lmbda: float):
    """Codes one photograph x uint8 [H, W, 3] of any size: (x_hat uint8 [H, W, 3], estimated bits)."""
    h, w = x.shape[:2]
    x_hat, spent = code(config, params, images.pad_to_multiple(x, STRIDE)[None], jnp.full((1,), lmbda))
    return np.asarray(x_hat[0, :h, :w]), float(spent[0])


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
