"""The entropy model's networks in integers: what decides a symbol or a table is the same on every machine.

Float networks round differently with the batch, the fusion, the device; one scale that lands in the next table garbles
a file. Here a trained network becomes pairs of int8 kernels, 14-bit activations and int32 sums, a pure function of its
float parameters and of one exponent for each layer's output (measured when a model is published: `calibration`).
Integer sums have no order, and int32 cannot overflow: `integer_layer` bounds every sum over all possible inputs.

    value = integer * 2^-exponent      activations and features: |integer| <= 8128, the exponent of their layer
    y_hat and mean: in 1/64            log scale: in 1/256 of a step of the scale table
    scale of a model that predicts it as it is (`log_scale` False, the paper's): in 1/1024, then the nearest table

An activation enters a convolution as 64 * high + low, two int8 maps, and a kernel as one int8 kernel and what that left
over, rounded to a second: int8 products with int32 sums are what CPUs and accelerators do quickly. Without the second
kernel, files of smooth pictures were up to 3 % longer.
"""

import functools
from typing import NamedTuple

import numpy as np

from clic_jax.coding.hyper import ONE, decoders, with_medians
from clic_jax.coding.tables import half_normal
from clic_jax.config import ModelConfig
from clic_jax.model.arrange import depth_to_space
from clic_jax.model.checkerboard import TAPS, merge, split
from clic_jax.model.schedule import seen_slices
from clic_jax.scales import LOG_MIN, LOG_STEP, SCALE_TABLE

# Version of all that is computed here and in `tables`: what an integer comes out as, on any input. A change of it, even
# by one bit, is a new number, under which models are published anew; those of other numbers are refused by name
# (docs/format.md). tests/golden holds files that must keep decoding.
ARITHMETIC = 1
WITH_MEDIANS = 100 + ARITHMETIC  # the same, of models whose z has medians, which 0.2.0 would leave out without a word
Y_BITS = 6  # y_hat and mean are multiples of 2^-6: an eighth would cost 0.05 to 0.15 dB
SEEN_BITS = 3  # of which the context networks see these, for the range that large coefficients need
INDEX_BITS = 8  # the log scale's fraction of a table step
SCALE_BITS = 10  # scales that are no logarithms are multiples of 2^-10: the first two tables are 14 of them apart
SPLIT = 6  # an activation is 64 * high + low, both int8
LIMIT = 127 << SPLIT  # the largest activation
BLOCK = 2**22  # inputs of a product that are laid out at once, whatever the size of the picture
SUM_LIMIT = 2**30  # one bit of int32 is left for the rounding of `shift_right`
DROP_MAX = 20  # of a rest so small that any scale would do


class Layer(NamedTuple):
    """One integer convolution. Output unit: 2^-unit, after the shift."""

    kernel: np.ndarray  # int8 [k, k, in, out] or [in, out]
    bias: np.ndarray  # int32 [out], in units of the sum
    shift: np.ndarray  # int32 [out], right (left where negative) shift from the sum to the output unit
    fine: np.ndarray  # int8, as kernel: what rounding left of it
    drop: np.ndarray  # int32 [out], right shift from fine's sum to kernel's


def integer_layer(kernel, bias, step_in, unit) -> Layer:
    """Rounds a float layer.

    Args:
      kernel: [k, k, in, out] or [in, out] float.
      bias: [out] float.
      step_in: [in] or scalar, value of one integer of the input (powers of two).
      unit: [out] or scalar int; the output's step is 2^-unit.
    Each output channel of both kernels gets the largest power-of-two scale at which its taps fit int8 and no input can
    overflow its sum.
    """
    kernel, bias = np.asarray(kernel, np.float64), np.asarray(bias, np.float64)
    kernel = kernel * np.broadcast_to(step_in, kernel.shape[-2])[:, None]
    k, rounded, rounded_bias = _scaled(kernel, bias)
    k_fine, fine, _ = _scaled(kernel - np.ldexp(rounded, -k), np.zeros_like(bias), k + DROP_MAX)
    return Layer(np.int8(rounded), np.int32(rounded_bias), np.int32(k - unit), np.int8(fine), np.int32(k_fine - k))


