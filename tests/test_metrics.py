"""Distortion measures against the definition, pytorch-msssim, and each other across NumPy and JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax import metrics, runtime
from clic_jax.errors import UserError

ms_ssim = jax.jit(metrics.ms_ssim)
gradient = jax.jit(jax.grad(lambda x_hat, x: metrics.ms_ssim(x, x_hat)))


def texture(height, width):
    """Waves and grain in integer arithmetic, which is the same everywhere."""
    i, j, c = np.indices((height, width, 3))
    wave = np.abs((2 * i + 3 * j + 17 * c) % 122 - 61) + np.abs((5 * i - j) % 38 - 19)
    grain = (i * i * 7 + j * j * 3 + i * j * 5 + c * 11) % 41
    return (60 + wave + grain + 20 * c).astype(np.uint8)


def sky(height, width):
    """Bright and almost flat: where variances are small differences of large numbers."""
    i, j, c = np.indices((height, width, 3))
    return (190 + 20 * c + i * 20 // height + j * 5 // width).astype(np.uint8)


def coarse(x, step):
    """x quantised to steps of that size."""
    return np.minimum(x.astype(int) // step * step + step // 2, 255).astype(np.uint8)


# MS-SSIM by pytorch-msssim 1.0.0 with torch 2.13.0: ms_ssim(x, x_hat, data_range=255, size_average=False) in float64
GOLDEN = {
    "even": (texture(192, 256), coarse(texture(192, 256), 32), 0.9704231657293403),
    "odd": (texture(161, 203), coarse(texture(161, 203), 64), 0.866110201868764),
    "odd at later scales": (texture(170, 166), coarse(texture(170, 166), 8), 0.9981059317101505),
    "sky": (sky(200, 181), coarse(sky(200, 181), 4), 0.9893627274585356),
    "shifted": (texture(176, 180), np.roll(texture(176, 180), 1, axis=1), 0.9068173481335728),
    "negative": (texture(176, 176), 255 - texture(176, 176), 0.0),
}


@pytest.fixture(params=GOLDEN)
def golden(request):
    return GOLDEN[request.param]


def test_ms_ssim_numpy(golden):
    x, x_hat, expected = golden
    assert metrics.ms_ssim(x, x_hat) == pytest.approx(expected, abs=1e-6)
    assert metrics.ms_ssim(x / 255, x_hat / 255) == pytest.approx(expected, abs=1e-6)


def test_ms_ssim_jax(golden):
    x, x_hat, expected = golden
    assert ms_ssim(jnp.float32(x / 255), jnp.float32(x_hat / 255)) == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_jax_of_bytes_and_doubles():
    x, x_hat, expected = GOLDEN["odd"]
    assert ms_ssim(jnp.asarray(x), jnp.asarray(x_hat)) == pytest.approx(expected, abs=1e-4)
    with runtime.doubles():
        assert ms_ssim(jnp.asarray(x / 255), jnp.asarray(x_hat / 255)) == pytest.approx(expected, abs=1e-6)


def test_ms_ssim_is_per_image():
    x = np.stack([texture(161, 176), texture(161, 176)])
    x_hat = np.stack([coarse(x[0], 16), coarse(x[1], 64)])
    both = metrics.ms_ssim(x, x_hat)
    assert both.shape == (2,)
    np.testing.assert_allclose(both, [metrics.ms_ssim(*pair) for pair in zip(x, x_hat)], rtol=1e-12)
    assert both[0] > both[1]


def test_ms_ssim_of_equal_images_is_one():
    x = texture(161, 161)
    assert metrics.ms_ssim(x, x) == pytest.approx(1)


def test_ms_ssim_gradient():
    """JAX's float32 gradient along a direction is the float64 difference quotient."""
    x = texture(161, 178) / 255
    x_hat = coarse(texture(161, 178), 32) / 255
    direction = np.cos(np.arange(x.size)).reshape(x.shape)
    step = 1e-5
    quotient = (metrics.ms_ssim(x, x_hat + step * direction) - metrics.ms_ssim(x, x_hat - step * direction)) / (
        2 * step
    )
    assert np.vdot(gradient(jnp.float32(x_hat), jnp.float32(x)), direction) == pytest.approx(quotient, rel=1e-3)


