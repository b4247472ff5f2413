"""What is told of an adapted model: which weights to keep, and from how many pictures on it pays."""

import json

import numpy as np
import pytest

from experiments.report import __main__ as report
from experiments.report import adaptation, results, savings
from tests.measured import write_results


def made_up(tmp_path, shift, **more):
    """An adaptation of made-up results, and JPEG's; a shift of -4 is half the bits of the model before."""
    write_results(tmp_path / "results", "m", 0, model_id="11111111", **more)
    write_results(tmp_path / "results", "m-adapted", shift, model_id="22222222", **more)
    write_results(tmp_path / "results", "jpeg", 4, **more)
    about = {
        "model": "m",
        "minutes": 6,
        "spent_seconds": 720.0,
        "steps": 1000,
        "weights_bytes": 10**7,
        "machine": "one",
    }
    about |= {"halves": {"train": {"t.png": "1"}, "valid": {"v.png": "2"}, "test": {"a.png": "3", "b.png": "4"}}}
    (tmp_path / "adapt.json").write_text(json.dumps(about))
    found = results.read(tmp_path / "results")
    return adaptation.read(tmp_path / "adapt.json", found), [r for r in found if not r.ours]


PRICES = savings.Volumes(36.0, 1e6, storage_price=0.1, transfer_price=0.2, downloads=3, compute_price=5, decoders=100)


@pytest.mark.parametrize("shift, start, pays", [(-4, "Use the", True), (4, "Keep the", False), (0, "Keep the", False)])
def test_verdict(tmp_path, shift, start, pays):
    told, others = made_up(tmp_path, shift)
    lines = adaptation.verdict(told, others, PRICES)
    text = "\n".join(lines).replace("\u00a0", " ")
    assert lines[0].startswith(start) and adaptation.worth(told) == pays
    assert ("It pays from" in text) == pays and ("does not pay" in text) == (not pays)
    after = {-4: "75.0 % fewer", 4: "0.0 % more", 0: "50.0 % fewer"}[shift]
    assert f"Against JPEG: 50.0 % fewer bits before, {after} bits after" in text
    assert ("2 of 2 pictures need more bits" in text) == (shift > 0)
    assert "Before and after adapting" in adaptation.section(told, others, PRICES)


def test_a_mean_that_few_pictures_make(tmp_path):
    """Two of three need more bits than before: keep the weights, whatever the third saves."""
    told, others = made_up(tmp_path, 0, names=["a.png", "b.png", "c.png"])
    content = json.loads((tmp_path / "results" / "m-adapted.json").read_text())
    for row in content["per_image"]:
        row["bpp"] *= 0.3 if row["name"] == "a.png" else 1.1
    content["results"]["bpp"] = [
        float(np.mean([row["bpp"] for row in content["per_image"] if row["quality"] == q])) for q in content["quality"]
    ]
    (tmp_path / "results" / "m-adapted.json").write_text(json.dumps(content))
    told = adaptation.read(tmp_path / "adapt.json", results.read(tmp_path / "results"))
    lines = adaptation.verdict(told, others, PRICES)
    assert told.comparison.rate.value < -1 and not adaptation.worth(told)
    assert lines[0].startswith("Keep the weights") and "but no more than half" in lines[0]
    assert "2 of 3 pictures need more bits" in lines[1] and "does not pay" in lines[-1]


def test_break_even_by_hand(tmp_path):
    """Half of 1.05 and 1.05 * 2 ** 0.5 bits a pixel at 36 dB, and a year of it."""
    told, _ = made_up(tmp_path, -4)
    found = adaptation.break_even(told, PRICES)
    rates = 1.05 * 0.25 * 2**1.5, 1.05 * 0.125 * 2**1.5  # 36 dB is 1.5 doublings above 30 dB
    gigabytes = (rates[0] - rates[1]) * 1e6 / 8 * 1e6 / 1e9
    assert found.gigabytes == pytest.approx(gigabytes, rel=1e-6)
    assert found.computing == pytest.approx(0.2 * 5)
    assert found.weights == pytest.approx(0.01 * (100 * 0.2 + 12 * 0.1))
    year = gigabytes / 1e6 * (78 * 0.1 + 12 * 3 * 0.2)  # a picture a month
    assert found.pictures == pytest.approx((1.0 + 0.212) / year)
    assert adaptation.break_even(told, savings.Volumes(99.0, 1e6)) is None
    assert adaptation.break_even(made_up(tmp_path / "worse", 4)[0], PRICES).pictures is None


def test_an_adaptation_that_is_not_finished(tmp_path):
    made_up(tmp_path, -4)
    about = json.loads((tmp_path / "adapt.json").read_text())
    for text in (json.dumps({k: v for k, v in about.items() if k != "steps"}), "[", json.dumps(about | {"model": "n"})):
        (tmp_path / "adapt.json").write_text(text)
        with pytest.raises(report.ReportError):
            adaptation.read(tmp_path / "adapt.json", results.read(tmp_path / "results"))
