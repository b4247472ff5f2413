"""`python -m experiments.rd_eval`: what it measures against direct calls, and what it writes.

Bad input and resuming are in test_rd_eval_errors.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

import clic_jax
from clic_jax import metrics
from clic_jax.checkpoints import installed
from experiments import bd_rate, plot_rd
from experiments.rd_eval import __main__ as rd_eval
from experiments.rd_eval import codecs, results
from tests.conftest import QUICK_COMPILER, ROOT, photograph

RESULTS = ROOT / "experiments" / "results" / "kodak"
SETTINGS = {  # in measured_kodak.json
    "jpeg": "jpeg_444",
    "webp": "webp_m6",
    "avif": "avif_444_s6_psnr",
    "jpeg2000": "jpeg2000",
    "jpegxl": "jxl_e7",
    "hevc": "hevc_x265_444_10b",
    "vvc": "vvc_vvenc_420_medium",
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> dict[str, np.ndarray]:
    """Two images, one of them below a folder; `photographs["folder"]` is where they are."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "more").mkdir()
    found = {"a.png": photograph(176, 192), "more/b.png": photograph(192, 176, 1)}
    for name, x in found.items():
        Image.fromarray(x).save(folder / name)
    return found | {"folder": folder}


def run(*arguments) -> int:
    return rd_eval.main([str(argument) for argument in arguments])


