"""What coefficients would cost under learned tables: against a count by hand, and where tables cannot help."""

import math

import numpy as np
import pytest
from PIL import Image

from clic_jax.checkpoints import published
from clic_jax.coding import coefficients
from experiments import pqf_coding
from tests.coding.test_codec import model, picture  # noqa: F401  (a fixture)
from tests.micro import MICRO


def pictures(rng, n):
    """Two slices a picture: the first always 3, the second any of four integers; quality 90 has their negatives."""
    found = [[np.full(8, 3), rng.integers(0, 4, 40)] for _ in range(n)]
    return {10.0: found, 90.0: [[-q for q in p] for p in found]}


def test_bits_are_those_counted_by_hand():
    rng = np.random.default_rng(0)
    learned_on, measured_on = pictures(rng, 5), pictures(rng, 2)
    found = pqf_coding.compare(learned_on, measured_on)
    seen = [q for sets in learned_on.values() for p in sets for part in p for q in part]
    freq = coefficients.table().freq
    share = {q: freq[q + coefficients.LARGEST] / sum(freq) for q in range(-16, 17)}
    total = 0.0
    for p in measured_on[90.0]:
        for part in p:
            for q in part:
                total -= math.log2((seen.count(q) + 64 * share[q]) / (len(seen) + 64))
    assert found["one table"][90.0] == pytest.approx(total / 2, rel=1e-3)
    fixed = np.mean([sum(-math.log2(share[q]) for part in p for q in part) for p in measured_on[10.0]])
    assert found["fixed"][10.0] == pytest.approx(fixed, rel=1e-3)


def test_the_finest_tables_find_the_source():
    """A slice that never changes costs next to nothing, one of four even values two bits, given counts enough."""
    rng = np.random.default_rng(1)
    found = pqf_coding.compare(pictures(rng, 4000), pictures(rng, 50))
    assert found["a slice and quality"][10.0] == pytest.approx(40 * 2, rel=0.01)
    for coarser in ("one table", "a slice", "a quality", "fixed"):
        assert found[coarser][10.0] > found["a slice and quality"][10.0] + 5


def test_without_counts_the_table_is_the_fixed_one():
    fixed = coefficients.bits(np.arange(-16, 17))
    np.testing.assert_allclose(pqf_coding.counted([np.zeros(0, int)]), fixed, atol=1e-3)


def test_command_line(model, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(pqf_coding, "CROP", 64)
    monkeypatch.setattr(pqf_coding, "CROPS", 2)
    published.save_published(tmp_path / "micro", MICRO, model[0], {}, coding=model[1])
    (tmp_path / "photos").mkdir()
    Image.fromarray(picture(64, 64)).save(tmp_path / "photos" / "a.png")
    spec, out = f"folder:{tmp_path / 'photos'}", tmp_path / "coding.json"
    arguments = [str(tmp_path / "micro"), "--data", spec, "--valid", spec, "--qualities", "10", "90", "--out", str(out)]
    assert pqf_coding.main(arguments) == 0
    told = capsys.readouterr().out
    assert "a slice and quality" in told and "quality 90" in told and '"coefficients": 16' in out.read_text()
