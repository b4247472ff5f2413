"""Cluster health: its definition, a model made to collapse, what is warned of, and what clusters contribute."""

import json

import numpy as np
import pytest
from PIL import Image

from clic_jax.checkpoints import installed, published
from clic_jax.errors import UserError
from clic_jax.training import evaluation
from experiments import poc
from experiments.clusters import __main__ as clusters
from experiments.clusters import health
from tests.conftest import photograph
from tests.micro import MICRO

PHOTOGRAPHS = [photograph(75, 130, seed) for seed in range(4)]


@pytest.fixture(scope="module")
def micro(published_micro):
    """(ModelConfig, params, params whose clusters collapse: all features are the same vector)."""
    cfg, params, _ = published.load_published(published_micro)

    def collapse(tree):
        if "fc" in tree and "offset" in tree:  # a mixer: of features and values, the first half
            fc, half = tree["fc"], tree["fc"]["kernel"].shape[-1] // 2
            same = {"kernel": fc["kernel"].at[:, :half].set(0), "bias": fc["bias"].at[:half].set(1)}
            return tree | {"fc": same}
        return {name: collapse(leaf) if isinstance(leaf, dict) else leaf for name, leaf in tree.items()}

    return cfg.model, params, collapse(params)


@pytest.fixture(scope="module")
def healthy(micro):
    return health.measure(*micro[:2], PHOTOGRAPHS)


def test_definition():
    """Even shares, one cluster for all, and three quarters in one, by hand; branches of a block count alike."""
    even = np.arange(64).reshape(1, 8, 8) % 4
    one = np.full((1, 8, 8), 3)
    lopsided = np.where(np.arange(64) < 48, 0, np.arange(64) % 2 + 1).reshape(1, 8, 8)  # 48, 8, 8, 0
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.125)) / np.log(4)
    assert health.of_assignments({"g_a/stage0/block0": even}, 4) == {"g_a/stage0": (pytest.approx(1), 0.25, 0)}
    assert health.of_assignments({"g_a/stage0/block0": one}, 4) == {"g_a/stage0": (pytest.approx(0), 1, 1)}
    maps = {"g_s/stage1/block1/anchor": lopsided, "g_s/stage1/block1/non_anchor": even, "g_s/stage2/block0": one}
    found = health.of_assignments(maps, 4)
    assert found["g_s/stage1"] == (pytest.approx((1 + entropy) / 2), 0.5, 0.5) and len(found) == 2
    assert health.of_assignments({"g_a/stage0/block0": np.zeros((1, 4, 4), int)}, 1) == {}


def test_only_positions_of_the_picture_count(micro, healthy):
    """Those of the padding alone do not: 75 x 130 pixels at stride 16 are 5 x 9 positions."""
    found = evaluation.assignments(*micro[:2], PHOTOGRAPHS[0], 0.013)
    assert {value.shape for value in found.values()} == {(2, 5, 9)}
    assert set(healthy[0]) == {"g_a/stage1", "g_s/stage1"}
    again = health.of_assignments(evaluation.assignments(*micro[:2], PHOTOGRAPHS[1], MICRO.model.lmbdas[3]), 4)
    assert again == healthy[1]


def test_collapse_is_seen_and_warned_of(micro, healthy, tmp_path):
    """The model whose heads all put everything into one cluster, against its photographs when they did not."""
    found = health.measure(micro[0], micro[2], PHOTOGRAPHS)
    for stage, now in health.mean(found).items():
        assert now == (0, 1, 1)
        assert health.mean(healthy)[stage].entropy > 0.3
    usual = health.summary(healthy)
    assert set(health.collapsed(found, usual)) == set(healthy[0])
    assert health.collapsed(healthy, usual) == {} == health.collapsed(found, {})
    (tmp_path / "photos").mkdir()
    for i, x in enumerate(PHOTOGRAPHS):
        Image.fromarray(x).save(tmp_path / "photos" / f"{i}.png")
    for name, params in (("alive", micro[1]), ("collapsed", micro[2])):
        published.save_published(tmp_path / name, MICRO, params, {"step": 1, "loss": 0.5} | usual)
    assert poc.clusters(str(tmp_path / "alive"), tmp_path / "photos") == []
    lines = poc.clusters(str(tmp_path / "collapsed"), tmp_path / "photos")
    assert len(lines) == 2 and all("collapse on these images" in line and "is 0.00 of 1" in line for line in lines)
    published.save_published(tmp_path / "unmeasured", MICRO, micro[2], {})
    assert poc.clusters(str(tmp_path / "unmeasured"), tmp_path / "photos") == []  # nothing to compare with


