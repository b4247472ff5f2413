"""The search: a planted optimum is found, killed searches go on, bad input is one line; and the real command."""

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys

import pytest
from PIL import Image

from clic_jax.config import MINI, TINY, ConfigError
from experiments import experiment
from experiments.tune import __main__ as tune
from experiments.tune import recommend, search, space, trials
from experiments.tune.search import Progress, Row
from experiments.tune.space import Choice, Range, TuneError
from tests.conftest import QUICK_COMPILER, ROOT, photograph
from tests.micro import EXPERIMENT, MICRO

pytest.importorskip("optuna", reason="needs optuna: pip install '.[tune]'")

SPACE = ["model.centers=4,9,16", "model.similarity=cosine,euclidean", "train.learning_rate=1e-4..1e-1"]


def planted(cfg):
    """Lowest at nine centres, euclidean, a rate of 0.003; three seeds that differ by 0.01, worse at the first rung."""
    loss = {4: 0.1, 9: 0.0, 16: 0.2}[cfg.model.centers] + 0.3 * (cfg.model.similarity == "cosine")
    loss += math.log10(cfg.train.learning_rate / 0.003) ** 2
    for share, step in ((0.5, 10), (1.0, 20)):
        yield Progress(share - 0.1, step)
        yield Progress(share, step, [loss + seed / 100 - share for seed in range(3)])


