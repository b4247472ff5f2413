"""A run's folder at an address: copied whole or not at all, fetched elsewhere, never overwritten by another run."""

import json
import shutil
import sys

import fsspec
import jax
import pytest
from PIL import Image

from clic_jax.bulk import places
from clic_jax.checkpoints import arrays
from clic_jax.config import ConfigError
from clic_jax.training import steps
from experiments.train import __main__ as train
from experiments.train import mirror
from tests.conftest import photograph
from tests.micro import EXPERIMENT

ADDRESS = "memory://bucket/run"


@pytest.fixture(autouse=True)
def bucket():
    """An empty one."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture()
def run(tmp_path):
    """A folder as training leaves it: a checkpoint that is old, one that is new, a log."""
    for step in (2, 4):
        (tmp_path / "run" / str(step) / "state").mkdir(parents=True)
        (tmp_path / "run" / str(step) / "state" / "d").write_bytes(bytes([step]) * 100)
    (tmp_path / "run" / "metrics.jsonl").write_text("1\n")
    return tmp_path / "run"


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetched(tmp_path, resume=True):
    """What another machine gets."""
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    mirror.Mirror(tmp_path / "other", ADDRESS).fetch(resume)
    return content(tmp_path / "other")


def test_there_and_back(run, tmp_path):
    copy = mirror.Mirror(run, ADDRESS)
    copy.fetch(False)  # nothing is there
    copy.push()
    assert fetched(tmp_path) == content(run)
    again = mirror.Mirror(tmp_path / "other", ADDRESS)
    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(fsspec.filesystem("memory")), "put_file", lambda self, *names: written.append(names))
        again.push()
    assert not written  # what was fetched is as it was


def test_changes(run, tmp_path, bucket):
    """A later checkpoint: what is new is there, what is gone is deleted."""
    copy = mirror.Mirror(run, ADDRESS)
    copy.push()
    (run / "2").rename(run / "6")
    (run / "metrics.jsonl").write_text("1\n2\n")
    copy.push()
    assert fetched(tmp_path) == content(run) and "6/state/d" in content(run)
    assert not any("/2/" in name for name in bucket.store)


@pytest.mark.parametrize("calls", range(5))
def test_cut_short(run, tmp_path, bucket, monkeypatch, calls):
    """However many of its actions a killed process got to, what is fetched is the old or the new."""
    copy = mirror.Mirror(run, ADDRESS)
    copy.push()
    before = content(run)
    (run / "2").rename(run / "6")
    (run / "8").mkdir()
    (run / "8" / "d").write_bytes(b"8")
    done = []
    for name in ("put_file", "pipe_file", "rm_file"):
        action = getattr(type(bucket), name)

        def counted(self, *arguments, action=action, **options):
            if len(done) == calls:
                raise KeyboardInterrupt
            done.append(arguments)
            return action(self, *arguments, **options)

        monkeypatch.setattr(type(bucket), name, counted)
    with pytest.raises(KeyboardInterrupt) if calls < 4 else monkeypatch.context():
        copy.push()
    monkeypatch.undo()
    assert fetched(tmp_path) == (before if calls < 3 else content(run))


def test_refusals(run, tmp_path):
    mirror.Mirror(run, ADDRESS).push()
    with pytest.raises(ConfigError, match="already holds a run: add --resume"):
        fetched(tmp_path, resume=False)
    shutil.rmtree(run / "4")
    with pytest.raises(ConfigError, match="is at step 4 and .*run at step 2"):
        mirror.Mirror(run, ADDRESS).fetch(True)
    shutil.rmtree(run / "2")
    with pytest.raises(ConfigError, match="holds no checkpoint, and other things"):
        mirror.Mirror(run, ADDRESS).fetch(True)
    assert content(run) == {"metrics.jsonl": b"1\n"}


def test_what_goes_wrong_may_pass(run, tmp_path, bucket, monkeypatch):
    copy = mirror.Mirror(run, ADDRESS)
    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "put_file", lambda *_: (_ for _ in ()).throw(ValueError("no\nroute")))
        assert copy.try_push().endswith("tried again at the next checkpoint: memory://bucket/run: no route")
    assert copy.try_push() == "" and fetched(tmp_path) == content(run)


def test_no_such_file_system(tmp_path, monkeypatch):
    """Told before anything is compiled or written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(places.PlaceError, match="gs://bucket/run.*a package is missing.*gcsfs"):
        train.main(["--mirror", "gs://bucket/run", "--out", "run"])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # training steps compile
def test_a_run_that_moves(tmp_path, bucket, monkeypatch):
    """Two steps on one machine, whose disk is lost, and two on another; no run is begun on top of them."""
    mesh = steps.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(steps, "make_mesh", lambda: mesh)

    def publish(out, *_, **__):  # instead of compiling what publishing does
        out.mkdir(exist_ok=True)
        (out / "p").write_bytes(b"p")

    monkeypatch.setattr(train.publish, "publish", publish)
    monkeypatch.setattr(train.publish, "check_replaceable", lambda folder: None)
    (tmp_path / "photos").mkdir()
    Image.fromarray(photograph(64, 128, 0)).save(tmp_path / "photos" / "0.png")
    (tmp_path / "micro.py").write_text(EXPERIMENT)
    start = ["--config", tmp_path / "micro.py", "--data", f"folder:{tmp_path / 'photos'}", "--valid", "none"]

    def run(*words):
        return train.main([*map(str, words), "--mirror", ADDRESS])

    assert run(*start, "--out", tmp_path / "a", "--max-steps", "2") == 0
    assert fetched(tmp_path) == content(tmp_path / "a") and "published/p" in content(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(ConfigError, match="already holds a run"):
        run(*start, "--out", tmp_path / "b")
    assert run("--resume", "--out", tmp_path / "b", "--max-steps", "4") == 0
    rows = [json.loads(line) for line in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert fetched(tmp_path) == content(tmp_path / "b")
    assert arrays.steps_in(tmp_path / "other") == [4, 2]
