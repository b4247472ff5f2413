"""The page's numbers against sums done by hand, what it refuses, and that it needs nothing but itself."""

import html.parser
import json
import re

import numpy as np
import pytest

from clic_jax import cli
from clic_jax.errors import UserError
from experiments.report import __main__ as report
from experiments.report import results
from tests.measured import RATES, write_results


@pytest.fixture
def folder(tmp_path):
    """Ours needs twice the bits of AVIF and half those of JPEG."""
    write_results(tmp_path / "in", "mine", 0, model_id="12345678")
    write_results(tmp_path / "in", "jpeg", 4)
    write_results(tmp_path / "in", "avif", -4)
    return tmp_path / "in"


def make(folder, *options) -> str:
    """The page without pictures."""
    assert report.main([str(folder), "--out", str(folder / "page.html"), "--images", "0", *options]) == 0
    return (folder / "page.html").read_text()


class Reader(html.parser.HTMLParser):
    """Tags with attributes, the page's text with single spaces, and the cells of its table rows by their heads."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.texts, self.rows, self.in_cell = [], [], [], False
        self.feed(page)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.texts.append(data)
        if self.in_cell:
            self.rows[-1][-1] += data

    def row(self, head: str, length: int) -> list[str]:
        """The cells after `head` in the last row that has so many."""
        return [row[1:] for row in self.rows if row and row[0] == head and len(row) == length + 1][-1]


def test_bd_rates_are_the_known_ones(folder):
    """Curves that are one curve shifted by a factor have that factor as their BD-rate."""
    page = Reader(make(folder))
    rate, psnr, overlap, lost = page.row("JPEG", 4)
    assert (rate, psnr, overlap, lost) == ("−50.0\u00a0%", "+4.00", "30.0–42.0", "0 of 2")
    rate, psnr, overlap, lost = page.row("AVIF", 4)
    assert (rate, psnr, overlap, lost) == ("+100.0\u00a0%", "−4.00", "30.0–42.0", "2 of 2")
    assert "100.0 % more bits than AVIF at equal PSNR: we lose" in page.text
    assert "AVIF: MINE needs more bits on 2 of 2 images" in page.text
    assert "a.png: 100.0 % more bits" in page.text
    points = [row[1:] for row in page.rows if row[0] == "JPEG" and len(row) == 7]
    assert points[1] == ["20", f"{2 * 1.05 * RATES[1]:.4f}", "34.00", f"{-10 * np.log10(0.08):.2f}", "0.300", "0.100"]


def test_bytes_and_money_by_hand(folder):
    """At 34 dB, which every codec was measured at, so that nothing is interpolated; the year month by month."""
    options = "--psnr 34 --pictures-per-month 3e6 --storage-price 0.5 --transfer-price 0.25 --downloads-per-picture 4"
    page = Reader(make(folder, *options.split(), "--compute-price", "2", "--currency", "EUR", "--megapixels", "6"))
    for codec, factor in (("MINE", 1.0), ("JPEG", 2.0), ("AVIF", 0.5)):
        bpp = np.mean([RATES[1] * factor, RATES[1] * factor * 1.1])
        gigabytes = bpp * 6e6 / 8 * 1e6 / 1e9
        seconds = 0.3 * 6e6 / (300 * 400)
        hours = seconds * 1e6 / 3600
        year, stored = 0.0, 0.0
        for _ in range(12):
            stored += 3 * gigabytes
            year += stored * 0.5 + 3 * gigabytes * 4 * 0.25 + 3 * hours * 2
        expected = [gigabytes, gigabytes * 0.5, gigabytes * 4 * 0.25, hours, hours * 2, year]
        assert page.row(codec, 6) == [f"{n:,.2f}" if n < 100 else f"{n:,.0f}" for n in expected]
    less = 6e6 / 8 * RATES[1] * 1.05 * 1e6 / 1e9
    assert f"Against JPEG we save {less:,.1f} GB per million pictures (50 %) and" in page.text
    assert f"We lose to AVIF: {less / 2:,.1f} GB per million pictures (100 %) more, and" in page.text
    for assumption in ("34 dB (as you asked)", "6 megapixels", "0.5 EUR per GB and month", "3,000,000 new pictures"):
        assert assumption in page.text
    assert "4 times in all" in page.text and "2 EUR per machine hour" in page.text


def test_default_quality_is_in_the_middle_of_what_all_reach(folder):
    write_results(folder, "webp", 0, low=34.0)
    assert "mean RGB PSNR of 38 dB (the middle of what all codecs reach" in Reader(make(folder)).text


def test_slower_encoding_can_eat_the_saving(folder):
    write_results(folder, "webp", 0.5)
    content = json.loads((folder / "webp.json").read_text())
    content["results"]["encoding_time"] = [0.001] * 4
    (folder / "webp.json").write_text(json.dumps(content))
    text = Reader(make(folder, "--compute-price", "100")).text
    assert re.search(r"Against WEBP we save .* but the first year costs .* more, as encoding takes longer", text)


def test_curves_that_do_not_overlap(folder, capsys):
    """No BD-rate is printed, but why; and no size, as nothing was measured there."""
    write_results(folder, "webp", 0, low=60.0)
    page = Reader(make(folder))
    (cell, lost) = page.row("WEBP", 2)
    assert "overlap" in cell and lost == "–" and not re.search(r"\d\s%", cell)
    assert page.row("WEBP", 1) == ["not measured at 36 dB"]
    assert "WEBP: no image has curves that can be compared" in page.text
    assert "MINE and WEBP cannot be compared" in capsys.readouterr().out


def test_one_image_proves_little(tmp_path):
    write_results(tmp_path, "mine", 0, model_id="12345678", names=["a.png"])
    page = Reader(make(tmp_path))
    assert "one image only, which proves little" in page.text and "nothing to compare with" in page.text


def test_lossless_points_are_left_out(folder):
    """rd_eval writes null where an image came back unchanged."""
    content = json.loads((folder / "jpeg.json").read_text())
    content["results"]["psnr-rgb"][3] = None
    content["per_image"][3]["psnr-rgb"] = None
    (folder / "jpeg.json").write_text(json.dumps(content))
    assert Reader(make(folder)).row("JPEG", 4)[0] == "−50.0\u00a0%"
    assert len(results.read(folder)[1].bpp) == 3


def test_page_is_self_contained(folder):
    page = make(folder)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page.replace("// ", ""))
    reader = Reader(page)
    assert "default-src 'none'" in next(a["content"] for t, a in reader.tags if "http-equiv" in a)
    for tag, attributes in reader.tags:
        assert tag not in ("iframe", "object", "embed", "base")
        for key in ("src", "href", "srcset", "action", "poster"):
            assert attributes.get(key, "data:").startswith("data:")
    assert page.count("<script") == 1 and len(page) < 200_000


def test_names_are_escaped(tmp_path):
    name = """<img src=x onerror=alert(1)>&amp;"'.png"""
    write_results(tmp_path, "mine", 4, model_id="12345678", names=[name], **{"name": "<b>&\"'mine"})
    write_results(tmp_path, "jpeg", 0, names=[name], description="</style><script>alert(2)</script>")
    page = Reader(make(tmp_path, "--currency", "<i>$&"))
    tags = [tag for tag, _ in page.tags]
    assert not {"img", "i"} & set(tags) and tags.count("script") == tags.count("b") == 1  # that of "100 % more bits"
    assert f"{name}: 100.0" in page.text and "<b>&\"'mine" in page.text and "<i>$&" in page.text


