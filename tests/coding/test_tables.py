"""Tables are exact integers, near-optimal, equal to SciPy's Gaussian, and the same everywhere (a literal hash)."""

import decimal
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import laplace, norm

from clic_jax import scales
from clic_jax.coding import tables
from clic_jax.errors import UserError
from tests.conftest import ROOT
from tests.model.test_entropy import exact

GOLDEN = {
    "gaussian": "4220d39f91d37d5356112776513e3f1c2289442f3203cd4d6a63007971ad3f90",
    "mixed": "4082ac9a5177a9f29179d925d3a953e0793db26ac71c6c9d4a2969b3fb182b29",
}


def expected_bits(pmf, values, table):
    """Mean code length of a symbol with the given distribution; an escape costs 16 bits more."""
    inside = (values >= table.first) & (values <= table.last)
    freq = np.where(inside, table.freq[np.where(inside, values - table.first, -1)], table.freq[-1])
    return pmf @ (24 - np.log2(freq) + np.where(inside, 0, 16))


def entropy(pmf):
    return -pmf[pmf > 0] @ np.log2(pmf[pmf > 0])


def test_golden_hash():
    """Files are coded with these very tables. If this fails, new files cannot be read by old versions."""
    assert (
        {density: tables.tables_sha256(tables.y_tables(density)) for density in GOLDEN}
        == GOLDEN
        == tables.TABLES_SHA256
    )


def test_golden_hash_without_simd_and_with_other_decimals():
    """NumPy's baseline code paths and a user's decimal context give the same tables."""
    code = (
        "import decimal; decimal.getcontext().prec = 5; from clic_jax.coding import tables; "
        "[tables.y_tables(density) for density in tables.TABLES_SHA256]; print('same')"
    )
    dispatched = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    env = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(dispatched)}
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert out.stdout == "same\n", out.stderr


def test_half_normal_is_plain_ieee_arithmetic():
    """Bit for bit what Python's own floats give: NumPy neither fuses nor reorders any of it."""
    points = [float(x) for x in np.random.default_rng(0).uniform(0, 7.5, 200)]
    expected = []
    for x in points:
        odd = numerator = x
        power = denominator = 1.0
        for n in range(1, 129):
            odd, power = odd * (x * x) / (2 * n + 1), power * (x * x) / (2 * n)
            numerator, denominator = numerator + odd, denominator + power
        expected.append(numerator / denominator / 2.5066282746310002)
    assert tables.half_normal(np.array(points)).tolist() == expected


@pytest.mark.parametrize("density", GOLDEN)
def test_other_arithmetic_is_refused(monkeypatch, density):
    """Tables that differ in a unit or two are an error of one line, never a file that others cannot read."""
    monkeypatch.setattr(tables, "half_normal", lambda x: 0.5 - norm.sf(x) + 1e-7 * (x > 1))
    tables.y_tables.cache_clear()
    with pytest.raises(tables.TableError, match="not IEEE 754") as caught:
        tables.y_tables(density)
    assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)
    monkeypatch.undo()
    assert tables.y_tables(density)


def test_scale_table():
    assert scales.SCALE_TABLE[0] == scales.SCALE_MIN and scales.SCALE_TABLE[-1] == scales.SCALE_MAX
    np.testing.assert_allclose(scales.SCALE_TABLE, np.geomspace(0.11, 256, 64), rtol=1e-14)
    with decimal.localcontext(decimal.Context(prec=4, rounding=decimal.ROUND_UP)):
        np.testing.assert_array_equal(scales._scale_table(), scales.SCALE_TABLE)


def test_half_normal_equals_scipy():
    x = np.concatenate([np.linspace(0, 8, 80_001), np.geomspace(1e-300, 1e3, 1000)])
    values = tables.half_normal(x)
    np.testing.assert_allclose(values, 0.5 - norm.sf(x), atol=5e-14, rtol=0)
    small = (x > 0) & (x < 1)  # norm.sf loses digits here
    np.testing.assert_allclose(values[small], norm.cdf(x[small]) - 0.5, atol=1e-15, rtol=0)
    assert (np.diff(tables.half_normal(np.linspace(0, 7.5, 10_001))) >= -1e-15).all()


