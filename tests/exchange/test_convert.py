"""Checkpoints of the authors' models as published folders: their outputs come out, and pictures are coded."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import clic_jax
from clic_jax import api
from clic_jax.__main__ import main
from clic_jax.checkpoints import inferred, published, reference
from clic_jax.checkpoints.arrays import flat
from clic_jax.coding import measured
from clic_jax.config import ModelConfig
from clic_jax.exchange import publish
from clic_jax.files.pictures import ImageWarning
from clic_jax.quality import Quality
from tests.checkpoints.torch import written
from tests.conftest import photograph
from tests.model.parity.fixture import load
from tests.model.test_parity import REDUCED, nhwc

PARITY = Path(__file__).parents[1] / "model" / "parity"


@pytest.fixture(scope="module")
def state():
    """The state dict of the authors' model, reduced."""
    arrays = load(PARITY / "model_params.npz")
    return {name[len("param/") :]: value for name, value in arrays.items() if name.startswith("param/")}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(3):
        Image.fromarray(photograph(256, 256, seed)).save(folder / f"{seed}.png")
    return f"folder:{folder}"


@pytest.fixture(autouse=True)
def few_crops(monkeypatch):
    monkeypatch.setattr(publish, "CALIBRATION_PIXELS", 0)


def convert(*arguments) -> int:
    with pytest.raises(SystemExit) as error:
        main(["convert", *map(str, arguments)])
    return error.value.code


MICRO = dataclasses.replace(
    REDUCED,
    stem_kernel=9,
    stem_stride=8,
    widths=(16, 24),
    depths=(1, 2),
    heads=(2, 3),
    blocks=("cluster",) * 2,
    synthesis_width=32,
    groups=(4, 4, 16),
    hyper_layers=((12, 1), (10, 1), (10, 2), (8, 1), (6, 2)),
    hyper_decoder_layers=((8, 1), (8, 2), (10, 1), (10, 2), (0, 1)),
    hyper_channels=12,
    feature_channels=8,
    channel_layers=((8, 3), (0, 5)),
    parameter_widths=(16,),
    pqf_slices=2,
)


