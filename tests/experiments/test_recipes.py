"""The recipes for the paper's curves: their docstrings say what was published, and they train."""

import functools
import json
import re

import jax
import numpy as np
import pytest

from clic_jax.checkpoints import published
from clic_jax.config import PAPER_LMBDAS
from clic_jax.model.clic import init_params
from clic_jax.training import steps
from experiments import complexity, experiment
from experiments.train import __main__ as train
from tests.conftest import ROOT

CONFIGS = ROOT / "experiments" / "configs"
QUALITY = {"clic_mse": ("clic", "PSNR, dB", "psnr-rgb"), "clic_ms_ssim": ("clic-ms-ssim", "MS-SSIM", "ms-ssim-rgb-db")}

# every kind of part once, at a few channels and two of the four stages: the whole takes minutes to compile
NARROW = """model.stem_kernel=8 model.stem_stride=8 model.widths=(8,16) model.depths=(1,2) model.heads=(2,2)
    model.blocks=('cluster','cluster') model.head_dim=4 model.synthesis_width=24
    model.hyper_layers=((8,2),(8,2)) model.hyper_decoder_layers=((8,2),(0,2)) model.hyper_channels=8
    model.feature_channels=8 model.groups=(4,12) model.channel_layers=((0,3),) model.spatial_ratios=(2.0,)
    model.parameter_widths=(16,) model.gate_reduction=4 model.pqf_slices=1 model.pqf_ratios=(1.0,)
    train.batch=8 train.crop=192""".split()


def table(recipe: str) -> dict[str, list[float]]:
    """The rows of the recipe's table."""
    rows = re.findall(r"^    (\S.*?)  +([\d. ]+)$", (CONFIGS / f"{recipe}.py").read_text(), re.MULTILINE)
    return {name: [float(n) for n in numbers.split()] for name, numbers in rows}


@pytest.mark.parametrize("recipe", QUALITY)
def test_expected_figures_are_the_published_ones(recipe):
    codec, row, key = QUALITY[recipe]
    curves = json.loads((ROOT / "experiments" / "results" / "published_kodak.json").read_text())["curves"]
    figures = next(curve["results"] for curve in curves if curve["codec"] == codec)
    stated = table(recipe)
    assert stated["bpp"] == pytest.approx(figures["bpp"], abs=5.1e-4)
    assert stated[row] == pytest.approx(figures[key], abs=5.1e-3)
    assert len(stated["lmbda"]) == len(stated["bpp"]) == 6
    loop = re.search(r"for lmbda in ([\d. ]+);", (CONFIGS / f"{recipe}.py").read_text())[1]
    assert [float(n) for n in loop.split()] == stated["lmbda"]
    assert experiment.read(str(CONFIGS / f"{recipe}.py")).model.lmbdas[0] in stated["lmbda"]
    if recipe == "clic_mse":
        assert tuple(stated["lmbda"]) == PAPER_LMBDAS


@pytest.mark.parametrize("recipe", QUALITY)
def test_cost_of_a_step(recipe):
    """The full model's step at full width, traced only: 2.17 M multiply-accumulates a pixel, as the recipe says."""
    cfg = experiment.read(str(CONFIGS / f"{recipe}.py"))
    crops = jax.ShapeDtypeStruct((1, cfg.train.crop, cfg.train.crop, 3), np.uint8)
    state = jax.eval_shape(lambda: steps.new_state(cfg, init_params(cfg.model)))
    macs = complexity.macs(functools.partial(steps.train_step, cfg), state, crops)
    assert macs / cfg.train.crop**2 == pytest.approx(2.17e6, rel=0.005)
    assert "2.17e6" in (CONFIGS / "clic_mse.py").read_text()


@pytest.mark.slow  # a minute of compiling each
@pytest.mark.parametrize("recipe", QUALITY)
def test_two_steps_at_reduced_width(recipe, tmp_path):
    """The whole command: two steps of the paper's graph with few channels, the loss that it promises, weights."""
    lmbda = table(recipe)["lmbda"][0]
    changes = [word for change in [*NARROW, f"model.lmbdas={lmbda}", "train.log_every=1"] for word in ("--set", change)]
    options = ["--data", "sample", "--valid", "none", "--max-steps", "2", "--out", str(tmp_path)]
    assert train.main(["--config", str(CONFIGS / f"{recipe}.py"), *options, *changes]) == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        distortion = (row["loss"] - row["bpp"]) / lmbda
        if recipe == "clic_mse":
            assert distortion == pytest.approx(255**2 * row["mse"], rel=1e-3)
        else:
            assert 0 < distortion < 1
    config, params, _ = published.load_published(tmp_path / "published")
    assert config.train.metric == ("mse" if recipe == "clic_mse" else "ms-ssim")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