def test_a_lower_entropy_must_be_more_than_chance():
    """One picture may be as plain as photographs are; many may not."""

    def pictures(entropy, count):
        return [{"g_a/stage0": health.Health(entropy, 0.5, 0.0)}] * count

    usual = health.summary(pictures(0.5, 13) + pictures(0.7, 13))  # 0.6, spread 0.1
    assert usual["clusters_spread_g_a_stage0"] == pytest.approx(0.102, abs=0.001)
    assert health.collapsed(pictures(0.5, 1), usual) == {}
    assert health.collapsed(pictures(0.5, 12), usual) == {"g_a/stage0": (pytest.approx(0.5), pytest.approx(0.6))}
    assert health.collapsed(pictures(0.8, 12), usual) == {}
    assert health.summary([{}]) == {} == health.mean([])


def test_shipped_models_have_their_figures():
    """Those of every installed model, of 25 photographs; found by its id."""
    for name, identity in installed.installed().items():
        found = health.reference(name, identity)
        assert found["clusters_pictures"] == 25 and 0.3 < found["clusters_entropy_g_a_stage2"] < 1
        assert 0 < found["clusters_spread_g_s_stage2"] < 0.3


def test_what_clusters_contribute(published_micro, tmp_path, capsys):
    """The command: its lines, its table, its file; the model's own curve is what evaluation says of it."""
    (tmp_path / "photos").mkdir()
    for i, x in enumerate(PHOTOGRAPHS[:2]):
        Image.fromarray(x).save(tmp_path / "photos" / f"{i}.png")
    out = tmp_path / "figures.json"
    arguments = ["--data", f"folder:{tmp_path / 'photos'}", "--model", str(published_micro), "--out", str(out)]
    assert clusters.main([*arguments, "--replace", "one", "grid"]) == 0
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    assert "g_a/stage1: entropy" in said and "| grid | " in said and found["images"] == 2
    curves = found["replaced"]
    cfg, params, model_id = published.load_published(published_micro)
    rows = evaluation.evaluate(cfg.model, params, PHOTOGRAPHS[:2], (MICRO.model.lmbdas[0], MICRO.model.lmbdas[-1]))
    assert [row["bpp"] for row in rows] == pytest.approx([curves["own"]["bpp"][0], curves["own"]["bpp"][-1]])
    assert found["model_id"] == model_id and curves["one"]["psnr"] != curves["own"]["psnr"] != curves["grid"]["psnr"]
    assert isinstance(curves["one"]["bd_rate"], float)
    assert found["clusters"] == pytest.approx(health.summary(health.measure(cfg.model, params, PHOTOGRAPHS[:2])))


def test_bad_input(micro, published_micro, tmp_path):
    with pytest.raises(UserError, match="no model 'clic-huge'"):
        clusters.main(["--model", "clic-huge"])
    with pytest.raises(UserError, match="no such folder"):
        clusters.main(["--model", str(published_micro), "--data", f"folder:{tmp_path / 'nowhere'}"])
    with pytest.raises(SystemExit) as stop:
        clusters.parse(["--replace", "two"])
    assert stop.value.code == 2


def test_middle_of_large_pictures(tmp_path):
    x = np.arange(600 * 700 * 3).reshape(600, 700, 3)
    np.testing.assert_array_equal(health.middle(x), x[12:588, 62:638])
    assert health.middle(x[:64]).shape == (64, 576, 3)
    for i in range(30):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i:02}.png")
    shown = [int(x[0, 0, 0]) for x in health.some(tmp_path)]
    assert len(shown) == health.SOME and (shown[0], shown[-1]) == (0, 29) and shown == sorted(set(shown))
