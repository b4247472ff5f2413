"""A study on a micro model: trained in turn, stopped, killed and gone on with, measured, told."""

import functools
import json
import math
import os

import jax
import numpy as np
import pytest
from PIL import Image

from clic_jax.checkpoints import arrays, published
from clic_jax.training import steps
from experiments.ablation import __main__ as ablation
from experiments.ablation import evaluation, study, tables, training
from tests.conftest import ROOT, photograph
from tests.micro import EXPERIMENT

STEPS, CHUNK = 6, 2


class Killed(BaseException):
    """What no handler sees."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs, held-out ones, and the base."""
    folder = tmp_path_factory.mktemp("ablation")
    for name, seeds in (("train", range(3)), ("valid", range(3, 5))):
        (folder / name).mkdir()
        for seed in seeds:
            Image.fromarray(photograph(64, 128, seed)).save(folder / name / f"{seed}.png")
    (folder / "micro.py").write_text(EXPERIMENT)
    return folder


def command(folder, out, *more):
    options = {"--base": "micro.py", "--out": out}
    named = [word for key, name in options.items() for word in (key, str(folder / name))]
    sets = ["--data", f"folder:{folder / 'train'}", "--valid", f"folder:{folder / 'valid'}"]
    return [*named, *sets, "--variants", "no_attention", "--seeds", "2", "--chunk", str(CHUNK), *more]


@pytest.fixture(scope="module")
def one_device():
    with pytest.MonkeyPatch.context() as patch:
        mesh = steps.make_mesh(jax.devices()[:1])  # which compiles in half the time that eight take
        patch.setattr(steps, "make_mesh", lambda: mesh)
        yield


@pytest.fixture(scope="module")
def whole(folder, one_device):
    """(folder of a study in one go, the order of its turns)."""
    turns, turn = [], training.turn

    def watched(work, run, last, *rest):
        turns.append((run.variant, run.seed, last))
        return turn(work, run, last, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "turn", watched)
        assert ablation.main(command(folder, "whole", "--steps", str(STEPS), "--estimate")) == 0
    return folder / "whole", turns


def found(out):
    return json.loads((out / "ablation.json").read_text())


