"""The rate-distortion loss."""

import jax.numpy as jnp

from clic_jax import metrics

# What 1 - MS-SSIM weighs beside 255^2 * MSE: the ratio of the lmbdas that CompressAI pairs, 16.64 and 0.013
MS_SSIM_WEIGHT = 1280.0


def rate_distortion(output, x, lmbda, metric: str = "mse", ms_ssim_share: float = 0.0):
    """lmbda * distortion + bpp for each sample.

    Distortion is 255^2 * MSE, or 1 - MS-SSIM (smallest side 161 pixels or more).

    Args:
      output: `model.Output` for x.
      x: [B, H, W, 3] in [0, 1].
      lmbda: [B] or a number.
      ms_ssim_share: of the distortion of "mse" that is MS_SSIM_WEIGHT * (1 - MS-SSIM) instead, 0 to below 1 (deviates).
    Returns: (loss [B], dict of [B] arrays: bpp, bpp_z, mse (of [0, 1] values), psnr in dB).
    Source: Zhang et al. 2024, Eq. 1; the image is not clipped, as in the published training.
    """
    pixels = x.shape[1] * x.shape[2]
    bpp = (output.bits_y + output.bits_z) / pixels
    mse = metrics.mse(output.x_hat, x)
    distortion = 255.0**2 * mse
    if metric == "ms-ssim" or ms_ssim_share:
        unlike = 1 - metrics.ms_ssim(x, output.x_hat, data_range=1.0)
        mixed = (1 - ms_ssim_share) * distortion + ms_ssim_share * MS_SSIM_WEIGHT * unlike
        distortion = unlike if metric == "ms-ssim" else mixed
    parts = dict(bpp=bpp, bpp_z=output.bits_z / pixels, mse=mse, psnr=-10 * jnp.log10(mse))
    return lmbda * distortion + bpp, parts