@pytest.mark.parametrize("scale", scales.SCALE_TABLE[::7])
def test_half_laplace_equals_scipy(scale):
    values = tables.half_laplace(scale, 3000)
    expected = laplace.cdf(np.arange(0.5, 3000), scale=scale / np.sqrt(2)) - 0.5
    np.testing.assert_allclose(values, expected, atol=1e-14, rtol=0)
    with decimal.localcontext(decimal.Context(prec=60)):  # bit for bit what Python's own floats give
        tail = edge = float((-decimal.Decimal("0.5").sqrt() / decimal.Decimal(float(scale))).exp())
    for value in values:
        assert value == 0.5 - 0.5 * tail
        tail *= edge * edge


@pytest.mark.parametrize("density, reach", [("gaussian", 5.3), ("mixed", 10)])
@pytest.mark.parametrize("i", range(scales.SCALE_LEVELS))
def test_table(i, density, reach):
    """Sums, signs, monotone to either side, symmetric to 1 unit, within 1 unit of SciPy where that is 1 or more."""
    table, scale = tables.y_tables(density)[i], scales.SCALE_TABLE[i]
    assert table.freq.sum() == 2**24 and table.freq.min() >= 1 and table.freq.dtype == np.int32
    assert table.last == -table.first == max(16, np.ceil(reach * scale))
    symbols = table.freq[:-1].astype(int)
    up, down = symbols[table.last :], symbols[table.last :: -1]
    assert np.abs(up - down).max() <= 1
    assert (np.diff(up) <= 1).all() and (np.diff(down) <= 1).all()
    values = np.arange(table.first, table.last + 1)
    expected = np.maximum(2**24 * exact(density, values, 0, scale), 1)
    assert (np.abs(symbols - expected) <= 1 + 1e-4 * expected).all()
    with pytest.raises(ValueError, match="read-only"):
        table.freq[0] = 2


@pytest.mark.parametrize("density, loss, beyond", [("gaussian", 2e-5, 2e-7), ("mixed", 1e-4, 4e-7)])
def test_loss_is_small(density, loss, beyond):
    """Over the entropy of the exact density, everything included, in bits a symbol; and what escapes."""
    for scale, table in zip(scales.SCALE_TABLE, tables.y_tables(density)):
        values = np.arange(-int(25 * scale) - 20, int(25 * scale) + 21)
        pmf = exact(density, values, 0, scale)
        assert 0 < expected_bits(pmf, values, table) - entropy(pmf) < loss
        assert pmf[np.abs(values) > table.last].sum() < beyond


def best_quantize(p):
    """All start with 1; each further unit goes where it saves most bits, which is optimal as gains only diminish."""
    freq = np.ones(p.size, int)
    for _ in range(tables.TOTAL - p.size):
        freq[np.argmax(p * np.log2(1 + 1 / freq))] += 1
    return freq


def test_measured_tables():
    """Without symbols nothing changes; with many a table has their frequencies, alike for both signs.

    The frequencies are exact fractions, and the same on every machine (a literal hash).
    """
    assumed = tables.y_tables("mixed")
    for table, same in zip(assumed, tables.measured_tables(assumed, [[]] * len(assumed))):
        assert table.first == same.first
        np.testing.assert_array_equal(table.freq, same.freq)
    counts = [[10**6, 4 * 10**5, 31], [], [7], *[[3, 4] * 200] * (len(assumed) - 3)]
    measured = tables.measured_tables(assumed, counts)
    assert tables.tables_sha256(measured) == "88a9c0ce7e56ae40a3d57bb37d3151f7bf66f315f844fe288db2cea8eed61159"
    for table, new, seen in zip(assumed, measured, counts):
        inside = seen[: 1 - table.first]
        both = [Fraction(n, 2) for n in inside[:0:-1]] + inside[:1] + [Fraction(n, 2) for n in inside[1:]]
        both = both or [0]
        start = -table.first - len(both) // 2
        mass = [Fraction(int(f) * tables.ASSUMED_WEIGHT, tables.TOTAL) for f in table.freq]
        for i, n in enumerate(both):
            mass[start + i] += n
        total = sum(mass)
        expected = np.array([float(m / total * tables.TOTAL) for m in mass])
        np.testing.assert_allclose(new.freq, expected, rtol=4e-4, atol=2)  # what is below 1 is raised, the rest shrinks
        np.testing.assert_allclose(new.freq[:-1], new.freq[-2::-1], atol=1)