def test_classical_codecs(photographs, tmp_path, tmp_path_factory):
    """Rows are of files that the codec itself makes; the curve is their mean; the keys are those of the schema."""
    data, elsewhere = photographs["folder"], tmp_path_factory.mktemp("elsewhere")
    options = ("--qualities", 20, 60, "--metric", "psnr,ms-ssim,ssimulacra2")
    assert run("--data", data, "--codecs", "jpeg,webp", *options, "--out", tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jpeg.json", "webp.json"]
    for name in ("jpeg", "webp"):
        result = json.loads((tmp_path / f"{name}.json").read_text())
        assert result["codec"] == name and result["quality"] == [20, 60] and result["data"] == str(data)
        assert result["model_id"] is None and result["estimate"] is False
        assert result["versions"] == {"encoder": codecs.CODECS[name].version()}
        assert [(row["name"], row["quality"]) for row in result["per_image"]] == [
            (image, quality) for image in ("a.png", "more/b.png") for quality in (20, 60)
        ]
        for row in result["per_image"]:
            x = photographs[row["name"]]
            content = codecs.CODECS[name].encode(x, row["quality"])
            x_hat = codecs.CODECS[name].decode(content)
            assert (row["height"], row["width"]) == x.shape[:2]
            assert row["bytes"] == len(content) and row["bpp"] == 8 * len(content) / (176 * 192)
            assert row["psnr-rgb"] == pytest.approx(metrics.psnr(x, x_hat), abs=1e-9)
            assert row["ms-ssim-rgb"] == pytest.approx(metrics.ms_ssim(x, x_hat), abs=1e-9)  # float64, compiled or not
            for file, pixels in (("x.png", x), ("x_hat.png", x_hat)):
                Image.fromarray(pixels).save(elsewhere / file)
            assert row["ssimulacra2"] == compute_ssimulacra2(elsewhere / "x.png", elsewhere / "x_hat.png") < 100
            assert row["encoding_time"] > 0 and row["decoding_time"] > 0
        for key in results.MEANS:
            rows = [[row[key] for row in result["per_image"] if row["quality"] == q] for q in (20, 60)]
            assert result["results"][key] == pytest.approx(np.mean(rows, 1))
        decibels = -10 * np.log10(1 - np.array(result["results"]["ms-ssim-rgb"]))
        assert result["results"]["ms-ssim-rgb-db"] == pytest.approx(decibels)


def test_effort(photographs, published_micro, tmp_path):
    """Files of their own name and encoder's effort, beside those of the same model without it."""
    common = ("--data", photographs["folder"], "--model", published_micro, "--qualities", 50, "--metric", "psnr")
    assert run(*common, "--out", tmp_path) == run(*common, "--effort", 2, "--out", tmp_path) == 0
    plain, refined = (json.loads((tmp_path / f"micro{end}.json").read_text()) for end in ("", "-effort2"))
    assert refined["name"] == "micro, effort 2" and "of effort 2" in refined["description"]
    assert refined["model_id"] == plain["model_id"]
    assert len(plain["per_image"]) == 2
    for row, other in zip(refined["per_image"], plain["per_image"], strict=True):
        data = clic_jax.compress(photographs[row["name"]], model=published_micro, effort=2)
        assert row["bytes"] == len(data) and (row["bytes"], row["psnr-rgb"]) != (other["bytes"], other["psnr-rgb"])


def test_runtime(photographs, tmp_path):
    """Files of the runtime that is asked for, under its name."""
    common = ("--data", f"folder:{photographs['folder']}", "--model", "clic-tiny", "--qualities", 50)
    assert run(*common, "--metric", "psnr", "--runtime", "onnx", "--out", tmp_path) == 0
    result = json.loads((tmp_path / "clic-tiny-onnx.json").read_text())
    assert result["name"] == "clic-tiny, onnx" and "onnxruntime" in result["versions"]
    for row in result["per_image"]:
        x = photographs[row["name"]]
        data = clic_jax.compress(x, model="clic-tiny", runtime="onnx")
        assert row["bytes"] == len(data)
        assert row["psnr-rgb"] == pytest.approx(metrics.psnr(x, clic_jax.decompress(data, runtime="onnx")), abs=1e-9)


def test_a_model_with_a_fallback(photographs, published_micro, tmp_path):
    """Files of their own name, whose rows say which codec was kept."""
    common = ("--data", photographs["folder"], "--model", published_micro, "--metric", "psnr", "--out", tmp_path)
    assert run(*common, "--qualities", 1, 100) == run(*common, "--qualities", 1, 100, "--fallback", "webp") == 0
    plain, result = (json.loads((tmp_path / f"micro{end}.json").read_text()) for end in ("", "-fallback-webp"))
    assert result["name"] == "micro, with fallback webp" and "lossless WebP" in result["description"]
    assert "webp" in result["versions"]["fallback"] and "fallback" not in plain["versions"]
    assert not any("kept" in row for row in plain["per_image"])
    for row, other in zip(result["per_image"], plain["per_image"], strict=True):
        assert row["kept"] in ("model", "webp", "lossless webp") and row["psnr-rgb"] >= other["psnr-rgb"]
        assert row["bytes"] < other["bytes"] or (row["kept"], row["bytes"]) == ("model", other["bytes"])
    with pytest.raises(rd_eval.ArgumentsError, match="--fallback chooses among files"):
        run(*common, "--fallback", "webp", "--estimate")


def test_a_model_from_files_and_estimated(photographs, published_micro, tmp_path):
    """A rate is the length of a .clic file; an estimate says so, in a file of its own, and is near."""
    common = ("--data", photographs["folder"], "--model", published_micro, "--qualities", 50, "--out", tmp_path)
    assert run(*common) == 0
    assert run(*common, "--estimate", "--metric", "psnr") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["micro-estimate.json", "micro.json"]
    files, estimate = (json.loads((tmp_path / f"micro{end}.json").read_text()) for end in ("", "-estimate"))
    assert len(files["per_image"]) == len(estimate["per_image"]) == 2
    for row in files["per_image"]:
        content = clic_jax.compress(photographs[row["name"]], quality=50, model=published_micro)
        assert row["bytes"] == len(content)
    assert files["model_id"] == estimate["model_id"] and not files["estimate"]
    assert estimate["estimate"] is True and "estimate" in estimate["name"] and "NOT of files" in estimate["protocol"]
    assert all(row["bytes"] is None and row["encoding_time"] is None for row in estimate["per_image"])
    assert estimate["results"]["ms-ssim-rgb"] == [None]
    assert estimate["results"]["bpp"] != files["results"]["bpp"]
    assert estimate["results"]["bpp"] == pytest.approx(files["results"]["bpp"], rel=0.2)
    text = plot_rd.estimates(plot_rd.load([str(tmp_path)]))
    assert f"| micro | 50 | {files['results']['bpp'][0]:.4f} | {estimate['results']['bpp'][0]:.4f} |" in text


def test_one_small_image(tmp_path, capsys):
    """Too small for MS-SSIM: said, null, and no failure. A lossless one has no PSNR that JSON can hold."""
    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 30), "grey").save(tmp_path / "in" / "grey.png")
    assert run("--data", tmp_path / "in", "--codecs", "jpeg2000", "--qualities", 20, "--out", tmp_path) == 0
    assert "grey.png too small for its five scales" in capsys.readouterr().err
    text = (tmp_path / "jpeg2000.json").read_text()
    result = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert result["results"]["ms-ssim-rgb"] == result["results"]["ms-ssim-rgb-db"] == [None]
    assert result["results"]["psnr-rgb"] == [None] and result["results"]["bpp"][0] > 0


