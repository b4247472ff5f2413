"""The transform-codec start: with the residual branches silenced it is a (hierarchical) PCA, to the last digit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.config import PAPER, PRESETS, TINY, ConfigError
from clic_jax.model.clic import CLIC
from clic_jax.training.pca_start import STEP_AT_UNIT_LMBDA, transform_codec
from tests.micro import MICRO
from tests.model.test_clic import random_params

TWO_STAGES = dataclasses.replace(MICRO.model, blocks=("conv", "conv"), synthesis_width=24, groups=(8, 16))
THREE_STAGES = dataclasses.replace(
    TWO_STAGES,
    stem_kernel=4,
    stem_stride=4,
    widths=(12, 16, 24),
    depths=(1, 1, 1),
    heads=(1, 1, 1),
    head_dim=8,
    blocks=("conv", "conv", "cluster"),
)
WIDE_STEM = dataclasses.replace(THREE_STAGES, widths=(56, 16, 24))  # a patch of 4x4 has 48 samples

# the latent feature joins y_hat without a layer between, as in the published graph; the stem sees no coordinates
JOINED = dataclasses.replace(
    THREE_STAGES,
    synthesis_width=24 + THREE_STAGES.feature_channels,
    positions=False,
    blocks=("cluster",) * 3,
    gate_reduction=4,
)


def photographs():
    """Eight smooth coloured textures, uint8 [8, 64, 64, 3]."""
    rng = np.random.default_rng(0)
    frequency = np.fft.fftfreq(64)
    falling = 1 / (0.03 + np.hypot(frequency[:, None], frequency)) ** 3
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(8, 3, 64, 64))) * falling).real.transpose(0, 2, 3, 1)
    mixed = noise @ (np.eye(3) + 0.7)
    return np.uint8(np.clip(120 + 45 * mixed / mixed.std(), 0, 255))


def hierarchical_pca(config, crops):
    """(reconstruction in [0, 1], standard deviations of the last coefficients), by repeated SVD of 2x2 blocks."""
    x, levels = crops / 255.0 - 0.5, []
    for i, width in enumerate(config.widths):
        s = 2 if i else config.stem_stride
        n, h, w, c = x.shape
        rows = x.reshape(n, h // s, s, w // s, s, c).swapaxes(2, 3).reshape(-1, s * s * c)
        axes = np.linalg.svd(rows, full_matrices=False)[2][:width]
        levels.append((axes, s, (n, h, w, c)))
        x = (rows @ axes.T).reshape(n, h // s, w // s, len(axes))
    deviations = np.sqrt(np.square(x).mean((0, 1, 2)))
    for axes, s, (n, h, w, c) in reversed(levels):
        rows = x.reshape(-1, len(axes)) @ axes
        x = rows.reshape(n, h // s, w // s, s, s, c).swapaxes(2, 3).reshape(n, h, w, c)
    return x + 0.5, deviations


def silence(params):
    """`params` with the last layer of every residual branch of g_a and g_s at zero."""

    def visit(path, leaf):
        names = [p.key for p in path]
        return np.zeros_like(leaf) if names[0] in ("g_a", "g_s") and {"pointwise", "conv2"} & set(names) else leaf

    return jax.tree_util.tree_map_with_path(visit, params)


@pytest.fixture(
    scope="module",
    params=[TWO_STAGES, THREE_STAGES, WIDE_STEM, JOINED],
    ids=["two stages", "three stages", "wide stem", "joined feature"],
)
def start(request):
    """(config, parameters before, parameters after, crops, y of the crops, their reconstruction from unrounded y)."""
    config, crops = request.param, photographs()
    before = random_params(config)
    after = transform_codec(before, config, crops)

    @jax.jit
    def run(params, x):
        model = CLIC(config).bind({"params": params})
        y = model.g_a(x)
        feature = jnp.ones((*y.shape[:-1], config.feature_channels))
        return y, model.synthesise(y, 0 * feature), model.synthesise(y, feature)

    return config, before, after, crops, *run(silence(after), jnp.float32(crops / 255))


def test_reconstruction_is_the_truncated_pca(start):
    """The same picture as repeated SVD, and an error no smaller than the plain 16x16 PCA's, which is the bound."""
    config, _, _, crops, _, x_hat, _ = start
    expected, _ = hierarchical_pca(config, crops)
    np.testing.assert_allclose(x_hat, expected, atol=2e-4)
    x = crops / 255
    rows = (x - 0.5).reshape(8, 4, 16, 4, 16, 3).swapaxes(2, 3).reshape(-1, 768)
    bound = np.square(np.linalg.svd(rows, compute_uv=False)[config.latent_channels :]).sum() / x.size
    assert bound * 0.999 <= np.square(x_hat - x).mean() < 0.1 * np.square(x - x.mean()).mean()


