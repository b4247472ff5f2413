"""What the paper's ablations put in the place of a part: oracles, limit cases, and gradients."""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.coding import stored
from clic_jax.config import PAPER_LMBDAS, ConfigError, ModelConfig
from clic_jax.model.attention import ChannelGate, SeparableConv, SpatialGate, WindowAttention
from clic_jax.model.clic import CLIC
from clic_jax.model.context import ConvStack
from clic_jax.model.layers import Conv
from clic_jax.model.schedule import slices
from clic_jax.model.transforms import Analysis, ClusterBlock
from clic_jax.quality import Quality
from tests.conftest import photograph
from tests.micro import MICRO_PAPER

NARROW = ModelConfig(head_dim=4, gate_reduction=4)
BLOCKS = [
    dict(mixer="conv"),
    dict(mixer="window_attention"),
    dict(attention="conv"),
    dict(attention="none"),
    dict(centers=1),
    dict(centers=9),
    dict(centers=16),
    dict(center_windows="overlapping"),
    dict(center_offset="none"),
    dict(center_offset="iterative"),
    dict(similarity="euclidean"),
    dict(assignment="soft"),
    dict(assignment="one"),
    dict(assignment="grid"),
    dict(normalization="similarity"),
    dict(similarity_slope=5.0),
]
X = np.random.default_rng(0).normal(size=(2, 8, 12, 16)).astype(np.float32)


def block(changes):
    return ClusterBlock(dataclasses.replace(NARROW, **changes), 3)


def moved(params):
    """Parameters away from their start, where some are zero or nearly so: by the same where name and shape are."""

    def visit(path, leaf):
        seed = zlib.crc32(jax.tree_util.keystr(path).encode())
        return leaf + np.float32(0.2 * np.random.default_rng(seed).normal(size=leaf.shape))

    return jax.tree_util.tree_map_with_path(visit, params)


@functools.cache
def full_block():
    """(parameters at the start, output of X when they are moved)."""
    params = jax.jit(block({}).init)(jax.random.key(0), X)
    return params, jax.jit(block({}).apply)(moved(params), X)


@pytest.mark.parametrize("changes", BLOCKS, ids=str)
def test_block(changes):
    """The same shape, another value, and a finite gradient that reaches every parameter."""
    module = block(changes)
    params = moved(jax.jit(module.init)(jax.random.key(0), X))
    y, grads = jax.jit(lambda p: (module.apply(p, X), jax.grad(lambda p: jnp.square(module.apply(p, X)).sum())(p)))(
        params
    )
    assert y.shape == X.shape and np.isfinite(y).all()
    assert np.abs(y - full_block()[1]).max() > 1e-3
    for path, leaf in jax.tree.leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("changes", BLOCKS[4:], ids=str)
def test_what_changes_no_shape_keeps_names_and_draws(changes):
    """Variants of the clustering start from the full block's parameters; without the MLP, from the others of them."""
    params = jax.jit(block(changes).init)(jax.random.key(0), X)["params"]
    full = jax.tree.map(np.asarray, full_block()[0]["params"])
    if "center_offset" in changes:
        del full["mixer"]["offset"]
    full["mixer"]["alpha"] = full["mixer"]["alpha"] * changes.get("similarity_slope", 1)
    jax.tree.map(np.testing.assert_array_equal, full, jax.tree.map(np.asarray, params))


def test_convolution_in_the_place_of_clustering():
    """One dense 3x3 convolution, by a loop over its taps."""
    module = block(dict(mixer="conv"))
    kernel = jax.eval_shape(module.init, jax.random.key(0), X)["params"]["mixer"]["kernel"]
    assert kernel.shape == (3, 3, 16, 16)
    params = jax.jit(Conv(16, 3).init)(jax.random.key(1), X)
    padded, expected = np.pad(X, ((0, 0), (1, 1), (1, 1), (0, 0))), np.zeros(X.shape) + params["params"]["bias"]
    for i in range(3):
        for j in range(3):
            expected += padded[:, i : i + 8, j : j + 12] @ params["params"]["kernel"][i, j]
    np.testing.assert_allclose(Conv(16, 3).apply(params, X), expected, atol=1e-5)


