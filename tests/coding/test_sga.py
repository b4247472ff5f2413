"""The search for better latents: lower cost, the same decoder, and a cost function that is the model's own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax import metrics
from clic_jax.coding import codec, sga
from clic_jax.model.clic import CLIC
from clic_jax.quality import Quality
from tests.coding.test_codec import coder, decode, model, picture  # noqa: F401 (fixtures)
from tests.micro import MICRO

C = MICRO.model
LMBDA = np.full(1, 0.01, np.float32)


def cost(ready, x, hundredths, **options):
    """(bits + lmbda * squared error, what the file holds) of the decoded picture."""
    coded, latents = ready.encode(x, Quality(hundredths), **options)
    shown = ready.show(latents, *x.shape[:2], tile=options.get("tile", 1024))
    np.testing.assert_array_equal(decode(ready, coded, x.shape, hundredths, tile=options.get("tile", 1024)), shown)
    lmbda = Quality(hundredths).lmbda(C.lmbdas)
    return 8 * len(coded.stream) + lmbda * metrics.mse(x, shown) * x.shape[0] * x.shape[1], coded


@pytest.mark.parametrize("hundredths", [100, 6000])
def test_lowers_the_cost(coder, hundredths):  # noqa: F811
    """More with more steps, in files that the same decoder reads exactly; the same file on every call."""
    x = picture(90, 130)
    found = [cost(coder, x, hundredths, refine=steps) for steps in (0, 6, 24)]
    assert found[0][0] > found[1][0] > found[2][0] and found[2][0] < 0.99 * found[0][0]
    assert coder.encode(x, Quality(hundredths), refine=6)[0] == found[1][1]


def test_tiles(coder):  # noqa: F811
    """A picture of six tiles: the cost falls, every step of every tile is shown as progress, seams included."""
    x, seen = picture(300, 500), []
    plain, _ = cost(coder, x, 5000, tile=256)

    def watch(steps):
        for step in steps:
            seen.append(step)
            yield step
        seen.append("done")

    refined, _ = cost(coder, x, 5000, tile=256, refine=8, watch=watch)
    assert refined < 0.995 * plain
    assert seen == [*range(6 * 8), "done"]


@pytest.mark.parametrize("temperature", [0.02, 0.5])
def test_falls_to_the_neighbours_with_the_right_odds(temperature):
    """Against a loop over Gumbel noise, as the method was published: the same distribution of results."""
    values = np.float32([-1.9, -0.3, 0.0, 0.25, 0.5, 3.8])
    keys = jax.random.split(jax.random.key(0), 4000)
    found = np.asarray(jax.vmap(lambda key: sga._fallen(values, temperature, key))(keys))
    rng = np.random.default_rng(0)
    for value, drawn in zip(values.astype(np.float64), found.T):
        below, expected = np.floor(value), []
        share = np.clip(value - below, 1e-4, 1 - 1e-4)
        logits = np.array([-np.arctanh(share), -np.arctanh(1 - share)]) / temperature  # of below, of above
        for noise in rng.gumbel(size=(4000, 2)):
            weights = np.exp((logits + noise - (logits + noise).max()) / temperature)
            expected.append(below + weights[1] / weights.sum())
        np.testing.assert_allclose(drawn.mean(), np.mean(expected), atol=0.04)
        np.testing.assert_allclose(drawn.std(), np.std(expected), atol=0.04)


def test_the_cost_of_settled_latents_is_the_models_own(model):  # noqa: F811
    """With y_hat and z_hat as latents and no temperature left: the bits and the error of the float model."""
    config = dataclasses.replace(C, rdoq=0.0)
    x = picture(64, 128)[None]
    out = CLIC(config).apply({"params": model[0]}, x.astype(np.float32) / 255, LMBDA)
    weight = np.zeros((64, 128), np.float32)
    weight[:50, :70] = 1
    latents = out.tensors["y_hat"], out.tensors["z_hat"]
    arguments = (*latents, x.astype(np.float32) / 255, weight, LMBDA, 1e-3, jax.random.key(0))
    found = CLIC(config).apply({"params": model[0]}, *arguments, method=sga._cost)
    error = np.square(np.asarray(out.x_hat, np.float64)[0, :50, :70] * 255 - x[0, :50, :70]).sum() / 3
    np.testing.assert_allclose(found, out.bits_y[0] + out.bits_z[0] + LMBDA[0] * error, rtol=1e-3)


def test_padding_counts_for_nothing(model):  # noqa: F811
    """Pixels of weight 0 may be anything: the search goes the same way."""
    x, weight = picture(64, 64)[None], np.zeros((64, 64), np.float32)
    weight[:40, :30] = 1
    net, params = CLIC(C), jax.tree.map(jnp.asarray, model[0])
    y, _, _ = net.apply({"params": params}, x.astype(np.float32) / 255, LMBDA, method=CLIC.analyse)
    z = net.apply({"params": params}, y, method=CLIC.hyper_analyse)
    other = np.where(weight[..., None] > 0, x, 255 - x)
    first, second = (sga.refine(net, params, y, z, image, weight, LMBDA, range(3), 3) for image in (x, other))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert not np.array_equal(first[0], y) and not np.array_equal(first[1], z)


def test_what_cannot_be_refined(coder, model):  # noqa: F811
    with pytest.raises(codec.RefineError, match="-1 must be a number of steps"):
        coder.encode(picture(8, 8), Quality(5000), refine=-1)
    similar = dataclasses.replace(MICRO, train=dataclasses.replace(MICRO.train, metric="ms-ssim", crop=192))
    other = codec.Codec(similar, model[0], "00000000", model[1])
    other.check_refine(0)
    with pytest.raises(codec.RefineError, match="trained for ms-ssim"):
        other.encode(picture(8, 8), Quality(5000), refine=1)
