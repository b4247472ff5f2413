"""What each distribution of y may depend on, by Jacobian and by running the decoder's side of the schedule."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.config import ModelConfig
from clic_jax.model.checkerboard import anchor_mask, merge, split
from clic_jax.model.context import ContextModel, gaussian_scale
from clic_jax.model.quantize import round_ste
from clic_jax.model.schedule import code_slices, slices
from clic_jax.scales import SCALE_MAX, SCALE_MIN

PUBLISHED = ModelConfig(
    widths=(4, 4, 4, 9),
    groups=(2, 2, 3, 2),
    channel_layers=((5, 5), (0, 3)),
    spatial_ratios=(1.5, 1.0, 2.0),
    parameter_widths=(8,),
    hyper_channels=3,
)
EVERY = dataclasses.replace(
    PUBLISHED, channel_support="all", channel_layers=((5, 3), (4, 1)), spatial_ratios=(1.0,), activation="leaky_relu"
)
H, W, M = 4, 6, 9
GROUP_OF = np.repeat(range(4), PUBLISHED.groups)  # slice of each channel of y


class Coder:
    """One context model with its compiled encoder, decoder and Jacobian."""

    def __init__(self, config):
        self.config = config
        rng = np.random.default_rng(0)
        self.y = 3 * rng.normal(size=(2, H, W, M)).astype(np.float32)
        self.features = rng.normal(size=(2, H, W, 2 * config.hyper_channels)).astype(np.float32)
        model = ContextModel(config)

        def schedule(model, features, code):
            return code_slices(model, features, code)

        def encode(params, y, features):
            """y_hat [B, h, w, M], its means and scales on the same grid, and the packed symbols in coding order."""
            halves = [split(s) for s in slices(y, config.groups)]
            means, scales, symbols = {}, {}, {}

            def code(k, colour, mean, scale):
                value = halves[k][colour]
                means[k, colour], scales[k, colour] = mean, scale
                symbols[k, colour] = jnp.round(value - mean)
                return round_ste(value - mean) + mean

            y_hat = model.apply(params, features, code, method=schedule)
            return jnp.concatenate(y_hat, -1), spread(means), spread(scales), symbols

        def decode(params, symbols, features):
            """The same from symbols alone, popped one by one: the order is part of what is tested."""
            stream = [symbols[k, colour] for k in range(4) for colour in (0, 1)]
            means, scales = {}, {}

            def code(k, colour, mean, scale):
                means[k, colour], scales[k, colour] = mean, scale
                return stream.pop(0) + mean

            y_hat = model.apply(params, features, code, method=schedule)
            return jnp.concatenate(y_hat, -1), spread(means), spread(scales)

        def spread(halves):
            return jnp.concatenate([merge(halves[k, 0], halves[k, 1]) for k in range(4)], -1)

        def parameters(y):
            _, means, scales, _ = encode(self.params, y[None], self.features[:1])
            return means[0], scales[0]

        code = dict(code=lambda k, colour, mean, scale: mean, method=schedule)
        shapes = jax.eval_shape(lambda key: model.init(key, self.features, **code), jax.random.key(0))
        self.params = jax.tree.map(
            lambda s: np.float32(rng.normal(size=s.shape) / np.prod(s.shape[:-1]) ** 0.5), shapes
        )
        self.encode, self.decode = jax.jit(encode), jax.jit(decode)
        jacobian = jax.jit(jax.jacrev(parameters))(self.y[0])
        self.jacobian = [np.asarray(j) for j in jacobian]  # of means and scales: [h, w, M (out), h, w, M (in)]


@pytest.fixture(scope="module", params=[PUBLISHED, EVERY], ids=["published", "all slices"])
def coder(request):
    return Coder(request.param)


def depends(jacobian, k, colour, j, other):
    """Whether any mean or scale of slice k on `colour` depends on y of slice j on `other` (0: anchors)."""
    outputs, inputs = (anchor_mask(H, W) == (c == 0) for c in (colour, other))
    return bool(np.any(jacobian[outputs][:, GROUP_OF == k][:, :, inputs][..., GROUP_OF == j]))


@pytest.mark.parametrize("part", [0, 1], ids=["means", "scales"])
def test_causality(coder, part):
    """The full table of what may be seen; rounding is straight-through, so only direct dependence shows."""
    jacobian = coder.jacobian[part]
    assert np.isfinite(jacobian).all()
    for k in range(4):
        earlier = range(k) if coder.config.channel_support == "all" else {0, k - 1} & set(range(k))
        for colour in (0, 1):
            for j in range(4):
                for other in (0, 1):
                    allowed = j in earlier or (j == k and colour == 1 and other == 0)
                    assert depends(jacobian, k, colour, j, other) == allowed, (k, colour, j, other)


def test_changes_of_later_values_change_nothing_earlier(coder):
    """With real rounding and large changes: all that precedes a half in the stream is the same, bit for bit."""
    base = [np.asarray(v) for v in coder.encode(coder.params, coder.y, coder.features)[:3]]
    anchors = anchor_mask(H, W)
    for k in range(4):
        for colour in (0, 1):
            changed = coder.y.copy()
            later = ((GROUP_OF == k) & (anchors == (colour == 0))[..., None]) | (GROUP_OF > k)
            if colour == 0:
                later = np.broadcast_to(GROUP_OF >= k, later.shape)
            changed[:, later] += 100
            out = [np.asarray(v) for v in coder.encode(coder.params, changed, coder.features)[:3]]
            own = (GROUP_OF == k) & (anchors == (colour == 0))[..., None]
            for before, after in zip(base[1:], out[1:]):
                np.testing.assert_array_equal(after[:, ~later | own], before[:, ~later | own])
            np.testing.assert_array_equal(out[0][:, ~later], base[0][:, ~later])
            assert (out[0][:, own] != base[0][:, own]).any()


def test_decoder_reproduces_the_encoder(coder):
    """From rounded symbols alone: the same y_hat, means and scales, within half a step of y."""
    y_hat, means, scales, symbols = coder.encode(coder.params, coder.y, coder.features)
    assert np.abs(y_hat - coder.y).max() <= 0.5 + 1e-5
    for ours, theirs in zip(coder.decode(coder.params, symbols, coder.features), (y_hat, means, scales)):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    decoded = np.asarray(coder.decode(coder.params, {**symbols, (0, 0): symbols[0, 0] + 1}, coder.features)[1])
    assert (decoded[..., GROUP_OF == 3] != np.asarray(means)[..., GROUP_OF == 3]).all()  # the symbols are really read


def test_first_slice_sees_hyper_features_at_its_own_position_only(coder):
    """Anchors of slice 0 have no other context: moving the features of one place moves the parameters of that place."""
    features = coder.features.copy()
    features[:, 2, 2] += 1
    before, after = (np.asarray(coder.encode(coder.params, coder.y, f)[1]) for f in (coder.features, features))
    moved = np.abs(after - before)[..., GROUP_OF == 0].max((0, 3)) > 1e-7
    moved &= anchor_mask(H, W)
    assert moved[2, 2] and moved.sum() == 1


def test_gaussian_scale():
    """Raw as published; with `log_scale` an exponential within the table's range, whose gradient can lead back in."""
    raw = np.float32([-1e4, -2, 0, 2, 1e4])
    np.testing.assert_array_equal(gaussian_scale(PUBLISHED, raw, 1.0), raw)
    config = dataclasses.replace(PUBLISHED, log_scale=True)
    expected = np.exp(np.clip(raw.astype(np.float64) + 0.5, np.log(SCALE_MIN), np.log(SCALE_MAX)))
    np.testing.assert_allclose(gaussian_scale(config, raw, 0.5), expected, rtol=1e-5)
    grow, shrink = (jax.grad(lambda r: sign * gaussian_scale(config, r, 0.5).sum())(raw) for sign in (-1, 1))
    np.testing.assert_array_equal(np.asarray(grow) < 0, [True, True, True, True, False])
    np.testing.assert_array_equal(np.asarray(shrink) > 0, [False, True, True, True, True])