def _scaled(kernel, bias, most=np.inf):
    """(k, kernel, bias) [out], [..., out], [out]: both in units of 2^-k, rounded, k at most `most`."""
    taps = tuple(range(kernel.ndim - 1))
    k = -np.frexp(np.maximum(np.abs(kernel).max(taps), 2.0**-24) / 127)[1]  # 2^k * largest <= 127, exactly
    k = np.int32(np.minimum(k, most))
    while True:
        rounded, rounded_bias = np.round(np.ldexp(kernel, k)), np.round(np.ldexp(bias, k))
        over = np.abs(rounded).sum(taps) * LIMIT + np.abs(rounded_bias) >= SUM_LIMIT
        if not over.any():
            return k, rounded, rounded_bias
        k = k - over


def convolve(layer: Layer, x):
    """Integer convolution, symmetric zero padding, in the output unit: int32 [B, h, w, in] -> int32 [B, h, w, out].

    Inputs beyond +-LIMIT saturate.
    """
    xp = x.__array_namespace__()
    x = xp.clip(x, -LIMIT, LIMIT)
    both = np.concatenate([layer.kernel, layer.fine], -1)  # one product, as each costs compilation and memory traffic

    def output(total):
        total, fine = xp.split(total, 2, -1)
        return shift_right(total + layer.bias + shift_right(fine, layer.drop), layer.shift)

    if xp is np:
        return exact_sum(both, x, output)
    from clic_jax.coding import xla_products

    return output(xla_products.split_sum(both, x))


