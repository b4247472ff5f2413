"""The portability matrix: small here and now, and what the whole one has found."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from clic_jax.errors import UserError
from experiments.portability import __main__ as portability
from experiments.portability.worker import FloatContext, in_fours
from tests.conftest import ROOT, photograph
from tests.micro import MICRO

SETTINGS = {  # several of the matrix's at once
    "default": {},
    "old processor, unoptimised, batch of 4": {
        "batch": 4,
        "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2 --xla_backend_optimization_level=0",
    },
    "no jit, float64, one thread": {"JAX_DISABLE_JIT": "1", "JAX_ENABLE_X64": "1", "processors": 1},
}


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_small_matrix(published_micro, tmp_path, count):
    """Files of a size that needs padding, settings that change float results, a control that can read its own files."""
    photographs = {"wide": photograph(65, 129)}
    chosen = dict(list(SETTINGS.items())[:count])
    result = portability.run_matrix(tmp_path, chosen, str(published_micro), photographs, [50])
    noise = [setting["float_noise"] for setting in result["settings"].values()]
    assert set(noise[0].values()) == {0} and all(max(n.values()) > 0 for n in noise[1:])
    integer = result["integer"]
    assert integer["decodes"] == integer["latents_identical"] == count**2 and integer["failed"] == 0
    assert integer["largest_pixel_difference"] <= 1
    control = result["float"]
    assert control["decodes"] == count**2 and control["latents_identical"] >= count
    between = control["failed_share_between_settings"] * (count**2 - count)
    assert control["failed"] == pytest.approx(between)  # so that nobody fails on files of its own


def test_four_at_a_time_gives_the_first():
    """Whatever the other three are: to float precision here; the integer networks' equality is the matrix's claim."""
    from tests.model.test_clic import random_params

    config = MICRO.model
    params, rng = random_params(config), np.random.default_rng(0)
    one, four = (kind(config, params, None) for kind in (FloatContext, in_fours(FloatContext)))
    z_hat = rng.integers(-3, 4, (1, 2, 3, config.hyper_layers[-1][0])).astype(np.int32)
    anchors = rng.integers(-300, 300, (1, 8, 6, config.groups[0])).astype(np.int32)

    def run(networks):
        features = networks.features(z_hat)
        halves = networks.support(0, [], features)[:, :, :6]
        return [features, *networks.distribution(0, networks.neighbours(0, anchors), halves)]

    for a, b in zip(run(one), run(four), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1.01)  # in 1/64 and 1/256


def test_summary_counts():
    row = {"kind": "integer", "file": "a", "writer": "x", "latents": True}
    good = row | {"reader": "x", "error": None, "largest": 1, "differ": 3, "samples": 12}
    bad = row | {"reader": "y", "error": "Desync", "latents": False}
    found = portability.summary([good, bad, bad | {"file": "b"}, good | {"kind": "float"}], "integer")
    assert (found["decodes"], found["failed"], found["files"], found["files_that_fail_somewhere"]) == (3, 2, 2, 2)
    assert found["failed_share_between_settings"] == 1 and found["latents_identical"] == 1
    assert found["failed_by_writer_and_reader"] == {"x": {"y": 2}} and found["errors"] == {"Desync": 2}
    assert found["share_of_samples_that_differ"] == 0.25 and found["largest_pixel_difference"] == 1


def test_an_interpreter_without_jax_is_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.portability", "--out", str(tmp_path / "x.json"), "--python", "/none"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1
    assert "error: --python /none: no interpreter that has jax" in run.stderr


def test_a_process_that_fails_is_named(published_micro, tmp_path):
    settings = {"odd": {"XLA_FLAGS": "--no_such_flag=1"}}
    with pytest.raises(UserError, match="'odd' cannot write files: .*no_such_flag"):
        portability.run_matrix(tmp_path, settings, str(published_micro), {"x": photograph(64, 64)}, [50])


def test_committed_result():
    """What we say of it: every integer-coded file has decoded alike, and the control has failed."""
    result = json.loads((ROOT / "experiments" / "results" / "portability.json").read_text())
    integer, control, settings = result["integer"], result["float"], result["settings"]
    assert settings.keys() >= portability.SETTINGS.keys()
    pictures, with_jax = (
        len(result["photographs"]) * len(result["qualities"]),
        settings.keys() - portability.ONNX.keys(),
    )
    files = len(settings) ** 2 * pictures
    assert len(settings) == len(with_jax) + 2 and control["decodes"] == len(with_jax) ** 2 * pictures
    assert integer["decodes"] == integer["latents_identical"] == files and integer["failed"] == 0
    assert integer["largest_pixel_difference"] <= 1
    assert control["failed"] > 0 and control["latents_identical"] < control["decodes"]
    claim = f"{files:,} decodes between {len(settings)} settings"
    pages = [" ".join(page.read_text().split()) for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    (told,) = (page[page.index(claim) :][:200] for page in pages if claim in page)
    assert "all gave identical latents" in told and f" {control['failed']} failed" in told
    assert control["failed"] == sum(sum(row.values()) for row in control["failed_by_writer_and_reader"].values())


def test_committed_result_of_the_oldest_and_the_newest():
    """Whatever versions of jax we allow, files of both ends decode alike."""
    result = json.loads((ROOT / "experiments" / "results" / "portability_versions.json").read_text())
    integer, settings = result["integer"], result["settings"]
    files = len(settings) ** 2 * len(result["photographs"]) * len(result["qualities"])
    assert integer["decodes"] == integer["latents_identical"] == files and integer["failed"] == 0
    assert integer["largest_pixel_difference"] <= 1 and result["float"]["failed"] > 0
    required = re.search(r'"jax>=([\d.]+),<(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    found = {setting["jax"] for setting in settings.values()}
    assert required[1] in found, "the oldest"
    assert any(version.startswith(f"{required[2]}.{int(required[3]) - 1}.") for version in found), "the newest"
    quiet = {name for name, setting in settings.items() if not any(setting["float_noise"].values())}
    assert quiet <= {"default", "float64"}  # float64 makes no float32 result another
