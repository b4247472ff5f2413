"""Bjontegaard differences against the bjontegaard package, against arithmetic, and for curves that have none."""

import json
import sys

import pytest

from clic_jax.errors import UserError
from experiments import bd_rate
from experiments.plot_rd import PUBLISHED

CURVES = {curve["codec"]: bd_rate.curve_of(curve) for curve in json.loads(PUBLISHED.read_text())["curves"]}

# bjontegaard 1.3.0 with require_matching_points=False, min_overlap=0, on the curves in published_kodak.json:
# (curve, anchor, method): (bd_rate in percent, bd_psnr in dB)
GOLDEN = {
    ("clic", "vtm", "pchip"): (-10.489270746562795, 0.49834730469429783),
    ("clic", "vtm", "akima"): (-10.526680760671415, 0.5025966190345955),
    ("clic", "vtm", "cubic"): (-10.671234975085465, 0.4643399049354477),
    ("bpg", "vtm", "pchip"): (21.98703079376323, -0.9774639047620559),
    ("bpg", "vtm", "akima"): (21.984539179105212, -0.9773719501062691),
    ("bpg", "vtm", "cubic"): (22.05029058476413, -0.9944185035654036),
    ("elic", "vtm", "pchip"): (-7.024177623787375, 0.32321198901639536),
    ("elic", "vtm", "akima"): (-7.06043012319908, 0.3270787842709401),
    ("elic", "vtm", "cubic"): (-7.165243665157151, 0.2914437131586842),
}


@pytest.mark.parametrize("curve, anchor, method", GOLDEN)
def test_as_the_bjontegaard_package(curve, anchor, method):
    rate, psnr = GOLDEN[curve, anchor, method]
    assert bd_rate.bd_rate(CURVES[curve], CURVES[anchor], method=method).value == pytest.approx(rate, abs=1e-6)
    assert bd_rate.bd_psnr(CURVES[curve], CURVES[anchor], method=method).value == pytest.approx(psnr, abs=1e-6)


@pytest.mark.parametrize("method", bd_rate.METHODS)
def test_of_scaled_and_shifted_curves(method):
    """80 % of the rate at every quality is -20 %; 1.5 dB more at every rate is 1.5 dB."""
    anchor = CURVES["vtm"]
    cheaper = bd_rate.Curve("cheaper", tuple(0.8 * bpp for bpp in anchor.bpp), anchor.quality)
    better = bd_rate.Curve("better", anchor.bpp, tuple(quality + 1.5 for quality in anchor.quality))
    found = bd_rate.bd_rate(cheaper, anchor, method=method)
    assert found.value == pytest.approx(-20, abs=1e-6)
    assert (found.low, found.high) == (anchor.quality[0], anchor.quality[-1])
    found = bd_rate.bd_psnr(better, anchor, method=method)
    assert found.value == pytest.approx(1.5, abs=1e-6)
    assert (found.low, found.high) == (anchor.bpp[0], anchor.bpp[-1])
    for difference in (bd_rate.bd_rate, bd_rate.bd_psnr):
        assert difference(anchor, anchor, method=method).value == pytest.approx(0, abs=1e-9)


def test_mean_over_the_overlap_only():
    """Straight in log rate, and twice the bits over the 2 dB that both have: what lies outside does not count."""
    anchor = bd_rate.Curve("anchor", (0.1, 0.2, 0.4, 0.8), (30.0, 31.0, 32.0, 33.0))
    curve = bd_rate.Curve("curve", (0.4, 0.8, 1.6, 2.4), (31.0, 32.0, 33.0, 34.0))
    found = bd_rate.bd_rate(curve, anchor, method="akima")
    assert (found.low, found.high) == (31.0, 33.0)
    assert found.value == pytest.approx(100, abs=2)  # the last point bends the curve a little


def test_within_a_range_of_rates():
    """The qualities that both curves have at these rates: the anchor's at the high end, the curve's at the low one."""
    curve, anchor = CURVES["clic"], CURVES["vtm"]
    within = bd_rate.bd_rate(curve, anchor, bpp_range=(0.2, 0.8))
    assert within.low == pytest.approx(30.8996, abs=1e-3) and within.high == pytest.approx(36.9052, abs=1e-3)
    wide = bd_rate.bd_rate(curve, anchor, bpp_range=(0.001, 50))
    assert wide.value == pytest.approx(bd_rate.bd_rate(curve, anchor).value, abs=1e-9)
    gain = bd_rate.bd_psnr(curve, anchor, bpp_range=(0.2, 0.8))
    assert (gain.low, gain.high) == (0.2, 0.8)


def test_curves_that_do_not_overlap():
    low = bd_rate.Curve("low", (0.1, 0.2), (20.0, 25.0))
    high = bd_rate.Curve("high", (0.3, 0.4), (26.0, 30.0))
    with pytest.raises(bd_rate.NoDifference, match="no BD-rate: low covers 20..25 and high covers 26..30, which"):
        bd_rate.bd_rate(low, high)
    with pytest.raises(bd_rate.NoDifference, match="no BD-PSNR: low covers 0.1..0.2 bpp and high covers 0.3..0.4 bpp"):
        bd_rate.bd_psnr(low, high)
    with pytest.raises(bd_rate.NoDifference, match="do not overlap between 5 and 6 bpp"):
        bd_rate.bd_rate(CURVES["vtm"], CURVES["clic"], bpp_range=(5, 6))


@pytest.mark.parametrize(
    "bpp, quality, method, words",
    [
        ((0.2,), (30.0,), "pchip", "odd has 1 points, and pchip needs 2"),
        ((0.2, 0.3, 0.4), (30.0, 31.0, 32.0), "cubic", "odd has 3 points, and cubic needs 4"),
        ((0.2, 0.3, 0.4), (30.0, 32.0, 31.0), "pchip", "quality of odd does not increase"),
        ((0.0, 0.3, 0.4), (30.0, 31.0, 32.0), "akima", "does not increase"),
    ],
)
def test_curves_that_cannot_be_followed(bpp, quality, method, words):
    odd = bd_rate.Curve("odd", bpp, quality)
    for pair in ((odd, CURVES["vtm"]), (CURVES["vtm"], odd)):
        with pytest.raises(bd_rate.NoDifference, match=words):
            bd_rate.bd_rate(*pair, method=method)
        with pytest.raises(bd_rate.NoDifference, match=words):
            bd_rate.bd_psnr(*pair, method=method)


def test_curve_of_results():
    """In the order of the rates, without points that lack a value."""
    result = {"name": "x", "results": {"bpp": [0.4, 0.1, 0.2], "psnr-rgb": [33.0, 30.0, None], "ms-ssim-rgb": []}}
    assert bd_rate.curve_of(result) == bd_rate.Curve("x", (0.1, 0.4), (30.0, 33.0))
    assert bd_rate.curve_of(result, "ms-ssim") == bd_rate.Curve("x", (), ())


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UserError, match=r"pip install '\.\[report\]'"):
        bd_rate.bd_rate(CURVES["clic"], CURVES["vtm"])