def test_latent_is_measured_in_quantisation_steps(start):
    """Channels in falling order, deviations those of the PCA in steps of 0.02 / sqrt(middle lmbda)."""
    config, _, _, crops, y, _, _ = start
    step = STEP_AT_UNIT_LMBDA / np.sqrt(config.reference_lmbda)
    _, deviations = hierarchical_pca(config, crops)
    measured = np.sqrt(np.square(y).mean((0, 1, 2)))
    np.testing.assert_allclose(measured, deviations / step, rtol=1e-3)
    np.testing.assert_array_equal(np.argsort(-measured), np.arange(len(measured)))


def test_scales_start_at_the_measured_deviations(start):
    config, before, after, crops, _, _, _ = start
    step = STEP_AT_UNIT_LMBDA / np.sqrt(config.reference_lmbda)
    expected = np.log(np.maximum(hierarchical_pca(config, crops)[1] / step, 0.05))
    biases = [after["context"][f"parameters_{k}"]["conv1"]["bias"] for k in range(2)]
    np.testing.assert_allclose(np.concatenate([b[g:] for b, g in zip(biases, config.groups)]), expected, atol=1e-3)
    np.testing.assert_array_equal(np.concatenate([b[:g] for b, g in zip(biases, config.groups)]), 0)


def test_the_rest_is_damped_and_the_input_untouched(start):
    """Residual branches and the latent feature keep a tenth of their start, other parameters all of it."""
    config, before, after, *_, x_hat, with_feature = start
    jax.tree.map(np.testing.assert_array_equal, random_params(config), before)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    layers = (("conv1", 1.0), ("conv2", 0.1)) if config.blocks[0] == "conv" else ()
    for side in ("g_a", "g_s"):
        for layer, share in layers:
            kernels = [p[side]["stage0"]["block0"][layer]["kernel"] for p in (after, before)]
            np.testing.assert_allclose(kernels[0], share * kernels[1], rtol=1e-6)
    for name in ("h_a", "h_s", "prior", "log_gain", "basis_0"):
        jax.tree.map(np.testing.assert_array_equal, after[name], before[name])
    assert np.abs(with_feature - x_hat).max() < 0.5
    assert (np.abs(with_feature - x_hat).max() > 0) == ("enter" in after["g_s"])  # its rows of the split start at zero


@pytest.mark.parametrize("mixer, layer", [("cluster", "proj"), ("conv", "mixer"), ("window_attention", "proj")])
def test_what_ends_a_branch_without_local_attention_is_damped(mixer, layer):
    """The mixer and the MLP themselves, which have gates behind them otherwise; the MLP that moves centres is not."""
    config = dataclasses.replace(JOINED, attention="none", mixer=mixer)
    before = random_params(config)
    after = transform_codec(before, config, photographs())
    block, start = (params["g_s"]["stage1"]["block0"] for params in (after, before))
    ends = [("mlp", "fc2")] + [("mixer", layer) if layer != "mixer" else ("mixer",)]
    for path in [*ends, ("mlp", "fc1"), *([("mixer", "offset", "fc2")] if mixer == "cluster" else [])]:
        ours, theirs = block, start
        for name in path:
            ours, theirs = ours[name], theirs[name]
        np.testing.assert_allclose(ours["kernel"], theirs["kernel"] * (0.1 if path in ends else 1), rtol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        PAPER.model,
        dataclasses.replace(TINY.model, linear_path=False),
        dataclasses.replace(TINY.model, stem_kernel=11),
    ],
    ids=["paper", "nonlinear", "overlap"],
)
def test_configs_without_a_linear_path(config):
    with pytest.raises(ConfigError, match="linear_path"):
        transform_codec({}, config, photographs())


@pytest.mark.parametrize("name", [name for name, config in PRESETS.items() if config.train.pca_start])
def test_every_preset_that_starts_so_can(name):
    config = PRESETS[name].model
    shapes = jax.eval_shape(
        lambda key: CLIC(config).init(key, jnp.zeros((1, 64, 64, 3)), jnp.ones(1)), jax.random.key(0)
    )
    params = transform_codec(
        jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes["params"]), config, photographs()
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
