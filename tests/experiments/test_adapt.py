"""`python -m experiments.poc --adapt`: halves that share nothing, a run that is killed and goes on, what it refuses."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import clic_jax
from clic_jax.checkpoints import arrays, published
from clic_jax.errors import UserError
from clic_jax.light import export
from experiments import bd_rate, poc
from experiments.adapt import halves
from experiments.adapt import run as adapt
from experiments.report import results
from tests.conftest import QUICK_COMPILER, ROOT, photograph

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install '.[report]'")

MINUTES = 0.2
ONE_DEVICE = {"XLA_FLAGS": QUICK_COMPILER, "JAX_PLATFORMS": "cpu"}
# the command, looking at itself more often than a run of minutes has to, and measuring what it publishes on few pixels
COMMAND = """
from clic_jax.exchange import publish
from clic_jax.light import export
from experiments import cli, poc
from experiments.adapt import run

run.FEWEST_PIXELS = 0
publish.CALIBRATION_PIXELS = 2**16
export.possible = lambda: False  # converting takes longer than all the rest
run.FINE_TUNING |= {"save_every": 10, "log_every": 5}
cli.run(poc.main)
"""


def picture(path, seed, size=(64, 96)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photograph(*size, seed)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six different pictures, the second under another name as well."""
    folder = tmp_path_factory.mktemp("it's pictures")
    for i, name in enumerate(["a.png", "b.png", "c.png", "sub/d.png", "sub/e.png", "sub/f.png"]):
        picture(folder / name, i)
    picture(folder / "c again.png", 1)
    return folder


def command(folder, out, model, *more):
    options = [str(folder), "--out", str(out), "--model", str(model), "--codecs", "webp", "--images", "1"]
    return [*options, "--adapt", f"{MINUTES}", *more]


