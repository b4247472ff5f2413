"""The products of `fixedpoint.convolve` in JAX: int8 maps and kernels, int32 sums, as accelerators like them."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

from clic_jax.coding.fixedpoint import SPLIT, alive_taps


def split_sum(kernel: np.ndarray, x):
    """The int32 convolution of x in +-LIMIT with an int8 kernel: x is 64 * high + low, two int8 maps."""
    high = (x + (1 << SPLIT - 1)) >> SPLIT
    low = x - (high << SPLIT)
    return (_sum(kernel, high.astype(jnp.int8)) << SPLIT) + _sum(kernel, low.astype(jnp.int8))


def _sum(kernel, x):
    """The int32 convolution of int8 x with an int8 kernel, a NumPy array."""
    if kernel.ndim == 2:
        return _product(x, kernel)
    one, taps = functools.partial(_convolution, kernel), functools.partial(_sum_of_taps, kernel)
    return lax.platform_dependent(x, cuda=taps, rocm=taps, default=one)  # GPUs have no integer convolutions in XLA


def _convolution(kernel, x):
    pad = ((kernel.shape[0] // 2,) * 2,) * 2
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), pad, dimension_numbers=dims, preferred_element_type=jnp.int32)


def _sum_of_taps(kernel, x):
    """The same as a product for each tap of the kernel that is not all zeros."""
    k, (h, w) = kernel.shape[0], x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2, (0, 0)))
    return sum(_product(x[:, i : i + h, j : j + w], kernel[i, j]) for i, j in alive_taps(kernel))


def _product(x, matrix):
    return lax.dot_general(x, matrix, (((3,), (0,)), ((), ())), preferred_element_type=jnp.int32)
