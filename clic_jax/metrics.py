"""Distortion between an image and its reconstruction: mean squared error, PSNR, and MS-SSIM.

Each function has one body for NumPy and JAX. NumPy arrays are computed in float64, for evaluation; JAX arrays in
float32 (float64 where x64 is on), for training, under `jit` and `grad`. Two images must be of the same kind: both
uint8, with a peak of 255, or both floating, with a peak of 1; nothing is clipped or rounded here, so a file is judged
by its uint8 pixels. Leading axes are batch axes, and every result is per image.
"""

import functools
import sys

import numpy as np

from clic_jax.errors import UserError

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, full resolution first (Wang et al. 2003)
MS_SSIM_MIN_SIDE = 161  # the fifth scale must still hold the 11 pixels of the window
K1, K2 = 0.01, 0.03  # stabilising constants of SSIM, as shares of the data range
# exp(-d^2 / (2 * 1.5^2)) over its sum, d = -5..5, with the float32 rounding of pytorch-msssim, worth 1e-6 in flat areas
TAPS = [float(np.float32(tap)) for tap in (0.0010283804, 0.007598758, 0.036000773, 0.10936069, 0.21300553, 0.26601171)]
TAPS += TAPS[-2::-1]


def mse(x, x_hat):
    """Mean squared error of each image.

    Args:
      x, x_hat: [..., H, W, 3], both uint8 or both floating.
    Returns: [...], in squared units of the input: 0..65025 for uint8, 0..1 for floats in [0, 1].
    Raises: ValueError for two shapes, two kinds of values, or values that are neither uint8 nor floating.
    """
    xp, x, x_hat, _ = _pair(x, x_hat)
    return xp.square(x - x_hat).mean((-3, -2, -1))


def squared_error(x: np.ndarray, x_hat: np.ndarray) -> int:
    """Sum of the squared differences of two uint8 images [H, W, 3]: exact, in memory that does not grow with H."""
    bands = (slice(row, row + 64) for row in range(0, len(x), 64))
    return sum(int(np.square(np.subtract(x[b], x_hat[b], dtype=np.int32)).sum(dtype=np.int64)) for b in bands)


def psnr(x, x_hat):
    """Peak signal-to-noise ratio of each image, from the error of its three RGB channels together.

    10 log10(peak^2 / MSE), with a peak of 255 for uint8 and 1 for floats. The mean over a set of images is the mean of
    these, as in the published curves; the PSNR of the mean error is lower.

    Args:
      x, x_hat: [..., H, W, 3], both uint8 or both floating.
    Returns: [...] in dB; infinite for equal images.
    Raises: as `mse`.
    """
    xp, _, _, peak = _pair(x, x_hat)
    with np.errstate(divide="ignore"):
        return 10 * xp.log10(peak**2 / mse(x, x_hat))


def ms_ssim(x, x_hat, *, data_range: float | None = None):
    """Multi-scale structural similarity of each image, the mean of its RGB channels.

    The convention of the pytorch-msssim package, in which learned codecs are reported: 11x11 Gaussian window inside the
    image, five scales by 2x2 averaging (an odd side gets one row or column of zeros in front), negative terms set to 0.

    Its gradient is finite everywhere, and zero for a channel with a negative term, which an untrained model can have:
    start training for MS-SSIM as a transform codec (train.pca_start), or from a model trained for MSE.

    Args:
      x, x_hat: [..., H, W, 3], H and W at least 161, both uint8 or both floating.
      data_range: the largest value minus the smallest that can occur; by default 255 for uint8 and 1 for floats.
    Returns: [...] in [0, 1]; 1 for equal images.
    Raises: UserError for an image too small, else as `mse`.
    Source: Wang, Simoncelli, Bovik 2003, "Multi-scale structural similarity for image quality assessment".
    """
    xp, x, x_hat, peak = _pair(x, x_hat)
    height, width = x.shape[-3:-1]
    if min(height, width) < MS_SSIM_MIN_SIDE:
        raise UserError(f"MS-SSIM needs sides of at least {MS_SSIM_MIN_SIDE} pixels; this image is {width}x{height}")
    pair = xp.stack([x, x_hat])
    result = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        luminance, contrast = _ssim_maps(xp, pair, peak if data_range is None else data_range)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        term = (luminance * contrast if last else contrast).mean((-3, -2))  # [..., 3]
        # max(term, 0) ** weight, whose derivative at 0 is infinite: the inner `where` keeps it out of the gradient
        result *= xp.where(term > 0, xp.where(term > 0, term, 1.0) ** weight, 0.0)
        pair = _halve(xp, pair)
    return result.mean(-1)