@pytest.mark.slow  # training steps compile
def test_turns(whole):
    """Every run has a turn before any has the next."""
    out, turns = whole
    everyone = [(name, seed) for seed in (0, 1) for name in ("full", "no_attention")]
    assert turns == [(*run, last) for last in (2, 4, 6) for run in everyone]
    for name, seed in everyone:
        rows = [json.loads(line) for line in (out / name / str(seed) / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [2, 4, 6]


@pytest.mark.slow  # training steps compile
def test_same_start_crops_and_noise(whole):
    """Parameters that both variants have move alike in the first steps; other seeds are others."""
    out, _ = whole
    params = {
        (name, seed): published.load_published(out / name / str(seed))[1]
        for name in ("full", "no_attention")
        for seed in (0, 1)
    }
    near, far = (
        np.abs(params["full", 0]["h_a"]["conv0"]["kernel"] - other["h_a"]["conv0"]["kernel"]).max()
        for other in (params["no_attention", 0], params["full", 1])
    )
    assert 0 < near < far / 5
    assert "spatial_gate" not in json.dumps(jax.tree.map(np.shape, params["no_attention", 0]["g_a"]))


@pytest.mark.slow  # training steps compile
def test_result(whole):
    out, _ = whole
    result = found(out)
    full, other = result["rows"]
    assert (full["variant"], other["variant"], other["published"]) == ("full", "no_attention", 11.7)
    assert other["rates"] == full["rates"] == "estimate" and len(other["bd_rate"]) in (0, 1, 2)
    assert full["parameters"] > other["parameters"] and full["seconds_per_step"] > 0
    assert set(path.name for path in out.glob("ablation.*")) >= {"ablation.json", "ablation.md"}
    table = (out / "ablation.md").read_text()
    assert "`no_attention`" in table and "+11.7 %" in table and "2 seeds" in table


@pytest.mark.slow  # training steps compile
def test_stopped_and_killed_it_ends_the_same(folder, whole, one_device, monkeypatch):
    """Killed within a save, and asked to stop within a turn: the same command gives the same points and parameters."""
    arguments, turn, count = command(folder, "cut", "--steps", str(STEPS), "--estimate"), training.turn, [0]

    def cut(work, run, last, *rest):
        count[0] += 1
        if count[0] == 3:
            raise Killed
        if count[0] == 5:
            rest[-1].append(2)  # as `loop.stop_signals` does
        return turn(work, run, last, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training, "turn", cut)
        with pytest.raises(Killed):
            ablation.main(arguments)
        assert ablation.main(arguments) == 130
    out = folder / "cut"
    everyone = [out / name / seed for name in ("full", "no_attention") for seed in ("0", "1")]
    assert 0 < sum(max(arrays.steps_in(run), default=0) for run in everyone) < 4 * STEPS
    assert ablation.main(arguments) == 0
    for run in ("full/0", "full/1", "no_attention/0", "no_attention/1"):
        ours, theirs = (published.load_published(path / run)[1] for path in (out, whole[0]))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert found(out)["points"] == found(whole[0])["points"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, text",
    [
        (["--seeds", "3"], "seeds = 2, this one has 3"),
        (["--steps", "8"], "steps = 6, this one has 8"),
        (["--variants", "no_offset"], "variants = "),
        (["--set", "train.batch=16"], "another base or --set"),
    ],
)
def test_another_study(folder, whole, change, text):
    with pytest.raises(study.StudyError, match=f"holds a study with .*{text}.*name another --out"):
        ablation.main([*command(folder, "whole", "--steps", str(STEPS)), *change])


def test_a_folder_of_something_else(folder):
    with pytest.raises(study.StudyError, match="train is there and holds no study: name another --out"):
        ablation.main(command(folder, "train", "--steps", "2"))


def test_no_such_variant(folder):
    with pytest.raises(
        study.StudyError, match="no variant 'no_clouds': there are full, auxiliary_pqf, conv_attention, .*soft"
    ):
        ablation.main([*command(folder, "other", "--steps", "2"), "--variants", "no_clouds"])


def test_one_rate_has_no_curve(folder):
    with pytest.raises(study.StudyError, match="micro has one rate only"):
        ablation.main([*command(folder, "other", "--steps", "2"), "--set", "model.lmbdas=0.01"])


@pytest.mark.parametrize("more", [[], ["--steps", "2", "--minutes", "1"]], ids=["none", "both"])
def test_budgets(folder, more, capsys):
    with pytest.raises(SystemExit) as stop:
        ablation.main(command(folder, "other", *more))
    assert stop.value.code == 2 and "give a budget, either --minutes or --steps" in capsys.readouterr().err


@pytest.mark.slow  # a training step compiles
def test_minutes_are_steps_of_the_full_model(folder, one_device):
    """A hundred times the minutes are about as many times the steps; a folder that knows its steps keeps them."""
    steps_of = {}
    for minutes in ("0.5", "50"):
        work, photographs = ablation.settle(ablation.parse(command(folder, f"in{minutes}", "--minutes", minutes)))
        assert photographs is not None and work.about["steps"] is None
        steps_of[minutes] = work.steps
    assert 10 < steps_of["50"] / steps_of["0.5"] < 1000
    study.remember(work)
    again, unused = ablation.settle(ablation.parse(command(folder, "in50", "--minutes", "50")))
    assert again.steps == work.steps and unused is None


@pytest.mark.slow  # training steps compile
def test_real_files(folder, whole):
    """Of the trained full model: as many bits as the model counts, nearly, and the picture that it makes."""
    out, _ = whole
    config, params, _ = published.load_published(out / "full" / "0")
    x = photograph(64, 128, 3)

    def crops(n, size):
        return np.stack([photograph(size, size, seed) for seed in range(n)])

    code = evaluation.of_files(config, params, lambda n, size: crops(8, size))
    for hundredths in (100, 10000):
        quality = evaluation.Quality(hundredths)
        x_hat, bits = code(x, quality)
        picture, counted = evaluation.evaluation.reconstruct(
            config.model, params, x, quality.lmbda(config.model.lmbdas)
        )
        assert bits % 8 == 0 and abs(bits - counted) < 0.05 * counted + 8 * 100
        assert np.abs(x_hat.astype(int) - picture).mean() < 3


POINTS = {
    "full": {s: {"bpp": [0.1, 0.2, 0.4], "psnr": [28, 30, 32], "rates": "files"} for s in (0, 1, 2)},
    "worse": {s: {"bpp": [0.11, 0.22, 0.44 + s / 1000], "psnr": [28, 30, 32], "rates": "files"} for s in (0, 1, 2)},
    "noise": {s: {"bpp": [0.1 + (s - 1) / 100, 0.2, 0.4], "psnr": [28, 30, 32], "rates": "files"} for s in (0, 1, 2)},
    "once": {0: {"bpp": [0.2, 0.4, 0.8], "psnr": [28, 30, 32], "rates": "estimate"}},
    "apart": {0: {"bpp": [0.2, 0.4, 0.8], "psnr": [8, 10, 12], "rates": "files"}},
    "gone": {},
}
COST = {"parameters": 1_000_000, "encode": 10.0, "decode": 11.0, "seconds_per_step": None}


def test_what_the_noise_hides_is_told():
    """10 % more bits are resolved, seeds that disagree are not, nor is one seed, however far off."""
    rows = tables.rows(POINTS, {name: COST for name in POINTS}, dict.fromkeys(POINTS, 2.5))
    by_name = {row["variant"]: row for row in rows}
    assert by_name["worse"]["mean"] == pytest.approx(10, abs=0.3) and by_name["worse"]["resolved"]
    assert not by_name["noise"]["resolved"] and by_name["noise"]["half"] > abs(by_name["noise"]["mean"])
    assert by_name["once"]["mean"] == pytest.approx(100) and by_name["once"]["resolved"] is False
    about = {"base": "mini", "steps": 5, "seeds": 3, "valid": "folder:x"}
    result = {"study": about, "images": 2, "rows": rows}
    lines = {line.split("`")[1]: line for line in tables.markdown(result).splitlines() if line.startswith("| `")}
    assert "+10" in lines["worse"] and "not resolved" not in lines["worse"]
    assert "not resolved" in lines["noise"] and "not resolved (+100.0 %) | one seed" in lines["once"]
    assert "estimate" in lines["once"] and "do not overlap" in lines["apart"] and "no result" in lines["gone"]
    pytest.importorskip("matplotlib")
    assert tables.draw(result, "png").startswith(b"\x89PNG") and b"<svg" in tables.draw(result, "svg")


def test_interval():
    """Of 1, 2, 3: the mean, and Student's 4.30 times the standard error; of one value, no end."""
    assert tables.interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.303 / math.sqrt(3)), abs=1e-3)
    assert tables.interval([5.0]) == (5.0, math.inf) and tables.interval([]) is None