def exact_sum(kernel, x, then=lambda total: total):
    """`then` of the int32 convolution of x in +-LIMIT with an int8 kernel, by products of floats, exact in any order.

    BLAS has no integer products, and int8 kernels of some libraries saturate on processors without VNNI. Integers are
    exact in float64 below 2^53; in float32, which is twice as quick, below 2^24, as sums mostly are.
    """
    (b, h, w, _), out = x.shape, kernel.shape[-1]
    if kernel.ndim == 2:
        kernel = kernel[None, None]
    k, taps = len(kernel), alive_taps(kernel)
    wide = np.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2, (0, 0))) if k > 1 else x
    matrix = np.concatenate([kernel[tap] for tap in taps]).astype(np.float32)
    each = np.maximum(x.max((0, 1, 2), initial=0), -x.min((0, 1, 2), initial=0)).astype(np.float32)
    largest = (np.tile(each, len(taps)) @ np.abs(matrix)).max()  # which float32 has to 1 %, of 100,000 rows
    exact = np.float32 if largest < 0.99 * 2**24 else np.float64
    matrix, parts = matrix.astype(exact), []
    rows = max(1, BLOCK // (b * w * len(matrix)))
    for top in range(0, h, rows):
        n = min(rows, h - top)
        seen = np.concatenate([wide[:, top + i : top + i + n, j : j + w] for i, j in taps], -1, dtype=exact)
        total = seen.reshape(b * n * w, -1) @ matrix
        parts.append(then(total.astype(np.int32).reshape(b, n, w, out)))
    return np.concatenate(parts, 1)


def alive_taps(kernel) -> list[tuple[int, int]]:
    """Those taps (row, column) of a kernel [k, k, in, out] that are not all zeros, or the first."""
    k = len(kernel)
    return [(i, j) for i in range(k) for j in range(k) if np.any(kernel[i, j])] or [(0, 0)]


def shift_right(x, amount):
    """round(x / 2^amount), halves up, for int32; a negative amount shifts left."""
    right = np.maximum(np.int32(amount), 0)
    half = np.where(right > 0, 1 << np.maximum(right - 1, 0), 0).astype(np.int32)
    return ((x + half) >> right) << np.maximum(-np.int32(amount), 0)


@functools.cache
def activation_table(name: str, exponent: int) -> np.ndarray:
    """int16 [2 * LIMIT + 1]: the activation of (i - LIMIT) * 2^-exponent, in the same unit, halves to even."""
    x = np.ldexp(np.arange(-float(LIMIT), LIMIT + 1), -exponent)
    if name == "gelu":
        value = x * (0.5 + np.sign(x) * half_normal(np.abs(x)))  # free of the platform's erf
    else:
        value = np.where(x >= 0, x, 0.1 * x)
    return np.int16(np.round(np.ldexp(value, exponent)))


class Stack(NamedTuple):
    """A convolution stack in integers."""

    layers: tuple[Layer, ...]
    tables: tuple[np.ndarray, ...]  # the activation between them


def run(stack: Stack, x, subpixel=()):
    """Runs a stack: the last layer's int32 output. `subpixel`: indices of layers followed by depth to space."""
    for i, layer in enumerate(stack.layers):
        x = convolve(layer, x)
        if i in subpixel:
            x = depth_to_space(x)
        if i < len(stack.tables):
            xp = x.__array_namespace__()
            x = xp.asarray(stack.tables[i])[xp.clip(x, -LIMIT, LIMIT) + LIMIT].astype(xp.int32)
    return x


def integer_stack(tree, act: str, step_in, exponents, last_unit, *, scale=1.0, checkerboard=False) -> Stack:
    """A stack of our `ConvStack` or `HyperSynthesis` parameters in integers.

    Args:
      tree: {"conv0": {"kernel", "bias"} or {"expand": ...}, ...}.
      exponents: of each hidden activation.
      last_unit: unit exponent(s) of the last layer's output; `scale` multiplies that layer (per output channel).
    """
    layers, tables = [], []
    count = len(tree)
    for i in range(count):
        leaf = tree[f"conv{i}"]
        leaf = leaf.get("expand", leaf)
        kernel, bias = np.asarray(leaf["kernel"], np.float64), np.asarray(leaf["bias"], np.float64)
        if checkerboard:
            kernel = kernel * TAPS[..., None, None]
        last = i == count - 1
        if last:
            kernel, bias = kernel * scale, bias * scale
        unit = last_unit if last else int(exponents[i])
        layers.append(integer_layer(kernel, bias, step_in, unit))
        if not last:
            tables.append(activation_table(act, int(exponents[i])))
            step_in = 2.0 ** -int(exponents[i])
    return Stack(tuple(layers), tuple(tables))


class FixedContext:
    """The hyper decoder's mean and scale features and the context model in integers, for `schedule.code_slices`.

    Built from float parameters and `exponents` (from `calibration.calibrate`). Has the three methods of `ContextModel`.
    All arrays are int32: y_hat in 1/64, features in their exponent; `distribution` gives (mean in 1/64, log scale in
    1/256 table steps).
    """

    def __init__(self, config: ModelConfig, params, exponents):
        c, act, e = config, config.activation, exponents
        self.config = config
        eighth = 2.0**-SEEN_BITS
        hyper, step_z = decoders(c, params), 1.0
        if np.any(median := np.asarray(params["prior"]["median"], np.float64)):
            hyper = {name: with_medians(tree, median) for name, tree in hyper.items()}
            step_z = np.append(np.ones(len(median)), 1 / ONE)
        self.hyper = [integer_stack(t, act, step_z, e[name][:-1], int(e[name][-1])) for name, t in hyper.items()]
        width = 2 * c.hyper_channels // len(hyper)
        hyper_steps = [np.full(width, 2.0 ** -int(e[name][-1])) for name in hyper]
        tree = params["context"]
        self.channel, self.spatial, self.parameters = [], [], []
        for k, g in enumerate(c.groups):
            near = e[f"spatial_{k}"]
            self.spatial.append(
                integer_stack(tree[f"spatial_{k}"], act, eighth, near[:-1], int(near[-1]), checkerboard=True)
            )
            steps = [np.full(int(c.spatial_ratios[-1] * g), 2.0 ** -int(near[-1]))]
            if k:
                far = e[f"channel_{k - 1}"]
                self.channel.append(integer_stack(tree[f"channel_{k - 1}"], act, eighth, far[:-1], int(far[-1])))
                steps.append(np.full(c.channel_layers[-1][0] or 2 * g, 2.0 ** -int(far[-1])))
            steps += hyper_steps
            unit = np.repeat([Y_BITS, INDEX_BITS if c.log_scale else SCALE_BITS], g)
            scale = np.repeat([1.0, 1 / LOG_STEP if c.log_scale else 1.0], g)
            self.parameters.append(
                integer_stack(
                    tree[f"parameters_{k}"], act, np.concatenate(steps), e[f"parameters_{k}"], unit, scale=scale
                )
            )

    @property
    def subpixel(self) -> tuple[int, ...]:
        """The layers of the hyper decoders that end in depth to space."""
        return tuple(i for i, (_, stride) in enumerate(self.config.hyper_decoder_layers) if stride == 2)

    def features(self, z):
        """z [B, h/4, w/4, N], the integers about the medians of its prior -> [B, h, w, 2C]."""
        xp = z.__array_namespace__()
        if self.hyper[0].layers[0].kernel.shape[-2] > z.shape[-1]:
            z = xp.concatenate([z, xp.full((*z.shape[:-1], 1), ONE, z.dtype)], -1)
        return xp.concatenate([run(stack, z, self.subpixel) for stack in self.hyper], -1)

    def support(self, k: int, decoded: list, features):
        """As `ContextModel.support`."""
        if k == 0:
            return features
        xp = features.__array_namespace__()
        seen = _seen(xp.concatenate(seen_slices(self.config, decoded), -1))
        return xp.concatenate([run(self.channel[k - 1], seen), features], -1)

    def neighbours(self, k: int, anchors):
        """As `ContextModel.neighbours`."""
        return split(run(self.spatial[k], _seen(merge(anchors, 0 * anchors))))[1]

    def distribution(self, k: int, neighbours, support):
        """As `ContextModel.distribution`: (mean in 1/64, log scale in 1/256 table steps from SCALE_MIN = 0)."""
        xp = support.__array_namespace__()
        if neighbours is None:
            width = int(self.config.spatial_ratios[-1] * self.config.groups[k])
            neighbours = xp.zeros((*support.shape[:-1], width), xp.int32)
        out = run(self.parameters[k], xp.concatenate([neighbours, support], -1))
        mean, scale = xp.split(out, 2, axis=-1)
        if self.config.log_scale:
            return mean, scale - round(LOG_MIN / LOG_STEP * 2**INDEX_BITS)
        return mean, xp.searchsorted(_scale_limits(), scale, side="right").astype(xp.int32) << INDEX_BITS


def _seen(y_hat):
    """y_hat at the resolution of the context networks' inputs."""
    return shift_right(y_hat, Y_BITS - SEEN_BITS)


def _scale_limits() -> np.ndarray:
    """int32 [63]: where the nearest scale of the table changes, the geometric means of neighbours, in 1/1024."""
    return np.int32(np.ceil(np.sqrt(SCALE_TABLE[:-1] * SCALE_TABLE[1:]) * 2**SCALE_BITS))


def scale_index(raw, gain):
    """Index of the scale table, int32 0..63, from `distribution`'s log scale and a channel's gain in the same unit."""
    index = (raw + gain + (1 << INDEX_BITS - 1)) >> INDEX_BITS
    return index.__array_namespace__().clip(index, 0, len(SCALE_TABLE) - 1)