@pytest.mark.parametrize(
    "options, text",
    [
        (["--psnr", "50"], "MINE was not measured at 50 dB: choose --psnr from 30.0 to 42.0"),
        (["--codec", "jpeg"], "no results of a clic_jax model called 'jpeg' (mine)"),
        (["--images", "1", "--data", "."], "the weights 12345678 that were measured are not installed"),
    ],
)
def test_bad_options(folder, options, text):
    with pytest.raises(results.ReportError) as caught:
        report.main([str(folder), "--out", str(folder / "page.html"), "--images", "0", *options])
    assert text in str(caught.value) and not (folder / "page.html").exists()


def test_bad_results(folder, tmp_path):
    def error(where=folder):
        with pytest.raises(UserError) as caught:
            report.main([str(where), "--out", str(tmp_path / "page.html"), "--images", "0"])
        assert "\n" not in str(caught.value) and not (tmp_path / "page.html").exists()
        return str(caught.value)

    assert "no results in" in error(tmp_path / "nowhere")
    write_results(tmp_path / "estimates", "mine-estimate", 0, model_id="12345678", estimate=True)
    assert "has no results of files" in error(tmp_path / "estimates")
    write_results(folder, "other", 0, model_id="87654321")
    assert "--codec (mine, other)" in error()
    (folder / "other.json").unlink()
    write_results(folder, "webp", 0, names=["c.png"])
    assert "different images" in error()
    write_results(folder, "webp", 0, results={"bpp": [1.0]})
    assert "webp.json is incomplete (no 'psnr-rgb'): measure it again" in error()
    (folder / "webp.json").write_text('{"per_image": [')
    assert "webp.json is no results file" in error()
    (folder / "mine.json").unlink()
    (folder / "webp.json").unlink()
    assert "one clic_jax model to report on" in error()


def test_command_line_names_itself(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: report.main([str(tmp_path), "--out", str(tmp_path / "x.html")]), "experiments.report")
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"experiments.report: error: no results in {tmp_path}")


def test_photographs_that_are_gone(folder, capsys):
    """A page without pictures, and a line that says so; but a folder that was named must be there."""
    assert report.main([str(folder), "--out", str(folder / "page.html")]) == 0
    assert "name their folder with --data" in capsys.readouterr().err
    assert "not at hand" in (folder / "page.html").read_text()


def test_pictures_from_best_to_worst(folder):
    names = [f"{i}.png" for i in range(5)]
    for codec, more in (("mine", {"model_id": "12345678"}), ("jpeg", {}), ("avif", {})):
        write_results(folder, codec, 0, names=names, **more)
    content = json.loads((folder / "avif.json").read_text())
    for row in content["per_image"]:
        row["bpp"] *= {"0.png": 0.9, "1.png": 0.5, "2.png": 0.7, "3.png": 1.2, "4.png": 0.6}[row["name"]]
    (folder / "avif.json").write_text(json.dumps(content))
    ours, others = results.choose(results.read(folder), None)
    chosen = report._choose(ours, [results.compare(ours, other) for other in others], 3)
    assert list(chosen) == ["3.png", "2.png", "1.png"]
    assert chosen["3.png"] == "our best image against AVIF: 16.7\u00a0% fewer bits"
    assert chosen["1.png"] == "our worst image against AVIF: 100.0\u00a0% more bits"
