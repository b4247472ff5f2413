"""The files of the paper's ablations: one change each, and the paper's figure, twice the same."""

import ast
import dataclasses
import json
import re

import pytest

from clic_jax.config import MINI, PAPER
from experiments import complexity, experiment
from experiments.paths import CONFIGS

FILES = sorted((CONFIGS / "ablations").glob("*.py"))
LABELS = {  # what the authors' plot scripts call them
    "no_checkerboard": "w/o CP CCB",
    "no_offset": "w/o MLP Offset",
    "iterative_offset": "MLP -> Iterative Offset",
    "overlapping_windows": "Non-overlapped -> Overlapped",
    "similarity_normalized": "Points -> Similarity Normalize",
    "euclidean": "Cosine -> Eu Distance",
    "nine_centers": "Four -> Nine Centers",
    "no_positions": "w/o PE",
    "no_pqf": "w/o PQF",
    "plain_pqf": "GuidedPQF -> NormalPQF",
    "conv_mixer": "Clu -> Conv",
    "window_attention": "Clu -> W-MHSA",
    "conv_attention": "Attn -> Conv",
    "no_attention": "w/o Attn",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_one_change_and_one_figure(path):
    module = experiment.module(str(path))
    for base in (MINI, PAPER):
        changed = module.get_config(base)
        fields = [f.name for f in dataclasses.fields(base.model)]
        assert sum(getattr(changed.model, name) != getattr(base.model, name) for name in fields) == 1
        assert changed.train == base.train and changed.name == f"{base.name}-{path.stem.replace('_', '-')}"
    assert experiment.named(str(path)) == module.get_config()
    text = ast.get_docstring(ast.parse(path.read_text()))
    figure = re.search(r"As published: ([+\d.]+) % of rate", text)
    assert (module.PUBLISHED is None) == (path.stem not in LABELS)
    assert module.PUBLISHED == (figure and float(figure[1])) and "\nOurs: " in text


def test_figures_are_the_published_ones(shared):
    points = json.loads((shared / "anchors" / "clic_paper_points.json").read_text())["ablation_kodak_psnr"]
    figures = {
        name: entry for group in ("clustering", "guided_pqf", "token_mixer") for name, entry in points[group].items()
    }
    for stem, label in LABELS.items():
        published = experiment.module(str(CONFIGS / "ablations" / f"{stem}.py")).PUBLISHED
        assert published == pytest.approx(figures[label]["delta_rate_pct_vs_full_at_same_psnr"][0], abs=0.051)


@pytest.mark.slow  # seconds of tracing, a minute on a busy machine
def test_convolution_costs_a_quarter_more():
    """As the paper says of its own; of `mini`, whose clustering has the same share, nearly so."""
    for base, expected in ((PAPER, 25.5), (MINI, 26.8)):
        model = dataclasses.replace(base.model, mixer="conv")
        costs = []
        for config in (base, dataclasses.replace(base, model=model)):
            cost = complexity.report(config, 256, 256, memory=False)["kmac_per_pixel"]
            costs.append(cost["encode"] + cost["decode"])
        assert 100 * (costs[1] / costs[0] - 1) == pytest.approx(expected, abs=0.1)
