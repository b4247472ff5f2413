"""tensorflow-compression's word on our entropy models and coder: asked where it is installed, else as measured."""

import json
import subprocess
import sys

import numpy as np
import pytest

from clic_jax import scales
from clic_jax.checkpoints import published
from clic_jax.coding import range_coder, stored, tables
from clic_jax.model import entropy
from clic_jax.quality import Quality
from experiments.referee import __main__ as referee
from tests.conftest import ROOT, photograph

PYTHON = ROOT / ".venv-referee" / "bin" / "python"


def check(result: dict):
    """The claims: the same bits to 0.1 %, and no more bytes than its coder for symbols that follow the tables."""
    assert result["largest_difference_of_bits"].keys() == {"z", "y"}
    assert max(result["largest_difference_of_bits"].values()) < 1e-3
    synthetic = result["bytes_of_synthetic"]
    assert synthetic["ours"] <= min(synthetic["default"], synthetic["finest"])
    assert result["cases"]
    for row in result["cases"]:
        for part in "zy":
            assert abs(row[part]["bits"]["ours"] / row[part]["bits"]["theirs"] - 1) < 1.1e-3
            assert row[part]["bytes"]["ours"] > 0


def committed() -> dict:
    return json.loads((ROOT / "experiments" / "results" / "referee.json").read_text())


def test_committed_result():
    result = committed()
    check(result)
    assert result["versions"]["theirs"]["tensorflow-compression"] == "2.14.1"
    *photographs, synthetic = result["cases"]
    assert len(photographs) >= 12 and synthetic["case"] == "synthetic"
    assert result["bytes_of_photographs"] == referee.total(photographs)
    assert result["bytes_of_synthetic"] == referee.total([synthetic])


def test_committed_result_is_of_this_code():
    """The referee was asked about the entropy model and the coder as they are now: the same symbols cost as much."""
    case = referee.synthetic_symbols([tables.pmf_table([1.0], 0)], 1)
    y, index = case["y"], case["index"]
    expected = committed()["cases"][-1]["y"]
    bits = entropy.y_bits("gaussian", np.float32(y), 0.0, np.float32(scales.SCALE_TABLE)[index])
    assert np.asarray(bits, np.float64).sum() == pytest.approx(expected["bits"]["ours"], rel=1e-6)
    encoder = range_coder.Encoder()
    encoder.encode(y, index, tables.y_tables("gaussian"))
    assert len(encoder.finish()) == expected["bytes"]["ours"]


def test_photographs_are_no_longer_than_with_its_coder():
    """Under the same Gaussian, coarse tables are kinder to outliers (0.8 %); our files use a density that has them."""
    photographs = committed()["bytes_of_photographs"]
    assert photographs["ours as in files"] <= min(photographs["default"], photographs["finest"])


def test_recorded_symbols_are_what_the_stream_holds(published_micro):
    """Encoding the recorded z and y again takes as many bytes as the file."""
    from clic_jax.coding.codec import Codec

    data = published.load_coding(published_micro)
    ready = Codec(*published.load_published(published_micro), data)
    x = photograph(128, 192)
    case = referee.coded_symbols(ready, x, 70)
    coded, _ = ready.encode(x, Quality(7000))
    own = stored.slice_tables(ready.config.model, data)
    ours = referee.our_answer(case, ready.params["prior"], stored.stored_tables(data), own)
    assert case["y"].shape == case["index"].shape == (8 * 12 * 24,) and case["z"].shape == (6, 8)
    assert ours["bytes_z"] + ours["bytes_file"] == pytest.approx(len(coded.stream) - (coded.pqf_bytes or 0), abs=2)
    assert ours["bits_y"] / 8 == pytest.approx(ours["bytes_y"], rel=0.05)


def test_synthetic_symbols_follow_the_tables(published_micro):
    prior = stored.stored_tables(published.load_coding(published_micro))
    case = referee.synthetic_symbols(prior, 2000)
    index = np.tile(np.arange(len(prior)), 2000)
    spent = range_coder.bits(case["z"].ravel(), index, prior)
    expected = sum(-(p * np.log2(p)).sum() for p in (t.freq / t.freq.sum() for t in prior))
    assert spent / 2000 == pytest.approx(expected, rel=0.05)


def test_without_its_environment_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.referee", "--python", "/none/python", "--data", "sample:valid"]
    command += ["--crop", "64", "64", "--out", str(tmp_path / "x.json")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.splitlines()[-1].startswith("experiments.referee: error: /none/python is")
    assert not (tmp_path / "x.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="needs tensorflow-compression in .venv-referee: make referee")
def test_referee_agrees_here(tmp_path):
    command = [sys.executable, "-m", "experiments.referee", "--data", "sample:valid", "--crop", "128", "128"]
    subprocess.run([*command, "--out", str(tmp_path / "x.json")], cwd=ROOT, check=True, capture_output=True)
    check(json.loads((tmp_path / "x.json").read_text()))
