"""The account of parameters and multiply-accumulates, against hand counts and the published figures."""

import json

import jax
import jax.numpy as jnp
import pytest

from clic_jax import config
from experiments import complexity, experiment
from experiments.paths import CONFIGS


def test_counts_by_hand():
    """A product, a strided convolution, a transposed one (its inserted zeros not counted), and a depthwise one."""
    from clic_jax.model.layers import Conv, Deconv, Depthwise

    assert complexity.macs(lambda a, b: a @ b, jnp.zeros((5, 7)), jnp.zeros((7, 3))) == 5 * 7 * 3
    for module, channels, expected in (
        (Conv(6, 3, 2), 4, 4 * 4 * 6 * 4 * 9),
        (Deconv(6, 5, 2), 4, 8 * 8 * 6 * 4 * 25),
        (Depthwise(), 4, 8 * 8 * 4 * 9),
    ):
        x = jnp.zeros((1, 8, 8, channels))
        params = module.init(jax.random.key(0), x)
        assert complexity.macs(module.apply, params, x) == expected


def test_paper_as_published():
    """78,876,533 parameters less 384 unused quantiles; 432.9 and 441.5 kMAC a pixel; g_a and g_s to three decimals."""
    report = complexity.report(config.PAPER, 256, 256, memory=False)
    assert report["parameters"] == 78_876_149
    cost = report["kmac_per_pixel"]
    assert cost["as_published"]["encode"] == pytest.approx(432.9, abs=0.1)
    assert cost["as_published"]["decode"] == pytest.approx(441.5, abs=0.1)
    assert cost["parts"]["g_a"] == pytest.approx(294.744, abs=1e-3)
    assert cost["parts"]["g_s"] == pytest.approx(304.592, abs=1e-3)


@pytest.mark.parametrize(
    "name, parameters, encode, decode",
    [
        ("tiny", 2_992_824, 12.6, 12.6),
        ("compact", 3_803_736, 19.3, 19.3),
        (str(CONFIGS / "compact_detail.py"), 5_012_184, 23.3, 23.3),
        ("small", 11_844_320, 60, 60),
        ("medium", 11_489_504, 56, 37),
    ],
)
def test_small_presets_cost_what_readme_says(name, parameters, encode, decode):
    report = complexity.report(experiment.named(name), 256, 256, memory=False)
    assert report["parameters"] == parameters
    assert report["kmac_per_pixel"]["encode"] == pytest.approx(encode, rel=0.01)
    assert report["kmac_per_pixel"]["decode"] == pytest.approx(decode, rel=0.01)


def test_command_line(capsys):
    assert complexity.main(["--preset", "tiny", "--size", "64x128", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["preset"] == "tiny" and report["size"] == [64, 128]
    cost = report["kmac_per_pixel"]
    assert cost["encode"] == pytest.approx(12.6169, abs=1e-4) and cost["decode"] == pytest.approx(12.5771, abs=1e-4)
    assert report["peak_activation_mib"] > 0
    with pytest.raises(config.ConfigError, match="there are paper, medium, small, compact, tiny"):
        complexity.main(["--preset", "huge"])
    with pytest.raises(SystemExit) as stop:
        complexity.main(["--size", "100x100"])
    assert stop.value.code == 2