def run(folder, texts=SPACE, count=30, objective=planted, base=TINY, said=None, **limits):
    axes = space.parse(base, texts)
    study = search.open_study(folder / "study.db", axes, base, count)
    search.search(study, axes, base, count, objective, say=(said if said is not None else []).append, **limits)
    return search.rows(study)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(rows, what was said) of a search in one go."""
    said = []
    return run(tmp_path_factory.mktemp("whole"), said=said), said


def test_the_planted_optimum_is_found(whole):
    """All three settings; and the base, which the space has, was tried first."""
    rows, _ = whole
    best = rows[0]
    assert (best.state, best.params["model.centers"], best.params["model.similarity"]) == ("finished", "9", "euclidean")
    assert 0.0015 < best.params["train.learning_rate"] < 0.006 and best.losses[1] - best.losses[0] == pytest.approx(
        0.01
    )
    assert best.loss == best.losses[1] and len(rows) == 30
    (first,) = (row for row in rows if row.number == 0)
    assert first.params == {"model.centers": "4", "model.similarity": "cosine", "train.learning_rate": 1e-3}


def test_hopeless_trials_are_given_up(whole):
    """At the first rung, where they were worse than the median of those finished before."""
    rows, said = whole
    pruned = [row for row in rows if row.state == "given up"]
    assert len(pruned) > 5 and {row.step for row in pruned} == {10}
    assert min(row.loss for row in pruned) > rows[0].loss + 0.5
    assert sum("given up: " in line and "worse than the median" in line for line in said) == len(pruned)


def test_progress_is_told(whole):
    _, said = whole
    line = next(line for line in said if line.startswith("trial 7 of 30: "))
    assert re.search(r"model.centers=\d+, .*; step 10; best so far -?[\d.]+ \(trial \d+\); ETA \d+:\d\d$", line), line
    assert "none finished yet" in said[0]


def test_killed_it_goes_on(whole, tmp_path):
    """In the middle of trials: they are done again, and what is chosen then is what one go chooses."""
    calls = [0]

    def cut(cfg):
        calls[0] += 1
        steps = list(planted(cfg))
        yield from steps[: {2: 3, 11: 1}.get(calls[0])]  # after a rung, and before any
        if calls[0] in (2, 11):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, objective=cut)
        assert sum(row.state == "unfinished" for row in search.rows(_study(tmp_path))) == 1
    rows = run(tmp_path, objective=cut)
    assert rows == whole[0] and run(tmp_path, objective=None) == rows  # nothing is left to do


def _study(folder):
    return search.open_study(folder / "study.db", space.parse(TINY, SPACE), TINY, 30)


def test_small_spaces_are_gone_through(tmp_path):
    """Each config once, whatever the sampler would like; settings that contradict each other are told and left."""
    tried = []

    def objective(cfg):
        tried.append((cfg.model.centers, cfg.model.pqf, cfg.model.pqf_slices))
        yield Progress(1.0, 4, [float(cfg.model.centers)])

    base = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, pqf="none"))
    texts = ["model.centers=4,9", "model.pqf=none,auxiliary", "model.pqf_slices=0,1"]
    rows = run(tmp_path, texts, 8, objective, base)
    assert len(tried) == len(set(tried)) == 6 and len(rows) == 8
    left = [row for row in rows if row.state == "given up"]
    assert len(left) == 2 and all("pqf_slices must be at least 1" in row.why for row in left)
    assert rows[0].params["model.centers"] == "4"


def test_diverged_trials_are_left(tmp_path):
    """Of which one seed is not finite: told, and never the best."""

    def objective(cfg):
        bad = cfg.model.centers == 9
        yield Progress(0.25, 1, [0.0, math.inf if bad else 0.0, 0.0])
        yield Progress(1.0, 4, [1.0, 2.0, 3.0])

    rows = run(tmp_path, ["model.centers=4,9,16"], 3, objective)
    assert [row.state for row in rows] == ["finished", "finished", "given up"]
    assert rows[-1].why == "diverged" and rows[-1].params == {"model.centers": "9"}


def test_minutes_end_a_search(tmp_path, monkeypatch):
    """One trial is finished in any case; what an earlier process took counts."""
    now = [0.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: now[0])

    def objective(cfg):
        for share in (0.5, 1.0):
            now[0] += 50
            yield Progress(share, int(10 * share), [1.0])

    said = []
    rows = run(tmp_path, objective=objective, minutes=0.5, said=said)
    assert [row.state for row in rows] == ["finished"] and said[0].endswith("ETA 00:00")
    assert [row.state for row in run(tmp_path, objective=objective, minutes=0.5)] == ["finished"]
    rows = run(tmp_path, objective=objective, minutes=2.4)
    assert [row.state for row in rows] == ["finished", "unfinished"]  # 144 s, of which 100 were over
    rows = run(tmp_path, objective=objective, minutes=5)
    assert [row.state for row in rows] == ["finished", "finished", "unfinished"]


def test_spaces():
    axes = space.parse(MINI, [*SPACE[:2], "train.ema=0.9..0.99", "train.batch=1..64", "model.groups=(4,76),(40,40)"])
    assert axes["model.centers"] == Choice(("4", "9", "16")) and axes["train.ema"] == Range(0.9, 0.99, False, False)
    assert axes["train.batch"] == Range(1, 64, True, True) and axes["model.groups"].values == ("(4,76)", "(40,40)")
    nested = "((64, 2), (0, 2)), ((32, 2), (0, 2))"
    found = space.parse(TINY, [f"model.hyper_decoder_layers={nested}"])["model.hyper_decoder_layers"]
    assert found.values == ("((64, 2), (0, 2))", "((32, 2), (0, 2))")
    assert space.size(axes) == math.inf and space.size({"a": Choice(("1", "2")), "b": Choice(("1", "2", "3"))}) == 6
    cfg = space.applied(MINI, {"train.batch": 3, "model.groups": "(40,40)", "model.similarity": "euclidean"})
    assert (cfg.train.batch, cfg.model.groups, cfg.model.similarity) == (3, (40, 40), "euclidean")
    assert space.of_base(MINI, space.parse(MINI, ["train.batch=4,8"])) is None
    assert space.of_base(MINI, space.parse(MINI, ["model.positions=true,false"])) is not None


BAD = {
    "unreadable": ("model.centers", "cannot read --space 'model.centers': write"),
    "unknown": ("model.clouds=1,2", "no setting 'model.clouds'; model has stem_kernel"),
    "mixed": ("model.centers=4,nine", "of several types .number, text."),
    "type": ("model.similarity=1..2", "wants str"),
    "words": ("model.similarity=cosine..euclidean", "a range is LOW..HIGH, of numbers"),
    "allowed": ("model.centers=4,5", "must be one of 1, 4, 9, 16, not 5"),
    "empty": ("train.learning_rate=1e-3..1e-3", "the range is empty, for 0.001 is not below 0.001"),
    "alone": ("model.centers=4", "two values or more, all different; --set"),
    "twice": ("model.centers=4,9,4", "two values or more, all different"),
    "budget": ("train.steps=100,200", "train.steps: it is the budget's: --steps or --minutes"),
    "loss": ("model.lmbdas=0.01,0.02", "it changes what the loss is"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_spaces(case):
    text, message = BAD[case]
    with pytest.raises((TuneError, ConfigError), match=message) as caught:
        space.parse(TINY, [text])
    assert "\n" not in str(caught.value)


def command(folder, *more):
    given = ["--config", folder / "micro.py", "--data", f"folder:{folder / 'photos'}"]
    given += ["--valid", f"folder:{folder / 'photos'}", "--out", folder / "out"]
    return [*map(str, given), "--space", "train.learning_rate=1e-3,3e-3", *more]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        Image.fromarray(photograph(64, 128, seed)).save(tmp_path / "photos" / f"{seed}.png")
    (tmp_path / "micro.py").write_text(EXPERIMENT)
    return tmp_path


def test_bad_commands(folder, monkeypatch, capsys):
    """Budgets, folders of other studies, no photographs to choose by, no optuna: one line, nothing written."""
    for more in ([], ["--steps", "2", "--minutes", "1"], ["--steps", "0"], ["--minutes", "nan"]):
        with pytest.raises(SystemExit) as stop:
            tune.main(command(folder, *more))
        assert stop.value.code == 2
    assert "--minutes must be above 0, not nan" in capsys.readouterr().err
    with pytest.raises(TuneError, match="name some with --valid"):
        tune.main(command(folder, "--steps", "2", "--valid", "none"))
    with pytest.raises(TuneError, match="--set train.steps: it is the budget's"):
        tune.main(command(folder, "--steps", "2", "--set", "train.steps=5"))
    assert not (folder / "out").exists()
    _, _, _, about, _ = tune.settle(tune.parse(command(folder, "--steps", "2")))
    studies = tune.studies
    studies.remember(studies.Study(folder / "out", {}, 3, 2, 2, about))
    with pytest.raises(TuneError, match="holds a search already: --resume goes on with it"):
        tune.main(command(folder, "--steps", "2"))
    with pytest.raises(studies.StudyError, match="holds a study with space = .*name another --out"):
        tune.main(command(folder, "--steps", "2", "--resume", "--space", "train.batch=4,8"))
    with pytest.raises(studies.StudyError, match="holds a study with another base"):
        tune.main(command(folder, "--steps", "2", "--resume", "--set", "train.batch=4"))
    (folder / "out" / tune.FILE).write_bytes(b"no database" * 100)
    with pytest.raises(TuneError, match="is no study that optuna can read .*name another --out"):
        search.open_study(folder / "out" / tune.FILE, {}, TINY, 3)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(TuneError, match=r"not installed: pip install '.\[tune\]'"):
        tune.main(command(folder, "--steps", "2"))


def row(number, losses, **params):
    return Row(number, {f"train.{k}": v for k, v in params.items()}, "finished", sorted(losses)[1], 20, losses, "")


def test_recommendation(tmp_path):
    """The file gives the config back; what the seeds resolve is told, and what they do not."""
    axes = space.parse(MICRO, ["train.learning_rate=1e-4..1e-2", "train.batch=4,8"])
    rows = [
        row(2, [0.50, 0.51, 0.52], learning_rate=0.0021, batch="4"),
        row(1, [0.50, 0.52, 0.51], learning_rate=0.0022, batch="4"),
        row(0, [0.60, 0.61, 0.63], learning_rate=0.001, batch="8"),
        Row(3, {"train.learning_rate": 0.01, "train.batch": "8"}, "given up", math.inf, 5, [math.inf] * 3, "diverged"),
    ]
    lines = recommend.write(tmp_path, rows, MICRO, axes, {"steps": 20})
    found = experiment.named(str(tmp_path / "recommended.py"))
    train = dataclasses.replace(MICRO.train, learning_rate=0.0021, batch=4)
    assert found == dataclasses.replace(MICRO, name="micro-tuned", train=train)
    base, other = lines[1:]
    assert "Against the config that the search began with: -9.8" in base and "not resolved" not in base
    assert "next best" in other and "not resolved" in other
    assert all(line.replace('"', "'") in (tmp_path / "recommended.py").read_text() for line in lines)
    kept = json.loads((tmp_path / "tune.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert kept["trials"][-1]["losses"] == [None] * 3 and "diverged" in (tmp_path / "tune.md").read_text()
    assert "one seed" in recommend.against(rows[0]._replace(losses=[1.0]), rows[2]._replace(losses=[2.0]), "it")


def test_steps_that_fit(monkeypatch):
    """What a trial's share of the minutes leaves beside compiling; too few minutes say how many would do."""
    monkeypatch.setattr(trials.training, "seconds_a_step", lambda *_: (0.5, 30.0))
    assert trials.steps_in(TINY, None, 20, 4, 3) == int(0.7 * (300 - 1.3 * 30) / 3 / 0.5)
    with pytest.raises(TuneError, match="--minutes 2 are too few for 4 trials of 3 seeds, .* 30 s: give 4 or more"):
        trials.steps_in(TINY, None, 2, 4, 3)


