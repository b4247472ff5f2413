"""The integer networks: exact by construction, close to the float ones, and bounded."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clic_jax.coding import calibration, fixedpoint, xla_products
from clic_jax.model.checkerboard import TAPS
from clic_jax.model.clic import CLIC
from clic_jax.model.context import ContextModel
from clic_jax.model.schedule import code_slices, slices
from clic_jax.scales import LOG_MIN, LOG_STEP, SCALE_TABLE
from tests.micro import MICRO, MICRO_PAPER
from tests.model.test_clic import random_params

C = MICRO.model


@given(st.integers(-(2**29), 2**29), st.integers(-6, 20))
@settings(max_examples=300, deadline=None)
def test_shift_right_rounds_halves_up(x, amount):
    if amount < 0:
        x >>= 12
    expected = x << -amount if amount < 0 else (x + (1 << amount >> 1)) >> amount
    assert int(fixedpoint.shift_right(jnp.int32(x), jnp.int32(amount))) == expected


@pytest.mark.parametrize("kernel_side", [1, 3, 5])
def test_convolution_is_the_integer_sum(kernel_side):
    """Against an int64 loop in NumPy, at the largest activations that can occur."""
    rng = np.random.default_rng(kernel_side)
    shape = (5, 4) if kernel_side == 1 else (kernel_side, kernel_side, 5, 4)
    layer = fixedpoint.integer_layer(rng.normal(size=shape), rng.normal(size=4), 0.25, np.array([3, 3, 0, 8]))
    x = rng.choice([-9000, -8128, -64, -33, -1, 0, 31, 32, 8128, 9000], (2, 6, 7, 5))
    pad = kernel_side // 2
    wide = np.pad(np.clip(x, -8128, 8128), ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    def summed(kernel):
        kernel = np.int64(kernel).reshape(kernel_side, kernel_side, 5, 4)
        taps = [wide[:, i : i + 6, j : j + 7] @ kernel[i, j] for i in range(kernel_side) for j in range(kernel_side)]
        return sum(taps)

    def shifted(total, shift):
        right = np.where(shift > 0, (total + (1 << np.maximum(shift, 1) >> 1)) >> np.maximum(shift, 0), total)
        return right << np.maximum(-shift, 0)

    total = summed(layer.kernel) + np.int64(layer.bias) + shifted(summed(layer.fine), np.int64(layer.drop))
    assert np.abs(total).max() < 2**31
    expected = shifted(total, np.int64(layer.shift))
    np.testing.assert_array_equal(fixedpoint.convolve(layer, jnp.int32(x)), expected)


@pytest.mark.parametrize("kernel_side", [3, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_gpus_sum_the_same(kernel_side, masked):
    """Where there are no integer convolutions, products of the taps that are not dead: the same integers."""
    rng = np.random.default_rng(kernel_side)
    kernel = rng.integers(-127, 128, (kernel_side, kernel_side, 5, 4)).astype(np.int8)
    if masked:
        kernel[::2, ::2] = kernel[1::2, 1::2] = 0
    x = jnp.int8(rng.integers(-128, 128, (2, 6, 7, 5)))
    found, expected = xla_products._sum_of_taps(kernel, x), xla_products._convolution(kernel, x)
    assert found.dtype == expected.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


def test_gpus_get_no_integer_convolution(pair):
    """XLA refuses them there; lowered for CUDA, the networks are products alone. A CPU keeps its convolutions."""
    C, _, _, _, fixed, _ = pair
    z = jnp.zeros((1, 2, 2, C.hyper_layers[-1][0]), jnp.int32)

    def networks(z):
        decoded = code_slices(fixed, fixed.features(z), lambda k, colour, mean, raw: mean)
        return jnp.concatenate(decoded, -1)

    texts = {platform: jax.export.export(jax.jit(networks), platforms=[platform])(z) for platform in ("cuda", "cpu")}
    found = {platform: exported.mlir_module().count("stablehlo.convolution") for platform, exported in texts.items()}
    assert found["cuda"] == 0 < found["cpu"]


def test_no_input_can_overflow():
    """A layer with thousands of taps gives up precision instead of range: the bound holds for the worst input."""
    kernel = np.full((5, 5, 400, 2), 1.0)
    kernel[::2] += 0.37  # leaves a rest for the second kernel
    layer = fixedpoint.integer_layer(kernel, np.zeros(2), 1.0, 0)
    for rounded in (layer.kernel, layer.fine):
        assert np.any(rounded) and np.abs(np.int64(rounded)).sum((0, 1, 2)).max() * fixedpoint.LIMIT < 2**30
    assert layer.drop.min() > 0  # so that the sum of both stays below 2^31
    worst = jnp.full((1, 5, 5, 400), fixedpoint.LIMIT, jnp.int32)
    middle = int(fixedpoint.convolve(layer, worst)[0, 2, 2, 0])
    assert middle == pytest.approx(kernel[..., 0].sum() * fixedpoint.LIMIT, rel=0.002)


@pytest.mark.parametrize("shape", [(48, 8), (3, 3, 32, 8)])
def test_two_kernels_hold_14_bits(shape):
    """Taps of very different sizes in one channel: the error of a tap is below 2^-14 of the largest."""
    kernel = np.random.default_rng(0).standard_cauchy(shape)
    layer = fixedpoint.integer_layer(kernel, np.zeros(8), 1.0, 0)
    found = np.ldexp(layer.kernel + np.ldexp(np.float64(layer.fine), -layer.drop), -layer.shift)
    taps = tuple(range(kernel.ndim - 1))
    assert (np.abs(found - kernel).max(taps) < np.abs(kernel).max(taps) / 2**14).all()


def test_a_layer_of_zeros():
    layer = fixedpoint.integer_layer(np.zeros((3, 3, 2, 4)), np.arange(4.0), 1.0, 8)
    out = fixedpoint.convolve(layer, jnp.full((1, 4, 4, 2), fixedpoint.LIMIT, jnp.int32))
    np.testing.assert_array_equal(out, np.broadcast_to(np.arange(4) * 256, (1, 4, 4, 4)))


def test_activation_table():
    for name, function in (
        ("gelu", lambda x: jax.nn.gelu(x, approximate=False)),
        ("leaky_relu", lambda x: jnp.where(x > 0, x, 0.1 * x)),
    ):
        for exponent in (4, 8):
            x = np.arange(-fixedpoint.LIMIT, fixedpoint.LIMIT + 1) * 2.0**-exponent
            error = fixedpoint.activation_table(name, exponent) * 2.0**-exponent - np.asarray(function(x))
            assert np.abs(error).max() < 0.51 * 2.0**-exponent


def test_log_constants():
    np.testing.assert_allclose(np.diff(np.log(SCALE_TABLE)), LOG_STEP, rtol=1e-9)
    assert LOG_MIN == pytest.approx(np.log(SCALE_TABLE[0]), rel=1e-12)


@pytest.mark.parametrize("tables", [0, 2, -3])
def test_scale_index_takes_the_nearest(tables):
    """With a gain of so many steps of the table, nearest to the scale times that gain; beyond both ends, the last."""
    scales = np.exp(np.linspace(np.log(0.05), np.log(400), 500))
    raw = np.round((np.log(scales) - LOG_MIN) / LOG_STEP * 256).astype(np.int32)
    found = np.asarray(fixedpoint.scale_index(jnp.asarray(raw), jnp.int32(256 * tables)))
    wanted = np.log(scales) + tables * LOG_STEP
    nearest = np.abs(np.log(SCALE_TABLE)[None] - wanted[:, None]).argmin(1)
    assert (np.abs(found - nearest) <= (np.abs(raw % 256 - 128) < 2)).all()
    assert {0, 63} < set(found.tolist())


@pytest.fixture(scope="module", params=[MICRO.model, MICRO_PAPER.model], ids=["tiny", "paper"])
def pair(request):
    """(config, float parameters, z, y_hat, integer networks, exponents) of a random micro model; one has medians."""
    C = request.param
    params = random_params(C)
    rng = np.random.default_rng(1)
    z = np.round(rng.normal(size=(2, 2, 3, C.hyper_layers[-1][0])) * 3).astype(np.float32)
    params["prior"]["median"] *= 0 if C.shared_hyper_decoder else 10
    y_hat = (np.round(rng.normal(size=(2, 8, 12, C.latent_channels)) * 4 * 64) / 64).astype(np.float32)
    exponents = calibration.calibrate(C, params, [(y_hat, z + params["prior"]["median"])])
    return C, params, z, y_hat, fixedpoint.FixedContext(C, params, exponents), exponents


def step(config, exponents):
    """[2C] value of one integer of the features."""
    names = ("h_s",) if config.shared_hyper_decoder else ("h_mean_s", "h_scale_s")
    return np.repeat([2.0 ** -exponents[name][-1] for name in names], 2 * config.hyper_channels // len(names))


def test_linear_scales_take_the_nearest_table():
    """The table of a scale in 1/1024 is the one whose logarithm is nearest; beyond both ends, the last."""
    raw = np.int32([-(2**20), 0, 112, 113, 1024, 2**17, 2**18, 2**30, *np.geomspace(113, 2**18, 999)])
    found = np.searchsorted(fixedpoint._scale_limits(), raw, side="right")
    nearest = np.abs(np.log(SCALE_TABLE) - np.log(np.maximum(raw, 1) / 1024)[:, None]).argmin(1)
    np.testing.assert_array_equal(found, nearest)


def test_close_to_float(pair):
    """Features, means and scales of every slice and colour, within a few integers of the float networks'."""
    C, params, z, y_hat, fixed, exponents = pair
    features, _ = CLIC(C).apply({"params": params}, z + params["prior"]["median"], method=CLIC.hyper_features)
    ours = fixed.features(jnp.int32(z))
    np.testing.assert_allclose(ours * step(C, exponents), features, atol=0.02 * np.abs(features).max())

    model, decoded = ContextModel(C), slices(y_hat, C.groups)
    integers = [jnp.int32(v * 64) for v in decoded]
    for k in range(len(C.groups)):

        def run(m, k=k):
            support = m.support(k, decoded[:k], features)
            half = decoded[k][:, :, ::2]
            return m.distribution(k, m.neighbours(k, half), support[:, :, ::2])

        mean, raw = model.apply({"params": params["context"]}, method=run)
        near = fixed.neighbours(k, integers[k][:, :, ::2])
        mean_i, raw_i = fixed.distribution(k, near, fixed.support(k, integers[:k], ours)[:, :, ::2])
        np.testing.assert_allclose(mean_i / 64, mean, atol=0.05 * max(np.abs(mean).max(), 0.5))
        if C.log_scale:
            log_scale = raw_i / 256 * LOG_STEP + LOG_MIN
            np.testing.assert_allclose(log_scale, raw, atol=0.05 * max(np.abs(raw).max(), 0.5))
        else:
            scale = SCALE_TABLE[np.asarray(raw_i) >> 8]
            np.testing.assert_allclose(scale, np.maximum(raw, SCALE_TABLE[0]), rtol=0.07, atol=0.05 * np.abs(raw).max())


