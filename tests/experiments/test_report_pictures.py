"""The pictures of the page: the same size, the right crop, the very pixels; and the chart."""

import base64
import io
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from clic_jax import api, metrics
from experiments.rd_eval import codecs
from experiments.report import __main__ as report
from experiments.report import pictures, results
from experiments.report.chart import Line, chart
from experiments.report.pictures import Picture, Version
from tests.conftest import photograph
from tests.experiments.test_report import Reader
from tests.measured import write_results


@pytest.mark.parametrize("size", [2500, 6000, 20000])
@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_same_size_is_the_best_of_all_qualities(name, size):
    """Against trying every one; sizes of JPEG and WebP need not rise strictly, hence the two percent."""
    x = photograph(96, 128)
    codec = codecs.open_codec(name)
    quality, coded = pictures.same_size(codec, x, size)
    sizes = [len(codec.encode(x, q)) for q in range(int(codec.limits[0]), 101)]
    assert len(coded) == sizes[quality - int(codec.limits[0])] <= size
    assert len(coded) >= 0.98 * max(s for s in sizes if s <= size)


def test_same_size_where_nothing_fits():
    quality, coded = pictures.same_size(codecs.open_codec("jpeg"), photograph(96, 128), 10)
    assert quality == 1 and len(coded) > 10


@pytest.mark.parametrize("shape", [(20, 31), (8, 40), (5, 6)])
def test_detail_against_every_place(shape):
    x = np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)
    x[:, : shape[1] // 2] //= 4
    rows, columns = pictures.detail(x, 8)
    grey = x.astype(int).sum(-1)
    change = np.zeros(shape, int)
    for i in range(shape[0]):
        for j in range(shape[1]):
            change[i, j] = abs(grey[i, j] - grey[i - 1, j]) * (i > 0) + abs(grey[i, j] - grey[i, j - 1]) * (j > 0)
    height, width = min(8, shape[0]), min(8, shape[1])
    sums = {
        (i, j): change[i : i + height, j : j + width].sum()
        for i in range(shape[0] - height + 1)
        for j in range(shape[1] - width + 1)
    }
    assert (rows.stop - rows.start, columns.stop - columns.start) == (height, width)
    assert sums[rows.start, columns.start] == max(sums.values())


def decoded(uri: str) -> np.ndarray:
    """The pixels of a data: URI."""
    kind, _, content = uri.partition(";base64,")
    assert kind == "data:image/webp"
    return np.array(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def test_embedded_pixels_are_the_pixels():
    """Lossless, all versions at the same place, and smaller crops where the page would grow too large."""
    x = photograph(600, 700)
    y = 255 - x
    picture = Picture("a", "", [Version("original", "", x, "", None, None), Version("ours", "", y, "", 5, 30.0)])
    side, ((first, second),) = pictures.embedded([picture])
    place = pictures.detail(x, 512)
    assert side == 512 and np.array_equal(decoded(first), x[place]) and np.array_equal(decoded(second), y[place])
    size = len(first) + len(second)
    side, uris = pictures.embedded([picture], limit=size - 1)
    assert side < 512 and sum(map(len, uris[0])) < size
    assert decoded(uris[0][0]).shape == (side, side, 3)
    with pytest.raises(results.ReportError, match="ask for fewer with --images"):
        pictures.embedded([picture], limit=1000)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, published_micro):
    """Made-up results of two real photographs, whose pictures the micro model and JPEG make."""
    folder = tmp_path_factory.mktemp("measured")
    names, checks = ["a.png", "b <&\"'>.png"], {}
    (folder / "photographs").mkdir()
    for i, name in enumerate(names):
        x = photograph(300, 400, i)
        Image.fromarray(x).save(folder / "photographs" / name)
        checks[name] = f"{zlib.crc32(x.tobytes()):08x}"
    more = {"names": names, "images": checks, "data": str(folder / "photographs")}
    write_results(folder / "in", "micro", 1, model_id=api.open_model(published_micro).model_id, **more)
    write_results(folder / "in", "jpeg", 0, **more)
    options = ["--model", str(published_micro), "--compare", "jpeg", "--quality", "30"]
    assert report.main([str(folder / "in"), "--out", str(folder / "page.html"), *options]) == 0
    return folder


def test_bytes_and_psnr_are_those_of_the_files(measured, published_micro):
    page = Reader((measured / "page.html").read_text())
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["data-version"] for image in images] == ["original", "ours", "jpeg"] * 2
    for image in images[:3]:
        assert (image["width"], image["height"]) == ("400", "300")
    x = photograph(300, 400, 0)
    coded = api.compress(x, quality=30, model=published_micro)
    x_hat = api.decompress(coded, model=published_micro)
    which = next(i for i, image in enumerate(images[::3]) if image["alt"].endswith(": a.png"))
    original, ours, jpeg = images[3 * which : 3 * which + 3]
    assert np.array_equal(decoded(original["src"]), x) and np.array_equal(decoded(ours["src"]), x_hat)
    assert ours["data-label"] == f"MICRO, {len(coded):,} B"
    assert f"{len(coded):,} {metrics.psnr(x, x_hat):.2f}" in page.text
    size = int(re.fullmatch(r"JPEG 4:4:4, ([\d,]+) B", jpeg["data-label"])[1].replace(",", ""))
    assert 0.9 * len(coded) < size <= len(coded)
    assert f"{size:,} {metrics.psnr(x, decoded(jpeg['src'])):.2f}" in page.text
    assert any(attributes["alt"].endswith(": b <&\"'>.png") for attributes in images)