@pytest.mark.parametrize("h, w", [(4, 4), (4, 12), (8, 8)])
def test_window_attention_equals_its_definition(h, w):
    """Query by query over the keys of its own window, in float64; windows at the border are cut, not filled."""
    side, e, d = 3, 2, 4
    module = WindowAttention(e, d, side)
    x = np.random.default_rng(h).normal(size=(1, h, w, 5)).astype(np.float32)
    params = jax.jit(module.init)(jax.random.key(0), x)["params"]
    params = jax.tree.map(
        lambda p: np.float32(p) + 0.1 * np.float32(np.random.default_rng(1).normal(size=p.shape)), params
    )
    qkv = (x @ params["qkv"]["kernel"] + params["qkv"]["bias"]).astype(np.float64)[0].reshape(h, w, 3, e, d)
    expected = np.zeros((h, w, e, d))
    for i in range(h):
        for j in range(w):
            keys = [(r, c) for r in range(h) for c in range(w) if r // side == i // side and c // side == j // side]
            for head in range(e):
                offsets = [(i - r + side - 1) * (2 * side - 1) + j - c + side - 1 for r, c in keys]
                logits = [qkv[i, j, 0, head] @ qkv[r, c, 1, head] / 2 for r, c in keys]
                weights = np.exp(np.add(logits, params["relative_bias"][offsets, head]))
                values = [qkv[r, c, 2, head] for r, c in keys]
                expected[i, j, head] = weights @ np.array(values) / weights.sum()
    expected = expected.reshape(h, w, e * d) @ params["proj"]["kernel"] + params["proj"]["bias"]
    np.testing.assert_allclose(module.apply({"params": params}, x)[0], expected, atol=1e-5)


def test_gates_that_are_open_are_separable_convolutions():
    params = jax.jit(SeparableConv().init)(jax.random.key(0), X)["params"]
    bare = SeparableConv().apply({"params": params}, X)
    gate = {"kernel": jnp.zeros((7, 7, 2, 1)), "bias": jnp.full((1,), 40.0)}
    np.testing.assert_allclose(SpatialGate().apply({"params": params | {"gate": gate}}, X), bare, rtol=1e-6)
    shut = {"squeeze": {"kernel": jnp.zeros((16, 4))}, "excite": {"kernel": jnp.zeros((4, 16))}}
    np.testing.assert_allclose(ChannelGate(4).apply({"params": params | shut}, X), bare / 2, rtol=1e-6)


def test_without_positions_the_picture_alone_is_seen():
    """The stem has three channels of input, and a map of coordinates changes nothing."""
    config = dataclasses.replace(MICRO_PAPER.model, positions=False)
    module, x = Analysis(config), jnp.float32(photograph(64, 64)[None] / 255)
    params = jax.jit(module.init)(jax.random.key(0), x)
    assert params["params"]["stem"]["conv"]["kernel"].shape[0] == 3 * 8 * 8
    apply = jax.jit(module.apply)
    np.testing.assert_array_equal(apply(params, x), apply(params, x, jnp.full((1, 64, 64, 2), 9.0)))


def test_plain_filter():
    """y_hat and what its network makes of it: in the picture, and in what is told of the filter; y plays no part."""
    config = dataclasses.replace(MICRO_PAPER.model, pqf="plain")
    model, rng = CLIC(config), np.random.default_rng(0)
    y, y_hat, feature = (np.float32(rng.normal(size=(1, 4, 8, n))) for n in (24, 24, config.feature_channels))
    params = jax.jit(functools.partial(model.init, method=CLIC.synthesise))(jax.random.key(0), y_hat, feature)["params"]
    assert params["basis_0"]["net"]["conv3"]["kernel"].shape[-1] == config.groups[0]  # one map a channel
    parts, expected = slices(y_hat, config.groups), []
    for k, part in enumerate(parts):
        widths = (12, 12, 9, 4) if k < 2 else (48, 48, 38, 16)
        stack = ConvStack(tuple((width, 3) for width in widths), config.activation)
        expected.append(part + stack.apply({"params": params[f"basis_{k}"]["net"]}, part))
    expected = np.concatenate(expected, -1)
    corrected, left, coefficients = model.apply({"params": params}, y, parts, method=CLIC.filter)
    np.testing.assert_allclose(corrected, expected, atol=1e-5)
    np.testing.assert_allclose(left, [np.square(y - expected).sum() / np.square(y - y_hat).sum()], rtol=1e-4)
    assert coefficients is None
    bare = CLIC(dataclasses.replace(config, pqf="none"))

    def synthesised(model, params, y_hat):
        return model.apply({"params": params}, y_hat, feature, method=CLIC.synthesise)

    shown = jax.jit(functools.partial(synthesised, bare))(params, expected)
    gradient = jax.grad(lambda params: jnp.square(synthesised(model, params, y_hat)).sum())
    found, grads = jax.jit(lambda params: (synthesised(model, params, y_hat), gradient(params)))(params)
    np.testing.assert_allclose(found, shown, atol=1e-4)
    for name in ("basis_0", "basis_1", "basis_2"):  # squared error teaches it
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads[name]))