def test_quantize_is_near_optimal(monkeypatch):
    """Against the best integers, with totals of 8 bits, where rounding matters: a unit apart at most, 0.001 bits."""
    monkeypatch.setattr(tables, "TOTAL", 256)
    rng, losses, distances = np.random.default_rng(0), [], []
    for _ in range(200):
        p = rng.dirichlet(np.full(rng.integers(2, 40), rng.choice([0.05, 0.5, 5])))
        freq, best = tables._quantize(p), best_quantize(p)
        assert freq.sum() == 256 and freq.min() >= 1
        losses.append(p @ np.log2(best / freq))
        distances.append(np.abs(freq - best).max())
    assert min(losses) > -1e-12 and max(losses) < 0.001 and max(distances) <= 1


@given(
    st.lists(st.floats(0, 1) | st.just(0.0) | st.floats(0, 1e-300), min_size=1, max_size=200).filter(sum),
    st.floats(1e-6, 1),
    st.integers(tables.VALUE_MIN, tables.VALUE_MAX - 200),
)
@settings(max_examples=200, deadline=None)
def test_pmf_table(pmf, mass, first):
    """Any distribution: a valid table whose loss is bounded by what the least frequencies cost."""
    pmf = np.array(pmf) / (max(pmf) * len(pmf)) * mass  # sum at most `mass`, and no overflow
    assume(pmf.sum() > 0)
    table = tables.pmf_table(pmf, first)
    assert (table.first, table.last) == (first, first + pmf.size - 1)
    whole = np.append(pmf, max(0, 1 - pmf.sum()))
    whole /= whole.sum()
    loss = -whole @ np.log2(table.freq / 2**24) - entropy(whole)
    assert -1e-9 <= loss < 1e-6 + 3 * whole.size / 2**24


def test_pmf_table_takes_probabilities_that_sum_to_one_but_for_rounding():
    pmf = np.float32([0.5, 0.25, 0.25]) * np.float32(1 + 1e-4)
    table = tables.pmf_table(pmf, -1)
    assert table.freq[-1] == 1 and np.abs(table.freq[:-1] - [2**23, 2**22, 2**22]).max() <= 1


@pytest.mark.parametrize(
    "pmf", [[], [0.0], [0.5, -0.1], [np.nan], [0.9, 0.2], [np.inf], [[0.5, 0.5]]], ids=lambda pmf: str(pmf)
)
def test_no_probabilities(pmf):
    with pytest.raises(tables.TableError, match="not probabilities"):
        tables.pmf_table(pmf, 0)


@pytest.mark.parametrize(
    "first, freq",
    [
        (0, [2**24]),
        (0, [2**23, 2**23 + 1]),
        (0, [2**24 + 1, -1]),
        (0, [2**24, 0]),
        (0, [2.0**23, 2.0**23]),
        (0, [[2**23, 2**23]]),
        (0, np.array([2**64 - 2**24, 2**24, 2**24], np.uint64)),
        (tables.VALUE_MAX, [2**23, 2**22, 2**22]),
        (tables.VALUE_MIN - 1, [2**23, 2**23]),
    ],
)
def test_no_tables(first, freq):
    with pytest.raises(tables.TableError):
        tables.Table(first, np.asarray(freq))


def test_too_many_symbols():
    with pytest.raises(tables.TableError):
        tables.pmf_table(np.full(70_000, 1 / 70_000), 0)
