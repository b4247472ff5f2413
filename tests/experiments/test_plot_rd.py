"""`python -m experiments.plot_rd`: the table against known BD-rates, the charts as files, and results it refuses."""

import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from experiments import plot_rd
from tests.conftest import ROOT

KODAK_NAMES = {f"{name}.png": "00000000" for name in sorted(plot_rd.KODAK)}


def write(folder, stem, name, factor=1.0, gain=0.0, images=KODAK_NAMES, **more):
    """A results file: the published VTM curve at that factor of its rates, with so many dB more."""
    vtm = next(c for c in json.loads(plot_rd.PUBLISHED.read_text())["curves"] if c["codec"] == "vtm")["results"]
    results = {
        "bpp": [factor * bpp for bpp in vtm["bpp"]],
        "psnr-rgb": [psnr + gain for psnr in vtm["psnr-rgb"]],
        "ms-ssim-rgb-db": [value + gain for value in vtm["ms-ssim-rgb-db"]],
    }
    quality = list(range(len(vtm["bpp"])))
    folder.mkdir(exist_ok=True)
    content = {"name": name, "codec": stem, "quality": quality, "images": images, "results": results} | more
    (folder / f"{stem}.json").write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path):
    """JPEG at three times VTM's rate, ours at twice, and a codec whose qualities no other reaches."""
    write(tmp_path / "in", "jpeg", "JPEG", 3)
    write(tmp_path / "in", "ours", "ours", 2, model_id="12345678")
    write(tmp_path / "in", "far", "far", 1, 40)
    return tmp_path / "in"


def test_command(folder, tmp_path):
    """Two charts and a table; ours beside published curves, since these are results of Kodak."""
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-m", "experiments.plot_rd", str(folder), "--out", str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "bd_rate_psnr.md",
        "rd_psnr.png",
        "rd_psnr.svg",
    ]
    text = (tmp_path / "out" / "bd_rate_psnr.md").read_text()
    assert text in done.stdout and "Against JPEG, PSNR, pchip." in text
    assert "| ours | -33.3 % | 26.1..46.6 dB | +" in text
    assert "| VVC 4:4:4 (VTM), published | -66.7 % |" in text
    assert "| far | no BD-rate: far covers 66.14..86.59 and JPEG covers 26.14..46.59, which do not overlap |" in text
    assert text.index("(VTM)") < text.index("| ours") < text.index("| far")  # fewest bits first
    svg = ElementTree.parse(tmp_path / "out" / "rd_psnr.svg")
    words = {"".join(element.itertext()).strip() for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"ours", "JPEG", "CLIC (paper)", "VVC 4:4:4 (VTM)", "bits per pixel", "PSNR, dB"} <= words
    picture = np.asarray(Image.open(tmp_path / "out" / "rd_psnr.png").convert("RGB"))
    assert min(picture.shape[:2]) > 500
    for color in (plot_rd.OURS[0], plot_rd.REST[0]):  # both kinds of curve are there
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (picture == rgb).all(-1).sum() > 500


@pytest.mark.parametrize("anchor, expected", [("vtm", "+100.0 %"), ("jpeg", "-33.3 %"), ("far", "no BD-rate")])
def test_any_anchor(folder, anchor, expected):
    results = plot_rd.load([str(folder)])
    for metric in ("psnr", "ms-ssim"):
        for method in ("pchip", "akima"):
            assert f"| ours | {expected}" in plot_rd.table(results, anchor, metric, method)


def test_between_two_rates(folder):
    text = plot_rd.table(plot_rd.load([str(folder)]), "jpeg", "psnr", "pchip", (0.3, 0.9))
    assert "between 0.3 and 0.9 bpp" in text and "0.30..0.90 bpp" in text


def test_published_curves_are_of_kodak_only(folder):
    assert {"vtm", "clic", "bpg", "elic", "mbt2018"} <= plot_rd.load([str(folder)]).keys()
    for path in folder.glob("*.json"):
        path.write_text(path.read_text().replace("kodim", "photo"))
    assert plot_rd.load([str(folder)]).keys() == {"jpeg", "ours", "far"}


def test_same_name_in_two_folders(folder, tmp_path):
    write(tmp_path / "later", "ours", "ours", 1.5, model_id="87654321")
    results = plot_rd.load([str(folder), str(tmp_path / "later")])
    assert {"in/ours", "later/ours", "jpeg"} <= results.keys()
    assert results["later/ours"]["name"] == "ours (later)"


def test_results_of_different_images(folder):
    write(folder, "other", "other", images=KODAK_NAMES | {"kodim07.png": "ffffffff"})
    with pytest.raises(plot_rd.PlotError, match="of different images"):
        plot_rd.load([str(folder)])


def test_files_cost_more_than_estimates(folder):
    write(folder, "ours-estimate", "ours (estimate)", 1.9, model_id="12345678", estimate=True)
    text = plot_rd.estimates(plot_rd.load([str(folder)]))
    assert text.count("\n") == 10 and text.count("| +5.26 % |") == 8
    assert plot_rd.estimates({}) == ""


@pytest.mark.parametrize("content", ['{"name": "x"', "[]", '{"results": {}}'])
def test_file_that_holds_no_results(folder, content):
    (folder / "notes.json").write_text(content)
    with pytest.raises(plot_rd.PlotError, match="notes.json is no results file"):
        plot_rd.load([str(folder)])


def test_nothing_to_show(folder, tmp_path, monkeypatch):
    with pytest.raises(plot_rd.PlotError, match="no results in .*rd_eval"):
        plot_rd.load([str(tmp_path / "nowhere")])
    with pytest.raises(plot_rd.PlotError, match="no results of 'webp'.*one of far, jpeg, ours, clic"):
        plot_rd.main([str(folder), "--anchor", "webp", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(plot_rd.PlotError, match=r"pip install '\.\[report\]'"):
        plot_rd.draw(plot_rd.load([str(folder)]), "psnr", "png")