def ms_ssim_db(value):
    """MS-SSIM in decibels, -10 log10(1 - value): what rate-distortion plots show. Infinite for a value of 1.

    The published curves take it of the mean over a set, which is not the mean of the decibels.
    """
    xp = _module(value)
    with np.errstate(divide="ignore"):
        return -10 * xp.log10(1 - xp.asarray(value))


def _module(*arrays):
    """jax.numpy if one of the arrays is of JAX, which this module does not import, else numpy."""
    jax = sys.modules.get("jax")
    return jax.numpy if jax and any(isinstance(x, jax.Array) for x in arrays) else np


def _pair(x, x_hat):
    """(array module, x, x_hat, peak): both images in the type of the computation. Raises: ValueError, see `mse`."""
    xp = _module(x, x_hat)
    x, x_hat = xp.asarray(x), xp.asarray(x_hat)
    if x.shape != x_hat.shape or x.ndim < 3 or x.shape[-1] != 3:
        raise ValueError(f"two images must have one shape [..., H, W, 3]; these have {x.shape} and {x_hat.shape}")
    byte = [image.dtype == np.uint8 for image in (x, x_hat)]
    floating = [xp.issubdtype(image.dtype, xp.floating) for image in (x, x_hat)]
    if not all(byte) and not all(floating):
        raise ValueError(f"two images must both be uint8 or both floating, not {x.dtype} and {x_hat.dtype}")
    dtype = np.float64 if xp is np else xp.promote_types(xp.promote_types(x.dtype, x_hat.dtype), xp.float32)
    return xp, x.astype(dtype), x_hat.astype(dtype), 255.0 if all(byte) else 1.0


def _ssim_maps(xp, pair, data_range: float):
    """(luminance, contrast-structure) similarity at each position of the window; pair [2, ..., H, W, 3]."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    x, x_hat = pair
    blur = _blur if xp is np else _differentiable_blur()
    maps = xp.concatenate([pair, xp.square(pair), (x * x_hat)[None]])
    mean_x, mean_x_hat, mean_xx, mean_x_hat_x_hat, mean_product = blur(maps)
    variances = mean_xx - mean_x**2 + mean_x_hat_x_hat - mean_x_hat**2
    contrast = (2 * (mean_product - mean_x * mean_x_hat) + c2) / (variances + c2)
    return (2 * mean_x * mean_x_hat + c1) / (mean_x**2 + mean_x_hat**2 + c1), contrast


def _blur(maps):
    """The Gaussian window at every position inside the image: [..., H, W, C] -> [..., H - 10, W - 10, C].

    Shifted sums, as they need no convolution of either module, and XLA on a CPU runs them fastest.
    """
    height, width = (side - len(TAPS) + 1 for side in maps.shape[-3:-1])
    maps = sum(tap * maps[..., i : i + height, :, :] for i, tap in enumerate(TAPS))
    return sum(tap * maps[..., i : i + width, :] for i, tap in enumerate(TAPS))


def _blur_transposed(_, cotangent):
    """The gradient of `_blur`: the window is symmetric, so that its transpose is itself on a padded cotangent."""
    margin = (len(TAPS) - 1, len(TAPS) - 1)
    pad = _module(cotangent).pad
    return (_blur(pad(cotangent, [(0, 0)] * (cotangent.ndim - 3) + [margin, margin, (0, 0)])),)


@functools.cache
def _differentiable_blur():
    """`_blur` with its gradient: JAX's own of the shifted sums, a padded array a shift, takes five times as long."""
    import jax

    blur = jax.custom_vjp(_blur)
    blur.defvjp(lambda maps: (_blur(maps), None), _blur_transposed)
    return blur


def _halve(xp, images):
    """2x2 averages, a zero in front of an odd side counting: [..., H, W, C] -> [..., ceil(H/2), ceil(W/2), C]."""
    *batch, height, width, channels = images.shape
    images = xp.pad(images, [(0, 0)] * len(batch) + [(height % 2, 0), (width % 2, 0), (0, 0)])
    return images.reshape(*batch, -(-height // 2), 2, -(-width // 2), 2, channels).mean((-4, -2))