@pytest.mark.parametrize(
    "options, models, names",
    [
        ([], [installed.DEFAULT_MODEL], ["jpeg", "webp", "avif", "jpeg2000"]),
        (["--codecs", ""], [installed.DEFAULT_MODEL], []),
        (["--codecs", "vvc, jpeg"], [], ["vvc", "jpeg"]),
        (["--model", "a", "b"], ["a", "b"], []),
        (["--model", "a", "--codecs", "jpeg"], ["a"], ["jpeg"]),
        (["--estimate"], [installed.DEFAULT_MODEL], []),
    ],
)
def test_what_is_measured_by_default(options, models, names):
    assert rd_eval.chosen(rd_eval.parse(["--data", "x", "--out", "y", *options])) == (models, names)


def test_several_processes_measure_the_same(photographs, tmp_path):
    command = [sys.executable, "-m", "experiments.rd_eval", "--data", str(photographs["folder"]), "--codecs", "webp"]
    command += ["--metric", "psnr", "--qualities", "10", "70", "--out"]
    environment = os.environ | {"XLA_FLAGS": QUICK_COMPILER, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    results = []
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        subprocess.run([*command, str(out), "--jobs", jobs], cwd=ROOT, env=environment, check=True, timeout=120)
        result = json.loads((out / "webp.json").read_text())
        assert result["jobs"] == int(jobs)
        results.append([{k: v for k, v in row.items() if "time" not in k} for row in result["per_image"]])
    assert results[0] == results[1] and len(results[0]) == 4


def close(result: dict, expected: list[dict]):
    """Asserts that points agree with those measured before by others, at the same qualities."""
    expected = {point["q"]: point for point in expected}
    assert result["quality"]
    points = zip(result["quality"], result["results"]["bpp"], result["results"]["psnr-rgb"], strict=True)
    for quality, bpp, psnr in points:
        assert bpp == pytest.approx(expected[quality]["bpp"], rel=0.01), quality
        assert psnr == pytest.approx(expected[quality]["psnr"], abs=0.05), quality


@pytest.mark.parametrize("name", SETTINGS)
def test_our_kodak_results_agree_with_earlier_ones(name, shared):
    """1 % of the rate, 0.05 dB, and half a point of BD-rate against published VTM and against JPEG."""
    measured = json.loads((shared / "anchors" / "measured_kodak.json").read_text())
    result, jpeg = (json.loads((RESULTS / f"{codec}.json").read_text()) for codec in (name, "jpeg"))
    assert sorted(result["quality"]) == sorted(point["q"] for point in measured[SETTINGS[name]])
    close(result, measured[SETTINGS[name]])
    points = sorted((point["bpp"], point["psnr"]) for point in measured[SETTINGS[name]])
    before, now = bd_rate.Curve(name, *zip(*points)), bd_rate.curve_of(result)
    vtm = next(c for c in json.loads(plot_rd.PUBLISHED.read_text())["curves"] if c["codec"] == "vtm")
    for anchor in (bd_rate.curve_of(vtm), bd_rate.curve_of(jpeg)):
        assert bd_rate.bd_rate(now, anchor).value == pytest.approx(bd_rate.bd_rate(before, anchor).value, abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_kodak(name, shared, tmp_path):
    """The tool itself on all 24 images, at the smallest quality of each codec."""
    try:
        codec = codecs.open_codec(name)
    except codecs.MissingCodec as error:
        pytest.skip(str(error))
    data: Path = shared / "data" / "kodak"
    quality = codec.qualities[0]
    assert run("--data", data, "--codecs", name, "--metric", "psnr", "--qualities", quality, "--out", tmp_path) == 0
    measured = json.loads((shared / "anchors" / "measured_kodak.json").read_text())
    close(json.loads((tmp_path / f"{name}.json").read_text()), measured[SETTINGS[name]])