def contents(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def adapted(folder, published_micro, tmp_path_factory):
    """(out, what the end of it said) of the real command, killed in the middle of its training and started again."""
    out, before = tmp_path_factory.mktemp("adapted") / "out", contents(folder)
    line = [sys.executable, "-c", COMMAND, *command(folder, out, published_micro)]
    options = dict(cwd=ROOT, env=os.environ | ONE_DEVICE, text=True)
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    run, end = out / "micro-adapted", time.monotonic() + 240
    while not arrays.steps_in(run):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (run / "published").exists()
    done = subprocess.run(line, capture_output=True, **options)
    assert done.returncode == 0, done.stderr
    assert contents(folder) == before  # nothing of the user's is touched
    return out, done.stdout, done.stderr


def test_it_went_on_where_it_was_killed(adapted):
    out, _, told = adapted
    assert int(re.search(r"from step (\d+)", told)[1]) >= 1
    state = json.loads((out / "adapt.json").read_text())
    rows = [json.loads(line) for line in (out / "micro-adapted" / "metrics.jsonl").read_text().splitlines()]
    rates = [row["learning_rate"] for row in rows if "learning_rate" in row]
    assert state["steps"] == rows[-1]["step"] and state["spent_seconds"] >= state["train_seconds"] > 0
    assert (
        state["train_seconds"] < 60 * MINUTES + 20
    )  # the time of both runs, and what the last step and evaluation took
    assert rates[-1] < 0.5 * max(rates)  # it fell with the time


def test_the_new_weights_are_a_model_like_any_other(adapted, published_micro):
    new = adapted[0] / "micro-adapted" / "published"
    before, after = (published.load_published(path) for path in (published_micro, new))
    assert after[0].model == before[0].model and after[2] != before[2]
    x = photograph(64, 64, 9)
    data = clic_jax.compress(x, model=new, runtime="jax")
    assert np.abs(clic_jax.decompress(data, model=new).astype(int) - x).mean() < 40
    assert "not exported for the runtime onnx" in adapted[1]


@pytest.mark.slow
@pytest.mark.skipif(not export.possible(), reason="needs jax2onnx, see requirements.txt")
def test_the_new_weights_are_exported(folder, published_micro, tmp_path):
    line = [sys.executable, "-m", "experiments.poc", *command(folder, tmp_path / "out", published_micro)]
    done = subprocess.run(line, cwd=ROOT, env=os.environ | ONE_DEVICE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    new, x = tmp_path / "out" / "micro-adapted" / "published", photograph(64, 64, 9)
    data = clic_jax.compress(x, model=new, runtime="onnx")
    shown = [clic_jax.decompress(data, model=new, runtime=runtime).astype(int) for runtime in ("onnx", "jax")]
    assert np.abs(shown[0] - x).mean() < 40 and np.abs(shown[0] - shown[1]).max() <= 1
    about = json.loads((tmp_path / "out" / "before_after.json").read_text())
    assert about["weights_bytes"] < adapt.size(new)  # what the runtime onnx fetches


def test_before_and_after_are_of_the_other_half(adapted, folder, published_micro):
    out, said, _ = adapted
    told = json.loads((out / "before_after.json").read_text())
    parts = told["halves"]
    assert told["model"] == "micro" and told["model_id"] == published.load_published(published_micro)[2]
    # in the order of names a, b, c (again b), c.png, sub/d, sub/e, sub/f: equal pictures are one
    assert parts == {"train": ["a.png", "c.png"], "valid": ["sub/e.png"], "test": ["b.png", "sub/d.png", "sub/f.png"]}
    found = {r.codec: r for r in results.read(out / "results")}
    assert set(found) == {"micro", "micro-adapted", "webp"}
    assert all(result.names == parts["test"] for result in found.values())
    after, before = found["micro-adapted"].curve(), found["micro"].curve()
    assert told["bd_rate_after_against_before"] == pytest.approx(bd_rate.bd_rate(after, before).value, abs=0.01)
    webp = {"before": before, "after": after}
    for name, curve in webp.items():
        expected = bd_rate.bd_rate(curve, found["webp"].curve()).value
        assert told["bd_rate"]["webp"][name] == pytest.approx(expected, abs=0.01)
    text = (out / "verdict.txt").read_text()
    assert said.endswith(text) and text.startswith("Use the adapted" if told["worth"] else "Keep the weights of micro")
    page = (out / "report.html").read_text()
    assert "Before and after adapting" in page and "seen by no training: 3" in page and "sub/f.png" in page
    assert [row["image"] for row in csv.DictReader((out / "per_image.csv").open())] == parts["test"]
    assert sorted(p.name for p in (out / "split" / "train").rglob("*.png")) == ["a.png", "c.png"]
    valid = [np.asarray(Image.open(p)) for p in (out / "split" / "valid").iterdir()]
    assert len(valid) == 1 and valid[0].shape == (64, 64, 3)
    np.testing.assert_array_equal(valid[0], np.asarray(Image.open(folder / "sub/e.png"))[:, 16:80])


def test_a_finished_one_is_told_again_and_not_made_again(adapted, folder, published_micro, monkeypatch):
    out, said, _ = adapted
    monkeypatch.setattr(adapt.train, "main", None)
    kept = {name: (out / name).read_bytes() for name in ("adapt.json", "before_after.json", "verdict.txt")}
    assert poc.main(command(folder, out, published_micro)) == 0
    assert kept == {name: (out / name).read_bytes() for name in kept}
    prices = ["--decoders", "0", "--compute-price", "0"]
    assert poc.main(command(folder, out, published_micro, *prices)) == 0
    assert json.loads((out / "before_after.json").read_text())["assumptions"]["decoders"] == 0


@pytest.mark.parametrize("other", ["minutes", "model", "pictures", "damaged"])
def test_another_adaptation_is_refused(adapted, folder, published_micro, tmp_path, other):
    out, before = adapted[0], (adapted[0] / "adapt.json").read_bytes()
    line = command(folder, out, "clic-tiny" if other == "model" else published_micro)
    if other == "minutes":
        line += ["--adapt", "7"]
    if other == "pictures":
        for i in range(4):
            picture(tmp_path / f"{i}.png", 40 + i)
        line[0] = str(tmp_path)
    if other == "damaged":
        out = tmp_path / "out"
        out.mkdir()
        (out / "adapt.json").write_text("[]")
        line[2] = str(out)
    with pytest.raises(UserError, match="name another --out") as caught:
        poc.main(line)
    assert "\n" not in str(caught.value) and (adapted[0] / "adapt.json").read_bytes() == before


@pytest.mark.parametrize("where", ["there", "file", "among the pictures"])
def test_places_that_are_not_ours_are_left_alone(folder, published_micro, tmp_path, where):
    out = folder / "new" if where == "among the pictures" else tmp_path / "out"
    if where == "there":
        (out / "mine").mkdir(parents=True)
    if where == "file":
        out.write_text("mine")
    before = sorted(tmp_path.rglob("*")), contents(folder)
    with pytest.raises(UserError, match="name a"):
        poc.main(command(folder, out, published_micro))
    assert before == (sorted(tmp_path.rglob("*")), contents(folder))


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", None])
def test_minutes_that_are_none(folder, tmp_path, capsys, given):
    with pytest.raises(SystemExit) as stopped:
        poc.main([str(folder), "--out", str(tmp_path / "out"), "--adapt", *([given] if given else [])])
    error = capsys.readouterr().err.splitlines()[-1]
    assert stopped.value.code == 2 and "--adapt" in error and ("minutes above 0" in error or given is None)
    assert not (tmp_path / "out").exists()


def test_too_few_or_too_small_pictures(published_micro, tmp_path):
    def error(folder):
        with pytest.raises(UserError) as caught:
            poc.main(command(folder, tmp_path / "out", published_micro))
        assert not (tmp_path / "out").exists() and "\n" not in str(caught.value)
        return str(caught.value)

    for i in range(5):
        picture(tmp_path / "few" / f"{i}.png", min(i, 2))
    assert "few has 3 different pictures, and adapting takes 4 at least" in error(tmp_path / "few")
    for i in range(5):
        picture(tmp_path / "small" / f"{i}.png", i, size=(63, 200))
    assert "no picture of" in error(tmp_path / "small")


def test_a_model_for_another_metric(folder, tmp_path):
    with pytest.raises(UserError, match="made for MS-SSIM"):
        poc.main(command(folder, tmp_path / "out", "clic-compact-ms-ssim"))
    assert not (tmp_path / "out").exists()


@given(st.lists(st.tuples(st.text("ab/c", min_size=1), st.integers(0, 60)), min_size=4, max_size=80))
def test_halves_share_no_picture(named):
    """Whatever is equal to what: each pixel content is in one part, most parts alike in size, none empty."""
    pictures = {name: halves.Picture(64, 64, str(content)) for name, content in named}
    kinds = {p.checksum for p in pictures.values()}
    if len(kinds) < halves.LEAST:
        with pytest.raises(halves.FolderError):
            halves.divide("folder", pictures)
        return
    parts = halves.divide("folder", pictures)
    train, valid, test = ({pictures[name].checksum for name in part} for part in parts)
    assert train and valid and test
    assert not (train & valid or train & test or valid & test)
    assert abs(len(train) + len(valid) - len(test)) <= 1 or len(valid) == halves.CHOOSING
    assert halves.divide("folder", dict(reversed(pictures.items()))) == parts