def test_other_pixels_than_were_measured(measured, published_micro, tmp_path):
    for name in ("a.png", "b <&\"'>.png"):
        Image.fromarray(photograph(300, 400, 7)).save(tmp_path / name)
    options = ["--model", str(published_micro), "--data", str(tmp_path)]
    with pytest.raises(results.ReportError, match="is not the image that was measured"):
        report.main([str(measured / "in"), "--out", str(tmp_path / "page.html"), *options])
    assert not (tmp_path / "page.html").exists()


def test_chart_places_points_and_keeps_names_apart():
    bpp = np.array([0.25, 0.5, 1.0])
    lines = [Line(f"codec {i}", i, bpp * (1 + 0.01 * i), np.array([30.0, 33.0, 36.0])) for i in range(6)]
    svg = chart(lines, "PSNR, dB", width=328)
    points = re.findall(r'class="point s0" transform="translate\(([\d.]+) ([\d.]+)\)"', svg)
    (x0, y0), (x1, y1), (x2, y2) = ([float(n) for n in point] for point in points)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert x0 < x1 and y0 > y1  # an octave of rate and 3 dB, the same distance each time
    places = sorted(float(y) for y in re.findall(r'class="label \w+" x="[\d.]+" y="([\d.]+)"', svg))
    assert len(places) == 6 and min(np.diff(places)) > 14.9
    ends = [float(x) + 7 * len("codec 0") for x in re.findall(r'class="label \w+" x="([\d.]+)"', svg)]
    assert max(ends) <= 328


def test_chart_of_one_point():
    assert chart([Line("a", 0, np.array([0.5]), np.array([30.0]))], "PSNR, dB", width=328).count('class="point') == 1


def test_chart_cuts_at_the_rates_of_ours():
    """A curve that goes on is cut where it leaves, on the straight line that is drawn."""
    ours = Line("ours", 0, np.array([0.5, 1.0]), np.array([30.0, 33.0]))
    wide = Line("wide", 1, np.array([0.01, 10.0]), np.array([20.0, 50.0]))
    svg = chart([ours, wide], "PSNR, dB", width=952)
    ends = re.findall(r'class="point s1" transform="translate\(([\d.]+) ([\d.]+)\)"', svg)
    left, right = (float(x) for x, _ in ends)
    (x0, _), (x1, _) = re.findall(r'class="point s0" transform="translate\(([\d.]+) ([\d.]+)\)"', svg)
    assert (float(x0) - left) == pytest.approx((float(x1) - float(x0)) / 2, rel=0.02)
    assert (right - float(x1)) == pytest.approx((float(x1) - float(x0)) / 2, rel=0.02)