@pytest.mark.parametrize("name", ["equal", "negative", "black", "nothing"])
def test_ms_ssim_gradient_is_finite(name):
    x = jnp.float32(texture(161, 178) / 255)
    x, x_hat = {"equal": (x, x), "negative": (x, 1 - x), "black": (x, 0 * x), "nothing": (0 * x, 0 * x)}[name]
    assert jnp.isfinite(gradient(x_hat, x)).all()


def test_ms_ssim_refuses_small_images():
    x = np.zeros((160, 200, 3), np.uint8)
    with pytest.raises(UserError, match="at least 161 pixels; this image is 200x160"):
        metrics.ms_ssim(x, x)


def test_mse_and_psnr_by_hand():
    x = np.zeros((2, 4, 5, 3), np.uint8)
    x_hat = x.copy()
    x_hat[0, 1, 2] = (3, 4, 5)
    x_hat[1] = 255
    np.testing.assert_allclose(metrics.mse(x, x_hat), [50 / 60, 255**2])
    np.testing.assert_allclose(metrics.psnr(x, x_hat), [10 * np.log10(255**2 * 60 / 50), 0], atol=1e-12)


@pytest.mark.parametrize("module", [np, jnp])
def test_bytes_and_floats_agree(module):
    """The peak follows the type; a byte image minus another does not wrap around."""
    x, x_hat = texture(24, 30), coarse(texture(24, 30), 32)
    of_bytes = metrics.psnr(module.asarray(x), module.asarray(x_hat))
    of_floats = metrics.psnr(module.asarray(x / 255, np.float32), module.asarray(x_hat / 255, np.float32))
    expected = 10 * np.log10(255**2 / np.square(x.astype(float) - x_hat.astype(float)).mean())
    assert of_bytes == pytest.approx(expected, abs=1e-4)
    assert of_floats == pytest.approx(expected, abs=1e-4)


def test_types_of_the_results():
    x = texture(20, 20)
    assert metrics.mse(x, x).dtype == np.float64
    assert metrics.mse(jnp.bfloat16(x / 255), jnp.bfloat16(x / 255)).dtype == jnp.float32
    assert metrics.psnr(x, x) == np.inf and metrics.psnr(jnp.asarray(x), jnp.asarray(x)) == np.inf


@pytest.mark.parametrize(
    "x, x_hat, words",
    [
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32), "both be uint8 or both floating"),
        (np.zeros((4, 4, 3), np.int32), np.zeros((4, 4, 3), np.int32), "int32"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8), r"\(4, 4, 3\) and \(4, 5, 3\)"),
        (np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8), r"\[\.\.\., H, W, 3\]"),
    ],
)
@pytest.mark.parametrize("metric", [metrics.mse, metrics.psnr, metrics.ms_ssim])
def test_pairs_that_cannot_be_compared(metric, x, x_hat, words):
    with pytest.raises(ValueError, match=words):
        metric(x, x_hat)


def test_ms_ssim_db():
    np.testing.assert_allclose(metrics.ms_ssim_db(np.array([0.9, 0.99])), [10, 20])
    assert metrics.ms_ssim_db(jnp.float32(0.9)) == pytest.approx(10, abs=1e-4)
    assert metrics.ms_ssim_db(1.0) == np.inf


def test_squared_error_is_the_mean_times_the_samples():
    x, x_hat = np.random.default_rng(0).integers(0, 256, (2, 130, 33, 3), np.uint8)
    assert metrics.squared_error(x, x_hat) == pytest.approx(metrics.mse(x, x_hat) * x.size, rel=1e-12)