def test_deterministic_under_batching_and_jit(pair):
    """Batch of two, one by one, jitted and not, at other widths: the same integers."""
    C, _, z, y_hat, fixed, _ = pair
    value = jnp.int32(y_hat[..., : C.groups[0]] * 64)
    z = jnp.int32(z)
    whole = fixed.support(1, [value], fixed.features(z))
    jitted = jax.jit(lambda v, z: fixed.support(1, [v], fixed.features(z)))(value, z)
    single = jnp.concatenate([fixed.support(1, [value[i : i + 1]], fixed.features(z[i : i + 1])) for i in (0, 1)])
    np.testing.assert_array_equal(whole, jitted)
    np.testing.assert_array_equal(whole, single)


def test_dead_taps_stay_dead(pair):
    """The checkerboard's unused taps are zero in the integer kernels, too."""
    for stack in pair[4].spatial:
        for layer in stack.layers:
            assert not np.asarray(layer.kernel)[~TAPS].any() and not np.asarray(layer.fine)[~TAPS].any()


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("block", [1, 300, 2**22])
def test_exact_sum_is_exact(side, block, monkeypatch):
    """At the largest activations and kernels there are, against int64, however many rows are taken at once."""
    monkeypatch.setattr(fixedpoint, "BLOCK", block)
    rng = np.random.default_rng(side)
    shape = (7, 4) if side == 1 else (side, side, 7, 4)
    kernel = rng.choice(np.int8([-127, 0, 127]), shape)
    x = rng.choice(np.int32([-fixedpoint.LIMIT, fixedpoint.LIMIT]), (2, 6, 5, 7))
    wide = np.pad(np.int64(x), ((0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0)))
    taps = np.int64(kernel).reshape(side, side, 7, 4)
    expected = sum(wide[:, i : i + 6, j : j + 5] @ taps[i, j] for i in range(side) for j in range(side))
    np.testing.assert_array_equal(fixedpoint.exact_sum(kernel, x), expected)


@pytest.mark.parametrize("large, beyond", [(16, False), (17, True)])
def test_exact_sum_beyond_float32(large, beyond):
    """Odd sums about 2^24, from where on float32 has even ones alone; channels of small values hardly count."""
    kernel, x = np.full((64, 2), 127, np.int8), np.ones((1, 2, 3, 64), np.int32)
    x[..., :large] = 8127
    x[0, 0, 0, 0] -= 1
    expected = np.int64(x) @ np.int64(kernel)
    assert (expected.max() > 2**24) == beyond and expected[0, 0, 0, 0] % 2
    assert beyond == np.any(np.float32(expected) != expected)
    np.testing.assert_array_equal(fixedpoint.exact_sum(kernel, x), expected)
