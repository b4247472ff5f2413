"""The maps of `experiments.visualize` against slow oracles, and its command line."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from clic_jax import config
from clic_jax.checkpoints import published
from clic_jax.errors import UserError
from clic_jax.model.clic import CLIC, init_params
from clic_jax.model.clustering import ClusterMixer
from experiments import visual_maps, visualize
from tests.conftest import QUICK_COMPILER, ROOT, photograph

LMBDA = jnp.float32([0.013])


@pytest.fixture(scope="module")
def micro(published_micro):
    """(ModelConfig, params) of the micro model."""
    cfg, params, _ = published.load_published(published_micro)
    return cfg.model, params


@pytest.fixture(scope="module")
def maps(micro):
    return visual_maps.look_inside(*micro, photograph(64, 128), LMBDA)


@pytest.fixture(scope="module")
def out(micro):
    """The model's own output for the same picture."""
    x = photograph(64, 128)[None] / jnp.float32(255)
    return jax.jit(lambda params, x: CLIC(micro[0]).apply({"params": params}, x, LMBDA))(micro[1], x)


@pytest.mark.parametrize("alpha", [1.0, -2.0])
def test_assignments_equal_a_naive_argmax(alpha):
    """Centres are pooled and moved, then each point takes the most similar one (a negative alpha: the least)."""
    heads, d, h, w = 3, 4, 8, 12
    mixer = ClusterMixer(heads, d)
    x = jnp.float32(np.random.default_rng(0).normal(size=(2, h, w, 6)))
    params = mixer.init(jax.random.key(1), x)["params"] | {"alpha": jnp.float32(alpha)}
    _, state = mixer.apply({"params": params}, x, capture_intermediates=True)
    inner = state["intermediates"]
    both = np.float64(inner["fc"]["__call__"][0]).reshape(2, h, w, 2 * heads, d)[..., :heads, :]
    moved = np.float64(inner["offset"]["__call__"][0])[..., :heads, :]
    for b, e, i, j in np.ndindex(2, heads, h, w):
        cosines = []
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            cell = both[b, row * h // 2 : (row + 1) * h // 2, column * w // 2 : (column + 1) * w // 2, e]
            center = cell.mean((0, 1)) + moved[b, row, column, e]
            point = both[b, i, j, e]
            cosines.append(alpha * (center @ point) / np.sqrt((center @ center) * (point @ point)))
        assert inner["assignment"][0][b, e, i, j] == int(np.argmax(cosines)), (b, e, i, j)


def test_nothing_is_sown_unasked():
    """Neither by init, whose result is parameters alone, nor by a training step, whose program stays as it was."""
    mixer, x = ClusterMixer(2, 4), jnp.zeros((1, 4, 4, 3))
    variables = mixer.init(jax.random.key(0), x)
    assert set(variables) == {"params"}

    def argmaxes(**kwargs):
        return str(jax.make_jaxpr(lambda v, x: mixer.apply(v, x, **kwargs))(variables, x)).count("argmax[")

    assert (argmaxes(), argmaxes(mutable=["intermediates"])) == (1, 2)


def test_bits_sum_to_the_models_estimate(micro, maps, out):
    """And they lie where they are spent: in the busy half of a picture, not in the flat one."""
    assert maps.bits.shape == (4, 8)
    np.testing.assert_allclose([maps.bits.sum(), maps.bits_y], out.bits_y[0], rtol=1e-5)
    half = photograph(64, 128)
    half[:, :64] = 90
    bits = np.asarray(visual_maps.look_inside(*micro, half, LMBDA).bits)
    assert bits[:, 5:].min() > bits[:, :3].max()


def test_correction_and_its_effect(maps, out):
    """Root mean square over the served channels, and the pictures that the model makes of either y_hat."""
    moved = np.asarray(out.tensors["y_hat_corrected"] - out.tensors["y_hat"])[0]
    assert not moved[..., 8:].any()  # the first slice alone is served
    np.testing.assert_allclose(maps.correction, np.sqrt(np.square(moved[..., :8]).mean(-1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(maps.x_hat, out.x_hat[0], atol=1e-5)
    assert np.abs(maps.x_hat_filtered - maps.x_hat).max() > 1e-5


def test_squared_gradient_equals_differences(micro):
    """One channel of the centre latent, by moving one pixel at a time up and down."""
    x = photograph(64, 64) / np.float32(255)
    one = np.eye(micro[0].latent_channels, dtype=np.float32)[3]
    square = np.asarray(visual_maps.squared_gradient(*micro, x, LMBDA, one))

    @jax.jit
    def latent(x):
        return CLIC(micro[0]).apply({"params": micro[1]}, x[None], LMBDA, method=CLIC.analyse)[0][0, 2, 2, 3]

    for i, j in ((32, 32), (40, 45), (30, 40)):
        slopes = []
        for channel in range(3):
            step = np.zeros_like(x)
            step[i, j, channel] = 1e-2
            slopes.append((latent(x + step) - latent(x - step)) / 2e-2)
        np.testing.assert_allclose(square[i, j], np.square(slopes).mean(), rtol=0.05, atol=1e-5)


def test_receptive_field_is_the_mean_over_channels(micro):
    """Random signs against one gradient a channel; and the largest gradients lie where the position does."""
    crops = np.stack([photograph(64, 64, seed) for seed in (1, 2)])
    field = visual_maps.receptive_field(*micro, crops, LMBDA, draws=200)
    channels = np.eye(micro[0].latent_channels, dtype=np.float32)
    exact = [
        visual_maps.squared_gradient(*micro, crop / np.float32(255), LMBDA, one) for crop in crops for one in channels
    ]
    exact = np.sqrt(np.mean(exact, 0))
    np.testing.assert_allclose(np.square(field).sum(), np.square(exact).sum(), rtol=0.05)
    inside = np.square(exact)[32:48, 32:48].sum() / np.square(exact).sum()
    assert inside > 0.5
    assert np.corrcoef(field.ravel(), exact.ravel())[0, 1] > 0.99


def test_crops():
    x = np.arange(192 * 320 * 3).reshape(192, 320, 3)
    assert visual_maps.spread_crops(x, 256).shape == (2, 192, 192, 3)
    crops = visual_maps.spread_crops(x, 64)
    np.testing.assert_array_equal(crops, [x[i : i + 64, j : j + 64] for i in (32, 96) for j in (64, 192)])


@pytest.mark.parametrize("name, stages", [("paper", 4), ("tiny", 1)])
def test_presets(name, stages):
    """Shapes alone: each cluster block of g_a and g_s, at the stride of its stage."""
    c = config.preset(name).model
    params = jax.eval_shape(lambda: init_params(c))
    x = jax.ShapeDtypeStruct((128, 64, 3), jnp.uint8)
    found = jax.eval_shape(lambda p, x: visual_maps.look_inside(c, p, x, LMBDA), params, x)
    expected = {}
    for transform in ("g_a", "g_s"):
        for stage, kind in enumerate(c.blocks):
            stride = c.stem_stride * 2**stage
            for block in range(c.depths[stage] if kind == "cluster" else 0):
                parts = ("/anchor", "/non_anchor") if block % 2 and c.checkerboard_blocks else ("",)
                for part in parts:
                    name = f"{transform}/stage{stage}/block{block}{part}"
                    expected[name] = (c.heads[stage], 128 // stride, 64 // stride)
    assert {name: value.shape for name, value in found.assignments.items()} == expected
    assert len({name.split("/block")[0] for name in expected}) == 2 * stages
    assert found.bits.shape == (8, 4)


def run(*arguments, cwd):
    """The command as a user types it: (status, lines of standard error)."""
    env = os.environ | {
        "XLA_FLAGS": QUICK_COMPILER,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "experiments.visualize", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_command_line(published_micro, tmp_path):
    """A grey photograph of odd sides: every figure is a picture, and each is named in the last line."""
    Image.fromarray(photograph(75, 130)).convert("L").save(tmp_path / "photo.png")
    out = tmp_path / "figures"
    status, told, err = run(tmp_path / "photo.png", "--model", published_micro, "--out", out, cwd=ROOT)
    assert status == 0, err
    assert "g_a/stage1: entropy 0." in told and "g_s/stage1: entropy 0." in told and "largest cluster" in told
    names = {"clusters_g_a_stage1", "clusters_g_s_stage1", "bits", "pqf", "receptive_field"}
    assert {path.name for path in out.iterdir()} == {f"{name}.png" for name in names}
    for path in out.iterdir():
        assert path.name in told
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 5 and min(image.size) > 200


def test_model_without_a_filter(micro, tmp_path, monkeypatch, capsys):
    """No pqf.png, and a line that says why; one pixel is a picture."""
    c = dataclasses.replace(micro[0], pqf="none")
    params = {name: value for name, value in micro[1].items() if not name.startswith("basis")}
    load = (dataclasses.replace(config.TINY, model=c), params, "00000000")
    monkeypatch.setattr(published, "load_published", lambda _: load)
    Image.new("RGB", (1, 1), "teal").save(tmp_path / "dot.png")
    assert visualize.main([str(tmp_path / "dot.png"), "--out", str(tmp_path / "out")]) == 0
    assert "has no filter" in capsys.readouterr().out
    assert not (tmp_path / "out" / "pqf.png").exists() and (tmp_path / "out" / "bits.png").exists()


BAD = {
    "missing": (["nowhere.jpg"], "nowhere.jpg: no such file"),
    "no picture": ([__file__], "not an image that Pillow can read"),
    "quality": (["x.png", "--quality", "0"], "quality 0 is out of range"),
    "model": (["x.png", "--model", "clic-huge"], "no model 'clic-huge'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, tmp_path, monkeypatch):
    """One line, and no folder left behind."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photograph(64, 64)).save("x.png")
    arguments, text = BAD[case]
    with pytest.raises(UserError, match=text):
        visualize.main([*arguments, "--out", "figures"])
    assert not Path("figures").exists()


def test_bad_input_on_the_command_line(tmp_path):
    status, told, err = run("nowhere.jpg", "--out", tmp_path / "figures", cwd=ROOT)
    assert (status, told) == (2, "")
    assert err == "experiments.visualize: error: nowhere.jpg: no such file or directory\n"
    status, _, err = run("nowhere.jpg", "--max-side", "0", "--out", tmp_path / "figures", cwd=ROOT)
    assert status == 2 and "must be at least 1, not 0" in err.splitlines()[-1]


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(visualize.NoMatplotlib, match=r"pip install '.\[report\]'"):
        visualize.main(["x.png", "--out", str(tmp_path)])
