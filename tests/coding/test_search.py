"""The search for better latents: lower cost, the same decoder, and a cost function that is the model's own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax import metrics
from clic_jax.coding import codec, effort, search
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
    """More with more effort, in files that the same decoder reads exactly; the same file on every call."""
    x = picture(90, 130)
    found = [cost(coder, x, hundredths, effort=effort) for effort in (0, 1, 2, 4)]
    costs = [value for value, _ in found]
    assert costs[0] > costs[1] > costs[2] > costs[3] and costs[3] < 0.99 * costs[0]
    assert coder.encode(x, Quality(hundredths), effort=2)[0] == found[2][1]


def test_looks_back(coder, monkeypatch):  # noqa: F811
    """Effort 1 by hand: what y shows, how g_a sees that, and what it sees of the error added to what is coded."""
    x, programs, quality = picture(64, 128), coder.programs, Quality(6000)
    (plain, latents), (found, _) = (coder.encode(x, quality, effort=effort) for effort in (0, 1))
    lmbda = np.full(1, quality.lmbda(C.lmbdas), np.float32)
    y, seen = (programs.analyse(v[None], lmbda) for v in (x, coder.show(latents, 64, 128)))
    wanted, z = latents.y_hat + y - seen, programs.hyper(y, None)[1]
    by_hand = dict(analyse=lambda *_: wanted, hyper=lambda y, _: (programs.hyper(y, z)[0], z))
    monkeypatch.setattr(coder, "programs", dataclasses.replace(programs, **by_hand))
    assert plain != found == coder.encode(x, quality)[0]


def test_never_raises_the_cost(coder, monkeypatch):  # noqa: F811
    """What the search, or looking back, finds is left where the files are no better for it."""
    x = picture(64, 64)
    plain, looked_back = (coder.encode(x, Quality(5000), effort=effort)[0] for effort in (0, 1))
    assert plain != looked_back
    monkeypatch.setattr(coder, "programs", dataclasses.replace(coder.programs, searched=lambda y, *_: y + 1))
    assert coder.encode(x, Quality(5000), effort=2)[0] == looked_back
    monkeypatch.setattr(coder, "show", lambda latents, *size, tile: np.zeros((*size, 3), np.uint8))  # the same error
    assert coder.encode(x, Quality(5000), effort=1)[0] == coder.encode(x, Quality(5000), effort=2)[0] == plain


def test_tiles(coder):  # noqa: F811
    """A picture of six tiles: the cost falls, every step of every tile is shown as progress, seams included."""
    x, seen = picture(300, 500), []
    plain, _ = cost(coder, x, 5000, tile=256)

    def watch(steps):
        for step in steps:
            seen.append(step)
            yield step
        seen.append("done")

    searched, _ = cost(coder, x, 5000, tile=256, effort=2, watch=watch)
    assert searched < 0.995 * plain
    assert seen == [*range(6 * effort.STEPS[2]), "done"]


def _start(params, x):
    """(the network, params, y, rounded z) of the picture x uint8 [1, H, W, 3]."""
    net, params = CLIC(C), jax.tree.map(jnp.asarray, params)
    y, _, _ = net.apply({"params": params}, x.astype(np.float32) / 255, LMBDA, method=CLIC.analyse)
    return net, params, y, jnp.round(net.apply({"params": params}, y, method=CLIC.hyper_analyse))


def test_the_cost_of_settled_latents_is_the_models_own(model):  # noqa: F811
    """Of y that is y_hat already: the bits and the error of the float model."""
    config = dataclasses.replace(C, rdoq=search.CURVATURE)
    x = picture(64, 128)[None]
    out = CLIC(config).apply({"params": model[0]}, x.astype(np.float32) / 255, LMBDA)
    weight = np.zeros((64, 128), np.float32)
    weight[:50, :70] = 1
    y, z = out.tensors["y_hat"], out.tensors["z_hat"]
    arguments = (y, jnp.zeros_like(y), z, x.astype(np.float32) / 255, weight, LMBDA)
    found, y_hat = CLIC(config).apply({"params": model[0]}, *arguments, method=search._cost)
    error = np.square(np.asarray(out.x_hat, np.float64)[0, :50, :70] * 255 - x[0, :50, :70]).sum() / 3
    np.testing.assert_allclose(found, out.bits_y[0] + out.bits_z[0] + LMBDA[0] * error, rtol=1e-4)
    np.testing.assert_allclose(y_hat, y, atol=1e-4)


def test_the_slope_is_that_of_the_cost(model):  # noqa: F811
    """Against differences of the cost of y_hat moved a little, all symbols moving against their means."""
    x, weight = picture(64, 64)[None], np.ones((64, 64), np.float32)
    net, params, y, z = _start(model[0], x)

    def of(moved):
        return net.apply({"params": params}, y, moved, z, x / np.float32(255), weight, LMBDA, method=search._cost)[0]

    direction = jnp.asarray(np.random.default_rng(0).normal(size=y.shape), jnp.float32)
    slope = (jax.grad(of)(jnp.zeros_like(y)) * direction).sum()
    difference = (of(0.01 * direction) - of(-0.01 * direction)) / 0.02
    np.testing.assert_allclose(slope, difference, rtol=0.02)


def test_padding_counts_for_nothing(model):  # noqa: F811
    """Pixels of weight 0 may be anything: the search goes the same way."""
    x, weight = picture(64, 64)[None], np.zeros((64, 64), np.float32)
    weight[:40, :30] = 1
    start = _start(model[0], x)
    other = np.where(weight[..., None] > 0, x, 255 - x)
    first, second = (search.search(*start, image, weight, LMBDA, range(3), 3) for image in (x, other))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, start[2])


def test_what_cannot_be_searched(coder, model):  # noqa: F811
    for wrong in (-1, 10, 2.5):
        with pytest.raises(effort.EffortError, match=f"effort {wrong} is out of range: choose 0"):
            coder.encode(picture(8, 8), Quality(5000), effort=wrong)
    similar = dataclasses.replace(MICRO, train=dataclasses.replace(MICRO.train, metric="ms-ssim", crop=192))
    other = codec.Codec(similar, model[0], "00000000", model[1])
    assert other.check_effort(0) == 0
    with pytest.raises(effort.EffortError, match="trained for ms-ssim: leave the effort at 0"):
        other.encode(picture(8, 8), Quality(5000), effort=1)