def test_scalar_gains_start_as_channel_gains_do():
    """One number an anchor, tied to its way back: at the start, and at every quality, the same."""
    lmbda, found = jnp.float32([0.002, 0.013]), []
    for name in ("scalar", "channel"):
        config = dataclasses.replace(MICRO_PAPER.model, gains=name, lmbdas=PAPER_LMBDAS, log_scale=True)
        params = CLIC(config).init(jax.random.key(0), lmbda, method=CLIC.gains)["params"]
        gains = CLIC(config).apply({"params": params}, lmbda, method=CLIC.gains)
        indices = [stored.index_gain(config, params, Quality(hundredths)) for hundredths in (100, 4321, 10000)]
        found.append((params, gains, indices))
    assert found[0][0]["log_gain"].shape == (6, 1) and "log_inverse_gain" not in found[0][0]
    for scalar, channel in zip(jax.tree.leaves(found[0][1:]), jax.tree.leaves(found[1][1:]), strict=True):
        np.testing.assert_array_equal(scalar, channel)


def test_scalar_gains_undo_themselves():
    config = dataclasses.replace(MICRO_PAPER.model, gains="scalar", lmbdas=PAPER_LMBDAS)
    table = {"log_gain": jnp.float32(np.random.default_rng(0).normal(size=(6, 1)))}
    gain, inverse = CLIC(config).apply({"params": table}, jnp.float32([0.002, 0.03]), method=CLIC.gains)
    assert gain.shape == inverse.shape == (2, 1, 1, config.latent_channels)
    np.testing.assert_array_equal(gain, -inverse)
    assert np.ptp(gain, axis=-1).max() == 0


@pytest.mark.parametrize(
    "changes",
    [
        dict(mixer="mlp"),
        dict(attention="self"),
        dict(centers=5),
        dict(center_windows="sliding"),
        dict(center_offset="random"),
        dict(similarity="dot"),
        dict(assignment="fuzzy"),
        dict(normalization="area"),
        dict(gains="vector"),
    ],
    ids=str,
)
def test_values_that_do_not_exist(changes):
    (name,) = changes
    with pytest.raises(ConfigError, match=f"model.{name} must be one of .*, not {changes[name]!r}"):
        ModelConfig(**changes)


@pytest.mark.parametrize("slope", [0.0, -1.0, float("nan"), float("inf")])
def test_slopes_that_do_not_exist(slope):
    with pytest.raises(ConfigError, match="model.similarity_slope must be above 0, not"):
        ModelConfig(similarity_slope=slope)
