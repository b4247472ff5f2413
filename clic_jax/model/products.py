"""Matrix products and convolutions in every compute type, with the gradients that XLA does not find for a CPU.

Two things are slow there. The slope of a kernel is a product over pixels whose first factor has to be transposed: XLA
does so a number at a time inside the product, at a third of the speed of a product of a transposed copy. And a
convolution of bfloat16 is no quicker than one of float32, where a processor with AVX-512 BF16 or AMX multiplies
matrices of bfloat16 two to three times as fast.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

NARROW = 16  # channels below which neither form gains


def in_type(x, dtype):
    """`x` as it is in memory in a compute type (TrainConfig.dtype); None leaves it, which is float32."""
    if dtype in ("tensorfloat32", "bfloat16_products"):
        dtype = jnp.float32
    return x.astype(dtype or x.dtype)


def precision(dtype) -> lax.Precision:
    """What products in a compute type declare: all digits of float32, or what an accelerator is quickest at.

    Undeclared, products of float32 are TensorFloat32's (10 bits) on NVIDIA's GPUs, one pass of bfloat16 (7) on TPUs.
    """
    return lax.Precision.HIGHEST if dtype in (None, "bfloat16_products") else lax.Precision.DEFAULT


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def correlate(x, kernel, stride: int, dtype):
    """Per-pixel linear map or convolution with zero padding k // 2 all round; x and kernel are `in_type(dtype)`.

    Args:
      x: [..., C] for a kernel [C, N], [B, H, W, C] for a kernel [k, k, C, N].
      stride: of the convolution.
      dtype: compute type. With "bfloat16_products" the factors of the result and of both gradients are rounded to
        bfloat16 and their products summed in float32, but for strides above 1 and fewer channels than NARROW.
    Returns: [..., N], or [B, H / stride, W / stride, N].
    """
    return _by_rows(x, kernel) if _rounded(kernel, stride, dtype) else _by_xla(x, kernel, stride, dtype)


def _forward(x, kernel, stride, dtype):
    if _rounded(kernel, stride, dtype):
        x = x.astype(jnp.bfloat16)  # half the memory until the backward pass
    return correlate(x, kernel, stride, dtype), (x, kernel)


def _backward(stride, dtype, residuals, g):
    x, kernel = residuals
    if _rounded(kernel, stride, dtype):
        # a barrier, here and below: XLA would fuse, and so repeat, whatever made it into each of the products
        g = lax.optimization_barrier(g.astype(jnp.bfloat16))
        return _by_rows(g, _turned(kernel)), _slope(x, g, kernel)

    def slope_by_xla(x, g):
        return jax.linear_transpose(lambda kernel: _by_xla(x, kernel, stride, dtype), kernel)(g)[0]

    to_x = jax.linear_transpose(lambda x: _by_xla(x, kernel, stride, dtype), x)(g)[0]
    if not _has_slope(kernel, stride):
        return to_x, slope_by_xla(x, g)
    slope = functools.partial(_slope, kernel=kernel, precision=precision(dtype))
    return to_x, lax.platform_dependent(x, g, cpu=slope, default=slope_by_xla)


correlate.defvjp(_forward, _backward)


def _has_slope(kernel, stride: int) -> bool:
    """Whether `_slope` has a form for it that gains."""
    return stride == 1 and (kernel.ndim == 2 or kernel.shape[0] % 2 == 1) and min(kernel.shape[-2:]) >= NARROW


def _rounded(kernel, stride: int, dtype) -> bool:
    return dtype == "bfloat16_products" and _has_slope(kernel, stride)


def _by_xla(x, kernel, stride: int, dtype):
    if kernel.ndim == 2:
        return jnp.matmul(x, kernel, precision=precision(dtype))
    pads, dims = ((kernel.shape[0] // 2,) * 2,) * 2, ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, pads, dimension_numbers=dims, precision=precision(dtype))


def _by_rows(x, kernel):
    """The same of factors in bfloat16, a product for each row of the kernel: what it sees of x lies side by side."""
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    if kernel.ndim == 2:
        return _sums(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)
    k, _, c, n = kernel.shape
    b, h, w, _ = x.shape
    r = k // 2
    x = jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
    x = jnp.concatenate([x[:, :, j : j + w] for j in range(k)], -1)  # [B, H + 2r, W, kC]
    rows = [_sums(x[:, i : i + h].reshape(-1, k * c), kernel[i].reshape(k * c, n)) for i in range(k)]
    return sum(rows).reshape(b, h, w, n)


def _turned(kernel):
    """The kernel that carries a cotangent back to x."""
    return kernel.T if kernel.ndim == 2 else kernel[::-1, ::-1].swapaxes(2, 3)


def _slope(x, g, kernel, precision=lax.Precision.DEFAULT):
    """Gradient of sum(g * correlate(x, kernel)) by the kernel: products of a transposed copy of x."""
    c, n = kernel.shape[-2:]
    product = functools.partial(_sums, precision=precision)
    columns = lax.optimization_barrier(x.reshape(-1, c).T)
    if kernel.ndim == 2:
        return product(columns, g.reshape(-1, n)).astype(kernel.dtype)
    k = kernel.shape[0]
    b, h, w, _ = x.shape
    r = k // 2
    columns = jnp.pad(columns.reshape(c, b, h, w), ((0, 0), (0, 0), (r, r), (r, r)))
    columns = jnp.concatenate([columns[..., j : j + w] for j in range(k)]).reshape(k * c, -1)  # B * (H + 2r) * W wide
    g = lax.optimization_barrier(g)
    rows = (jnp.pad(g, ((0, 0), (i, 2 * r - i), (0, 0), (0, 0))).reshape(-1, n) for i in range(k))
    slope = jnp.stack([product(columns, lax.optimization_barrier(row)) for row in rows])  # [k, kC, N]
    return slope.reshape(kernel.shape).astype(kernel.dtype)


def _sums(a, b, precision=lax.Precision.DEFAULT):
    return jnp.matmul(a, b, precision=precision, preferred_element_type=jnp.float32)