def test_two_seeds_have_the_spread_of_all_variants():
    """Variances 2, 8 and 5 of two values each are 5 with three degrees of freedom: Student's 3.18."""
    every = [[4.0, 6.0], [1.0, 5.0], [0.0, math.sqrt(10)], [7.0], []]
    assert tables.interval(every[0], every) == pytest.approx((5.0, 3.182 * math.sqrt(5 / 2)), abs=1e-2)
    assert tables.interval([1.0, 2.0, 3.0], every) == tables.interval([1.0, 2.0, 3.0])


@pytest.mark.slow  # training steps compile, in two processes
def test_processes_do_the_same(folder, whole, monkeypatch):
    """Each with a variant: the study in one process, but for roundings of sums that fewer processors share."""
    flags = os.environ["XLA_FLAGS"].split()
    monkeypatch.setenv("XLA_FLAGS", " ".join(flag for flag in flags if "device_count" not in flag))
    assert ablation.main(command(folder, "jobs", "--steps", str(STEPS), "--estimate", "--jobs", "2")) == 0
    for name, seeds in found(whole[0])["points"].items():
        for seed, points in seeds.items():
            for key in ("bpp", "psnr"):
                assert found(folder / "jobs")["points"][name][seed][key] == pytest.approx(points[key], rel=1e-4)
    for run in ("full/0", "no_attention/1"):
        ours, theirs = (published.load_published(path / run)[1] for path in (folder / "jobs", whole[0]))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), ours, theirs)


@pytest.mark.slow  # training steps compile
def test_diverged_runs_are_told_and_left(folder, one_device, monkeypatch, capsys):
    """The rest of the study goes on."""
    base = command(folder, "diverged", "--steps", "2", "--estimate", "--set", "train.learning_rate=1e30")
    assert ablation.main([*base, "--set", "train.grad_clip=1e30"]) == 0
    assert "full, seed 0: bpp is nan at step 2" in capsys.readouterr().err
    assert (folder / "diverged" / "full" / "0" / "diverged.txt").exists()
    assert "no result" in (folder / "diverged" / "ablation.md").read_text()


def test_every_file_is_a_variant():
    assert study.there() == sorted(path.stem for path in (ROOT / "experiments/configs/ablations").glob("*.py"))
