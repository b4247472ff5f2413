"""`python -m experiments.poc` on folders of photographs: what is made, what is said, and what it refuses."""

import csv
import json
import re
import shlex
import types

import pytest
from PIL import Image

from clic_jax.errors import UserError
from experiments import poc
from experiments.adapt import halves
from experiments.report import results
from tests.conftest import photograph
from tests.measured import write_results

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install '.[report]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs with a space")
    for i, name in enumerate(["a.png", "sub/b.png"]):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(photograph(128, 128, i)).save(folder / name)
    return folder


def run(folder, out, model, *options) -> int:
    return poc.main([str(folder), "--out", str(out), "--model", str(model), "--images", "1", *options])


def test_everything_is_made_and_kept(folder, published_micro, tmp_path, capsys):
    """Files, their figures against each other, and a second run that measures nothing again."""
    out = tmp_path / "out"
    assert run(folder, out, published_micro, "--codecs", "jpeg,webp") == 0
    said = capsys.readouterr().out
    made = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert made >= {"report.html", "verdict.txt", "per_image.csv", "rd_psnr.png", "rd_psnr.svg", "bd_rate_psnr.md"}
    text = (out / "verdict.txt").read_text()
    assert said.endswith(text) and "Measured on 2 images" in text
    ours, others = results.choose(results.read(out / "results"), None)
    rows = list(csv.DictReader((out / "per_image.csv").open()))
    assert [row["image"] for row in rows] == ["a.png", "sub/b.png"]
    assert [other.codec for other in others] == ["jpeg", "webp"]
    for other in others:
        comparison = results.compare(ours, other)
        assert f"{abs(comparison.rate.value):.1f}\u00a0%" in text
        for row in rows:
            rate = comparison.images[row["image"]]
            assert row[f"bd_rate_vs_{other.codec}"] == f"{rate:.2f}"
            assert (other.codec in row["loses_to"].split()) == (rate > 0)
    before = {path.name: path.read_bytes() for path in (out / "results").glob("*.json")}
    assert run(folder, out, published_micro, "--codecs", "jpeg,webp") == 0
    assert before == {path.name: path.read_bytes() for path in (out / "results").glob("*.json")}  # the seconds too


def test_missing_codec_is_marked_and_the_rest_goes_on(folder, published_micro, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("clic_jax.files.classical.features.check", lambda name: name != "avif")
    assert run(folder, tmp_path / "out", published_micro, "--codecs", "jpeg,avif") == 1
    caught = capsys.readouterr()
    assert "the codec avif is not installed" in caught.err and "JPEG" in caught.out and "AVIF" not in caught.out


def test_folders_that_cannot_be_measured(published_micro, tmp_path):
    def error(folder):
        with pytest.raises(UserError) as caught:
            run(folder, tmp_path / "out", published_micro)
        assert not (tmp_path / "out").exists() and "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "has no images that Pillow can read" in error(tmp_path / "empty")
    assert "no such folder" in error(tmp_path / "nowhere")
    (tmp_path / "mixed").mkdir()
    Image.fromarray(photograph(64, 64)).save(tmp_path / "mixed" / "good.png")
    for name in ("bad.png", "worse.jpg"):
        (tmp_path / "mixed" / name).write_bytes(b"no picture")
    text = error(tmp_path / "mixed")
    assert "2 of 3 images" in text and "bad.png: not an image" in text and "worse.jpg" in text and "good" not in text


def compared(tmp_path, shifts, **more):
    """(ours, comparisons) of made-up results; a shift of -4 is half the bits of ours."""
    write_results(tmp_path, "mine", 0, model_id="12345678", **more)
    for codec, shift in shifts.items():
        write_results(tmp_path, codec, shift, **more)
    ours, others = results.choose(results.read(tmp_path), None)
    return ours, [results.compare(ours, other) for other in others]


def test_verdict_in_plain_words(tmp_path):
    ours, comparisons = compared(tmp_path, {"jpeg": 4, "avif": -4}, names=["a.png", "b.png", "c.png"])
    text = "\n".join(poc.verdict(ours, comparisons, {"jpeg": -49.0, "avif": 60.0})).replace("\u00a0", " ")
    assert "Measured on 3 images" in text and "first impression" in text
    assert "MINE saves 50.0 % of the bits of JPEG" in text and "JPEG: MINE needs more bits on 0 of 3 images" in text
    assert "MINE loses to AVIF: it needs 100.0 % more bits" in text
    assert "AVIF: MINE needs more bits on 3 of 3 images" in text and "a.png (100.0 % more bits)" in text
    assert text.count("domain shift") == 1  # against AVIF, 40 points worse than on photographs


def test_verdict_of_one_image_and_of_curves_apart(tmp_path):
    ours, comparisons = compared(tmp_path, {}, names=["a.png"])
    assert "proves little" in poc.verdict(ours, comparisons, {})[0]
    write_results(tmp_path, "jpeg", 0, names=["a.png"], low=70.0)
    lines = poc.verdict(ours, [results.compare(ours, results.read(tmp_path)[1])], {})
    assert "cannot be compared" in lines[1] and "do not overlap" in lines[1] and not re.search(r"\d\s%", lines[1])


@pytest.mark.parametrize("psnr", [None, 25.0])
def test_images_that_were_compressed_before(tmp_path, psnr):
    """Unchanged (null), or worse with more bits: compared up to there, with a line that says what is going on."""
    compared(tmp_path, {"jpeg": 4})
    content = json.loads((tmp_path / "jpeg.json").read_text())
    content["per_image"][2]["psnr-rgb"] = psnr
    (tmp_path / "jpeg.json").write_text(json.dumps(content))
    ours, theirs = results.read(tmp_path)
    text = "\n".join(poc.verdict(ours, [results.compare(ours, theirs)], {}))
    assert "On 1 of 2 images the quality of JPEG does not rise" in text and "0 of 2 images" in text
    assert results.compare(ours, theirs).images["a.png"] == pytest.approx(-50)


def test_advice_is_a_command_that_runs(folder, tmp_path, monkeypatch):
    """It parses, and names another place than this measurement's; with too few images it says what is missing."""
    args = types.SimpleNamespace(folder=folder, model="clic-compact", out=tmp_path / "poc")
    ours, comparisons = compared(tmp_path, {"avif": -4})
    pictures = halves.look(folder)
    assert [picture[:2] for picture in pictures.values()] == [(128, 128)] * 2
    assert "takes 4 at least" in poc.advice(args, comparisons, pictures)[0]
    enough = {f"{i}.png": halves.Picture(128, 128, str(i)) for i in range(4)}
    program, *arguments = shlex.split(poc.advice(args, comparisons, enough)[-1])[2:]
    asked = []
    monkeypatch.setattr(poc.halves, "look", lambda given: enough)
    monkeypatch.setattr(poc.adapt, "adapt", lambda parsed, *_: asked.append(parsed) or (2, None, None))
    assert program == "experiments.poc" and poc.main(arguments) == 2
    assert (asked[0].folder, asked[0].model, asked[0].adapt) == (folder, "clic-compact", poc.ADVISED)
    assert asked[0].out == tmp_path / "poc-adapted"
    won = compared(tmp_path / "won", {"jpeg": 4})[1]
    assert "not needed" in poc.advice(args, won, enough)[0]