def theirs(config):
    """The shapes of the authors' tensors, if their model had this config: ours turned round."""
    shapes = {}
    ours = {path: leaf.shape for path, leaf in flat(measured.parameters(config)).items()}
    for path, leaf in reference.leaves(reference.layout(config)).items():
        shape = ours[path]
        for name in leaf.names:
            if path == "prior/median":
                shapes[name] = (*shape, 1, 3)
            elif path.startswith("prior/"):
                shapes[name] = shape if "matrix" in path else (*shape, 1)
            elif path == "g_s/leave/kernel":
                shapes[name] = (shape[2], shape[3], *shape[:2])
            elif path.endswith("depthwise/kernel"):
                shapes[name] = (shape[2], 1, 3, 3)
            elif name.endswith(".weight") and len(shape) > 1:
                sides = shape[:2] if len(shape) == 4 else () if "mlp" in name or "offset" in name else (1, 1)
                shapes[name] = (shape[-1] // len(leaf.names), shape[-2], *sides)
            else:
                shapes[name] = (shape[0] // len(leaf.names),) if shape else (1,)
    return shapes


@pytest.fixture(scope="module")
def micro():
    """A state dict of theirs with random weights, and medians between the integers."""
    rng, state = np.random.default_rng(0), {}
    for name, shape in theirs(MICRO).items():
        fan_in = np.prod(shape[1:]) if len(shape) > 1 and "entropy" not in name else 10
        state[name] = (rng.standard_normal(shape) / fan_in**0.5 + ("norm" in name)).astype(np.float32)
    return state


def test_codes_pictures(micro, photographs, tmp_path, capsys):
    """The command, and with what it makes a picture to a file and back."""
    written.save(tmp_path / "a.pth", micro)
    folder = tmp_path / "models" / "clic"
    assert convert(tmp_path / "a.pth", "--out", folder, "--data", photographs, "--lmbda", 0.0067) == 0
    out, err = capsys.readouterr()
    config, params, identity = published.load_published(folder)
    assert out == f"{folder}: model {identity}, CLIC with GuidedPQF, one rate, whatever the quality\n" and not err
    assert config.model == dataclasses.replace(MICRO, lmbdas=(0.0067,))
    assert [path.name for path in folder.parent.iterdir()] == ["clic"]
    np.testing.assert_array_equal(params["prior"]["median"], micro["entropy_bottleneck.quantiles"][:, 0, 1])

    x = photograph(60, 64)
    codec = api.open_model(folder)
    coded, latents = codec.encode(x, Quality.of(50))
    again = codec.read(coded.stream, coded.pqf_bytes is not None, coded.check, *x.shape[:2], Quality.of(50))
    np.testing.assert_array_equal(codec.show(again, *x.shape[:2]), codec.show(latents, *x.shape[:2]))
    with pytest.raises(SystemExit) as error:
        main(["models", str(folder)])
    assert error.value.code == 0 and "one rate, whatever the quality, 0." in capsys.readouterr().out


@pytest.mark.slow
def test_the_reduced_model(state, photographs, tmp_path):
    """As the authors' training script saves it; what comes out is what their code computed, by the public loader."""
    written.save(tmp_path / "best.pth.tar", {f"module.{name}": value for name, value in state.items()})
    folder = tmp_path / "clic"
    assert convert(tmp_path / "best.pth.tar", "--out", folder, "--data", photographs) == 0
    model, params = clic_jax.load(folder)
    assert model.config == REDUCED
    arrays = {name.split("/")[-1]: x for name, x in load(PARITY / "model_64x64.npz").items() if "mid/" not in name}
    found = jax.jit(model.apply)({"params": params}, nhwc(arrays["x"]))
    for name in ("z_hat", "y_hat"):
        np.testing.assert_allclose(found.tensors[name], nhwc(arrays[name]), atol=1e-5, rtol=1e-5)
    step = int(arrays.get("x_hat_step", 1))
    np.testing.assert_allclose(found.x_hat[:, ::step, ::step], nhwc(arrays["x_hat"]), atol=2e-5)
    np.testing.assert_allclose(found.bits_y + found.bits_z, np.ravel(arrays["estimated_bits"]), rtol=1e-4)

    x = np.rint(255 * nhwc(arrays["x"])[0]).astype(np.uint8)
    with pytest.warns(ImageWarning):  # of weights that nobody trained
        data = clic_jax.compress(x, model=folder, verify=True)
    codec = api.open_model(folder)
    latents = codec.encode(x, Quality.of(50))[1]
    np.testing.assert_array_equal(clic_jax.decompress(data, model=folder), codec.show(latents, *x.shape[:2]))
    exact = jax.jit(model.apply)({"params": params}, x[None] / np.float32(255)).tensors
    np.testing.assert_array_equal(np.round(exact["z_hat"] - params["prior"]["median"]), latents.z)


def base_of(state):
    """CLIC_base of those widths: no h_latent_s, no filter, one masked convolution, a narrower g_s."""
    left = {}
    for name, value in state.items():
        if name.startswith(("h_latent_s.", "Guided.", "g_s.0.", "context_prediction.")):
            continue
        left[name] = value[:, :40] if name == "g_s.1.UP.0.weight" else value
        if name.startswith("g_a.7."):
            left[f"g_s.0.{name[6:]}"] = value
    for k, g in enumerate(REDUCED.groups):
        for part in ("weight", "bias"):
            value = state[f"context_prediction.{k}.4.{part}"]
            left[f"context_prediction.{k}.0.{part}"] = value[:, :g] if part == "weight" else value
    return left


BASE = dataclasses.replace(REDUCED, feature_channels=0, pqf="none", synthesis_width=40, spatial_ratios=(2.0,))


def test_config_of_the_authors_tensors(state):
    """Of CLIC and CLIC_base, and with it a place for every tensor, in the shapes of our model."""
    assert inferred.inferred({name: value.shape for name, value in state.items()}, 0.013) == REDUCED
    state = base_of(state)
    found = inferred.inferred({name: value.shape for name, value in state.items()}, 0.013)
    assert found == BASE
    ours = {path: leaf.shape for path, leaf in flat(measured.parameters(found)).items()}
    params = reference.from_reference(state, found, lambda: ours)
    assert {path: leaf.shape for path, leaf in flat(params).items()} == ours


@pytest.mark.parametrize("config", [ModelConfig(), MICRO], ids=["paper", "micro"])
def test_config_from_shapes(config):
    assert inferred.inferred(theirs(config), 0.013) == config


def broken(what, state):
    state = dict(state)
    if what == "other":  # as ELIC is named
        return {f"g_a.{i}.conv{k}.weight": np.zeros((4, 4, 3, 3), np.float32) for i in range(9) for k in (1, 2)}
    if what == "few":
        return {name: value for name, value in state.items() if not name.startswith("h_scale_s.")}
    if what == "more":
        return state | {f"h_b.{i}.weight": np.zeros(3, np.float32) for i in range(7)}
    if what == "shapes":
        state |= {name: np.zeros(5, np.float32) for name in state if name.endswith("norm2.bias")}
        return state | {"entropy_bottleneck.quantiles": np.zeros(3, np.float32)}  # too few axes
    if what == "nan":
        return state | {"h_a.0.bias": np.full(12, np.nan, np.float32)}
    raise KeyError(what)


@pytest.mark.parametrize(
    "what, told",
    [
        ("other", r"no checkpoint of the authors' CLIC or CLIC_base: it lacks g_a.0.weight, .*\(\d+ in all\); it has"),
        ("few", r"it lacks h_scale_s.0.weight, .*, \.\.\. \(10 in all\)$"),
        ("more", r"it has what that has not, h_b.0.weight, .*h_b.4.weight, \.\.\. \(7 in all\)$"),
        ("shapes", r"it has in other shapes g_a.*norm2.bias \[5\] \(our g_a/stage0/block0/norm2/bias is \[16\]\), g_a"),
        ("nan", r"h_a/conv0/bias is not finite$"),
    ],
)
def test_what_cannot_be_converted(what, told, micro, tmp_path, capfd):
    """One line, which lists the first few of all that is wrong and counts the rest; exit status 2; no folder."""
    written.save(tmp_path / "a.pth", broken(what, micro))
    assert convert(tmp_path / "a.pth", "--out", tmp_path / "out") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert re.search(told, line), line
    assert len(line) < 1500 and [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_mistakes(micro, tmp_path, capfd):
    """What is none, is cut off, means harm or is not there; an --out that exists; photographs that do not."""
    written.save(tmp_path / "good.pth", micro)
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:-4000])
    written.archive(tmp_path / "harm.pth", b"cposix\nsystem\n")
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.iterdir())
    for arguments, told in (
        (("text.pth", "--out", "out"), "is no file of torch.save"),
        (("cut.pth", "--out", "out"), "damaged, or cut off"),
        (("harm.pth", "--out", "out"), "asks for 'posix.system'"),
        (("none.pth", "--out", "out"), "No such file"),
        ((".", "--out", "out"), "Is a directory"),
        (("good.pth", "--out", "there"), "exists: delete it first, or name another --out"),
        (("good.pth", "--out", "out", "--data", "folder:there"), "no image of at least 256x256 pixels"),
        (("good.pth", "--out", "out", "--lmbda", "-1"), "lmbda must be positive"),
        (("good.pth", "--out", "out", "--metric", "psnr"), "invalid choice"),
    ):
        paths = [
            str(tmp_path / a) if i in (0, 2) else a.replace("there", f"{tmp_path / 'there'}")
            for i, a in enumerate(arguments)
        ]
        assert convert(*paths) == 2, arguments
        (line,) = capfd.readouterr().err.splitlines()
        assert told in line, line
    assert sorted(tmp_path.iterdir()) == before


def test_safetensors(micro, tmp_path, capfd):
    """The same tensors; bfloat16, which NumPy lacks, is widened."""
    numpy = pytest.importorskip("safetensors.numpy", reason="needs the package safetensors")
    import ml_dtypes

    from clic_jax.exchange import convert as module

    numpy.save_file({f"module.{name}": np.ascontiguousarray(value) for name, value in micro.items()}, tmp_path / "a.st")
    found = module.read(tmp_path / "a.st")
    assert found.keys() == micro.keys()
    for name, value in micro.items():
        np.testing.assert_array_equal(found[name].reshape(value.shape), value)
    values = np.float32([1.5, -2, 0])
    numpy.save_file({"a": values.astype(ml_dtypes.bfloat16)}, tmp_path / "b.st")
    np.testing.assert_array_equal(module.read(tmp_path / "b.st")["a"], values)
    (tmp_path / "c.st").write_bytes((tmp_path / "a.st").read_bytes()[:-10])
    assert convert(tmp_path / "c.st", "--out", tmp_path / "out") == 2
    assert "damaged, or cut off" in capfd.readouterr().err and not (tmp_path / "out").exists()