@pytest.mark.slow  # training steps compile
def test_the_real_command_survives_a_kill(folder):
    """kill -9 in the second trial; with --resume it ends, and names a config that the trainer reads."""
    env = os.environ | {"XLA_FLAGS": QUICK_COMPILER, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "experiments.tune", *command(folder, "--steps", "8", "--seeds", "2")]
    with subprocess.Popen(words, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("trial 2 of 2") and "step 4" in line:
                process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "".join(said)
    first = {path: path.stat().st_mtime_ns for path in (folder / "out" / "trials").glob("*/0/held_out.json")}
    assert len(first) == 2 and not (folder / "out" / "recommended.py").exists()
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "--resume goes on with it" in done.stderr
    done = subprocess.run([*words, "--resume"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trial 1 of 2" not in done.stderr and re.search(r"trial 2 of 2: .*; ETA \d\d:\d\d", done.stderr)
    assert "Best: train.learning_rate=" in done.stdout
    kept = json.loads((folder / "out" / "tune.json").read_text())
    assert [trial["state"] for trial in kept["trials"]] == ["finished"] * 2 and kept["study"]["steps"] == 8
    for trial in kept["trials"]:
        assert len(trial["losses"]) == 2 and all(map(math.isfinite, trial["losses"]))
    found = experiment.named(str(folder / "out" / "recommended.py"))
    rate = float(kept["trials"][0]["params"]["train.learning_rate"])
    assert found.train == dataclasses.replace(MICRO.train, learning_rate=rate) and found.model == MICRO.model
