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
MORE = dataclasses.replace(NEW, detail_channels=8, groups=(*NEW.groups, 3))
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
    """Groups that are cut otherwise; fewer channels."""
    for old, groups in ((OLD, (8, 21)), (NEW, (*OLD.groups, 8))):
        with pytest.raises(ConfigError, match="model.groups"):
            growth.check_grows(old, dataclasses.replace(MORE, detail_channels=sum(groups) - 24, groups=groups))
    with pytest.raises(ConfigError, match="model.detail_channels = 8 cannot become 5"):
        growth.check_grows(MORE, NEW)
    with pytest.raises(ConfigError, match="the last of model.widths, and model.detail_channels"):
        dataclasses.replace(OLD, detail_channels=5)


def test_they_start_as_what_is_left(params):
    """Without rounding, the error becomes that of the strongest five linear corrections, by NumPy's least squares.

    Three more of them are the strongest corrections of that.
    """
    crops, (without, grown) = pictures(6, 128), params

    def error(config, p):
        """[patches, 768] that decoding without rounding leaves of the crops."""
        left = []
        for x in crops:
            x = np.float32(x[None] / 255)
            tensors = CLIC(config).apply({"params": p}, x, LMBDA).tensors
            inverse = CLIC(config).apply({"params": p}, LMBDA, method=CLIC.gains)[1]
            shown = tensors["y"], tensors["feature"], inverse
            left.append(patches(np.asarray(x - CLIC(config).apply({"params": p}, *shown, method=CLIC.synthesise))))
        return np.concatenate([part.reshape(-1, 768) for part in left])

    seen = np.concatenate([patches(x[None] / 255.0 - 0.5).reshape(-1, 768) for x in crops])
    seen = np.concatenate([seen, np.ones((len(seen), 1))], 1)
    slight = np.eye(769) * np.sqrt(1e-6 / 769 * np.square(seen).sum())  # as further rows: a ridge

    def best(before, count):
        """Mean squared error after the `count` strongest linear corrections of the error `before`."""
        target = np.concatenate([before, np.zeros((769, 768))])
        fitted = seen @ np.linalg.lstsq(np.concatenate([seen, slight]), target, rcond=None)[0]
        axes = np.linalg.svd(fitted, full_matrices=False)[2][:count]
        return np.square(before - fitted @ axes.T @ axes).mean()

    def check(config, started, before, first, left):
        """The error after channels `first` and on were started, at most that share of it, and the scales they have."""
        expected = best(before, config.latent_channels - first)
        assert expected < left * np.square(before).mean()
        assert np.square(error(config, started)).mean() == pytest.approx(expected, rel=0.02)
        # the deviation of what is coded, in steps at the lmbda whose gain is 1
        y = CLIC(config).apply({"params": started}, np.float32(crops / 255), method=lambda m, x: m.g_a(x))[..., first:]
        bias = started["context"][f"parameters_{len(config.groups) - 1}"]["conv1"]["bias"]
        mean, scale = np.split(bias, 2)
        np.testing.assert_allclose(np.exp(scale), np.maximum(np.sqrt(np.square(y).mean((0, 1, 2))), 0.05), rtol=0.05)
        assert (mean == 0).all()

    started = pca_start.with_details(grown, NEW, crops)
    check(NEW, started, error(OLD, without), 24, 0.8)
    wider = growth.grown(NEW, started, MORE)
    left = error(NEW, started)
    np.testing.assert_allclose(error(MORE, wider), left, atol=1e-4)  # nothing is shown of them yet
    again = pca_start.with_details(wider, MORE, crops, kept=5)
    check(MORE, again, left, 29, 0.95)
    for name, kept in (("g_a", np.s_[:, :5]), ("g_s", np.s_[:5])):
        old, new = (p[name]["detail"]["kernel"] for p in (started, again))
        np.testing.assert_array_equal(new[kept], old)


def test_the_command_starts_them(params, monkeypatch):
    """From scratch and from weights without them; weights that have them keep theirs, beside which others start."""
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
    more = train.first_params(dataclasses.replace(MICRO, model=MORE), photos, "new")["g_s"]["detail"]["kernel"]
    np.testing.assert_array_equal(more[:5], drawn["g_s"]["detail"]["kernel"])
    assert np.abs(more[5:]).max(1).min() > 0


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
