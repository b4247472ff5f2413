"""Detail channels: what they are in the graph, how trained weights grow them, and that a model with them codes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.coding import codec, measured
from clic_jax.config import ConfigError
from clic_jax.model.clic import CLIC, init_params
from clic_jax.training import growth, pca_start
from experiments.train import __main__ as train
from tests.coding.test_codec import decode, encode, picture
from tests.micro import MICRO
from tests.model.test_clic import random_params

OLD = MICRO.model
NEW = dataclasses.replace(OLD, detail_channels=5, groups=(*OLD.groups, 5))
LMBDA = np.float32(OLD.lmbdas[-1:])


def patches(x):
    """[B, H, W, 3] -> [B, H/16, W/16, 768]: a patch's rows, columns, channels."""
    b, h, w, _ = x.shape
    return np.array(
        [
            [[x[n, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16].ravel() for j in range(w // 16)] for i in range(h // 16)]
            for n in range(b)
        ]
    )


def pictures(n, size):
    return np.stack([picture(size, size, seed) for seed in range(n)])


@pytest.fixture(scope="module")
def params():
    """Of a model with details that decodes tolerably."""
    start = pca_start.transform_codec(random_params(OLD), OLD, pictures(8, 128))
    return start, growth.grown(OLD, start, NEW)


def test_they_are_linear_in_patches_and_added_to_the_picture(params):
    """g_a's last channels are a product with each 16x16 pixels; g_s adds a product of them to its output."""
    rng = np.random.default_rng(0)
    without, grown = params
    x = rng.uniform(size=(2, 64, 128, 3)).astype(np.float32)
    y, first = (
        CLIC(c).apply({"params": p}, x, method=lambda m, x: m.g_a(x)) for c, p in ((NEW, grown), (OLD, without))
    )
    detail = grown["g_a"]["detail"]
    np.testing.assert_allclose(y[..., :24], first, atol=1e-5)
    np.testing.assert_allclose(y[..., 24:], patches(x) @ detail["kernel"] + detail["bias"], atol=1e-4)

    shown = jax.tree.map(np.array, grown)
    shown["g_s"]["detail"]["kernel"] = rng.normal(size=(5, 768)).astype(np.float32)
    feature = rng.normal(size=(2, 4, 8, OLD.feature_channels)).astype(np.float32)
    x_hat, plain = (CLIC(NEW).apply({"params": p}, y, feature, method=CLIC.synthesise) for p in (shown, grown))
    basis = shown["g_s"]["detail"]["kernel"].reshape(5, 3, 256).swapaxes(1, 2).reshape(5, 768)  # channels first
    np.testing.assert_allclose(patches(np.asarray(x_hat - plain)), np.asarray(y[..., 24:]) @ basis, atol=2e-3)


def test_growing_shows_the_same_picture(params):
    """New channels cost bits and show nothing; y, z and their bits, and the picture, are as before."""
    without, grown = params
    x = np.float32(pictures(2, 64) / 255)
    before, after = (CLIC(c).apply({"params": p}, x, np.repeat(LMBDA, 2)) for c, p in ((OLD, without), (NEW, grown)))
    np.testing.assert_allclose(after.x_hat, before.x_hat, atol=2e-5)
    np.testing.assert_allclose(after.bits_z, before.bits_z, rtol=1e-4)
    assert (after.bits_y > before.bits_y).all()
    assert jax.tree.map(jnp.shape, grown) == jax.tree.map(jnp.shape, init_params(NEW))


def test_what_cannot_grow():
    """Groups that are cut otherwise; channels on top of channels, whose order would change."""
    with pytest.raises(ConfigError, match="model.groups"):
        growth.check_grows(OLD, dataclasses.replace(NEW, groups=(8, 21)))
    more = dataclasses.replace(NEW, detail_channels=9, groups=(*NEW.groups, 4))
    with pytest.raises(ConfigError, match="model.detail_channels = 5 cannot become 9"):
        growth.check_grows(NEW, more)
    with pytest.raises(ConfigError, match="the last of model.widths, and model.detail_channels"):
        dataclasses.replace(OLD, detail_channels=5)


def test_they_start_as_what_is_left(params):
    """Without rounding, the error becomes that of the strongest five linear corrections, by NumPy's least squares."""
    without, grown = params
    crops = pictures(6, 128)
    started = pca_start.with_details(grown, NEW, crops)

    def error(config, p, x):
        x = np.float32(x[None] / 255)
        tensors = CLIC(config).apply({"params": p}, x, LMBDA).tensors
        inverse = CLIC(config).apply({"params": p}, LMBDA, method=CLIC.gains)[1]
        y = tensors["y"]
        return x - CLIC(config).apply({"params": p}, y, tensors["feature"], inverse, method=CLIC.synthesise)

    before, after = (
        np.concatenate([patches(np.asarray(error(c, p, x))).reshape(-1, 768) for x in crops])
        for c, p in ((OLD, without), (NEW, started))
    )
    seen = np.concatenate([patches(x[None] / 255.0 - 0.5).reshape(-1, 768) for x in crops])
    seen = np.concatenate([seen, np.ones((len(seen), 1))], 1)
    slight = np.eye(769) * np.sqrt(1e-6 / 769 * np.square(seen).sum())  # as further rows: a ridge
    fit = np.linalg.lstsq(np.concatenate([seen, slight]), np.concatenate([before, np.zeros((769, 768))]), rcond=None)
    fitted = seen @ fit[0]
    axes = np.linalg.svd(fitted, full_matrices=False)[2][:5]
    best = np.square(before - fitted @ axes.T @ axes).mean()
    assert best < 0.8 * np.square(before).mean()
    assert np.square(after).mean() == pytest.approx(best, rel=0.02)
    # scales: the deviation of what is coded, in steps at the lmbda whose gain is 1
    y = CLIC(NEW).apply({"params": started}, np.float32(crops / 255), method=lambda m, x: m.g_a(x))[..., 24:]
    bias = started["context"]["parameters_2"]["conv1"]["bias"]
    np.testing.assert_allclose(np.exp(bias[5:]), np.maximum(np.sqrt(np.square(y).mean((0, 1, 2))), 0.05), rtol=0.05)
    assert (bias[:5] == 0).all()


def test_the_command_starts_them(params, monkeypatch):
    """From scratch and from weights without them; weights that have them keep theirs."""
    config, asked = dataclasses.replace(MICRO, model=NEW), []

    def photos(n, size):
        asked.append((n, size))
        return pictures(min(n, 8), size)

    drawn = train.first_params(config, photos)
    assert asked[0] == (train.PCA_CROPS, train.PCA_CROP) and asked[1][1] == MICRO.train.crop
    assert 0 <= asked[1][0] * MICRO.train.crop**2 - train.DETAIL_PIXELS < MICRO.train.crop**2
    assert np.abs(drawn["g_s"]["detail"]["kernel"]).max() > 0
    given = {"old": (MICRO, params[0], None), "new": (config, drawn, None)}
    monkeypatch.setattr(train.published, "load_published", given.get)
    assert np.abs(train.first_params(config, photos, "old")["g_s"]["detail"]["kernel"]).max() > 0
    jax.tree.map(np.testing.assert_array_equal, train.first_params(config, photos, "new"), drawn)


def test_a_model_with_details_codes(params):
    """What is decoded is what the encoder showed; at the highest quality it is nearer to the picture than without."""
    crops = pictures(8, 128)
    found = {}
    for name, model, p in (("without", OLD, params[0]), ("with", NEW, pca_start.with_details(params[1], NEW, crops))):
        p["prior"]["median"][:] = 0
        data = measured.measure(model, p, crops)
        coder = codec.Codec(dataclasses.replace(MICRO, model=model), jax.tree.map(jnp.asarray, p), "00000000", data)
        x = picture(150, 260, 3)
        coded, shown = encode(coder, x, 10000)
        np.testing.assert_array_equal(decode(coder, coded, x.shape, 10000), shown)
        found[name] = np.square(np.float64(shown) - x).mean(), len(coded.stream)
    assert found["with"][0] < found["without"][0] and found["with"][1] > found["without"][1]
