"""Many files by one command: folders, lists and addresses, the report, going on, and one line for what is wrong."""

# ruff: noqa: F811

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clic_jax import api, metrics
from tests.conftest import ROOT, photograph
from tests.test_main import X, data, folder, listing, run, save  # noqa: F401

FIELDS = "path target bytes_before bytes_after pixels quality psnr seconds modified skipped error".split()


def rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def tree(folder):
    """in/0.png, in/a/1.png, in/a/b/2.png, and what is none of ours."""
    Path("in/a/b").mkdir(parents=True)
    for i, name in enumerate(("in/0.png", "in/a/1.png", "in/a/b/2.png")):
        save(name, photograph(40, 60, i))
    Path("in/a/readme.txt").write_text("not a picture")
    Path("in/.hidden.png").write_text("not one either")
    return folder


def test_a_folder_and_its_report(run, tree):
    """The structure below it is kept; a row for each file is in the report, which says what was measured."""
    assert run("compress", "in", "-o", "out", "--report", "r.jsonl", "--psnr", "-q", "30") == (0, b"", [])
    assert listing()[listing().index("out") :] == ["out", *(f"out/{p}" for p in ("0.clic", "a", "a/1.clic", "a/b"))] + [
        "out/a/b/2.clic",
        "r.jsonl",
    ]
    for i, row in enumerate(sorted(rows("r.jsonl"), key=lambda row: row["path"])):
        source, target = Path(row["path"]), Path(row["target"])
        assert list(row) == FIELDS and row["error"] is None and not row["skipped"]
        assert target.read_bytes() == api.compress(photograph(40, 60, i), quality=30)
        assert (row["bytes_before"], row["bytes_after"]) == (source.stat().st_size, target.stat().st_size)
        assert (row["pixels"], row["quality"], row["modified"]) == (2400, 30, source.stat().st_mtime)
        shown = api.decompress(target.read_bytes())
        assert row["psnr"] == pytest.approx(float(metrics.psnr(photograph(40, 60, i), shown)), abs=1e-3)
        assert row["seconds"] > 0
    assert run("decompress", "out", "-o", "shown", "--report", "d.jsonl") == (0, b"", [])
    assert Image.open("shown/a/b/2.png").size == (60, 40)
    assert [row["pixels"] for row in rows("d.jsonl")] == [2400] * 3
    assert run("compress", "in/a") == (0, b"", [])
    assert Path("in/a/b/2.clic").exists() and not Path("in/0.clic").exists()


def test_errors_are_rows_and_the_rest_is_coded(run, tree):
    Path("in/bad.png").write_bytes(b"no picture")
    status, _, (line,) = run("compress", "in", "-o", "out", "--report", "r.jsonl")
    assert status == 1 and line.startswith("clic-jax: error: in/bad.png: ")
    (bad,) = (row for row in rows("r.jsonl") if row["error"])
    assert bad["error"] == line.removeprefix("clic-jax: error: ") and bad["bytes_after"] is None
    assert len(rows("r.jsonl")) == 4 and not Path("out/bad.clic").exists()
    assert run("compress", "in/bad.png", "-o", "out", "--report", "s.jsonl")[0] == 2
    assert len(rows("s.jsonl")) == 1


def test_lists(run, tree):
    """Paths of a list are kept below the target, and none leads out of it; empty lines are none."""
    lines = ["in/a/1.png", "", f"{tree}/in/0.png", "./in/../in/a/b/2.png", ""]
    Path("list").write_text("\n".join(lines))
    assert run("compress", "--files-from", "list", "-o", "out") == (0, b"", [])
    found = sorted(str(path) for path in Path("out").rglob("*.clic"))
    assert found == sorted(["out/in/a/1.clic", f"out{tree}/in/0.clic", "out/in/in/a/b/2.clic"])
    assert run("compress", "--files-from", "-", "-o", "o", stdin=b"in/0.png\n") == (0, b"", [])
    assert Path("o/in/0.clic").read_bytes() == Path(f"out{tree}/in/0.clic").read_bytes()


def test_resume(run, tree, data):
    """What is there and whole is skipped, what failed or was cut is done, and the report has each file once."""
    Path("in/bad.png").write_bytes(b"no picture")
    command = ["compress", "in", "-o", "out", "--report", "r.jsonl"]
    assert run(*command)[0] == 1
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.clic")}
    assert len(before) == 3
    save("in/bad.png")  # mended
    Path("out/a/1.clic").write_bytes(data[:-9])  # cut
    report = Path("r.jsonl").read_text()
    Path("r.jsonl").write_text(report + report[:30])  # and a row as well
    assert run(*command)[2] == ["clic-jax: error: r.jsonl exists: go on with --resume, or replace it with --force"]
    assert run(*command, "--resume") == (0, b"", [])
    after = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.clic")}
    assert {path for path in after if after[path] != before.get(path)} == {Path("out/bad.clic"), Path("out/a/1.clic")}
    final = {row["path"]: row for row in rows("r.jsonl")}
    assert set(final) == {"in/0.png", "in/a/1.png", "in/a/b/2.png", "in/bad.png"}
    assert not any(row["error"] for row in final.values())
    save("in/0.png", photograph(40, 60, 9))  # another picture
    assert run(*command, "--resume") == (0, b"", [])
    assert Path("out/0.clic").read_bytes() == api.compress(photograph(40, 60, 9))
    once = run(*command, "--resume")
    assert once == (0, b"", []) and sorted(row["path"] for row in rows("r.jsonl")) == sorted(final)


def test_resume_without_a_report(run, tree):
    """Never replaces what may be an original: another quality, a picture that was there before its .clic file."""
    assert run("compress", "in", "--resume") == (0, b"", [])
    assert run("compress", "in", "--resume") == (0, b"", [])
    status, _, lines = run("compress", "in", "--resume", "-q", "20")
    assert status == 2 and len(lines) == 3 and all("to replace it, give --force" in line for line in lines)
    originals = {path: path.read_bytes() for path in Path("in").rglob("[0-9].png")}
    assert run("decompress", "in", "--resume")[0] == 2  # they are older than the .clic files
    assert originals == {path: path.read_bytes() for path in originals}
    assert run("decompress", "in", "-o", "out", "--resume") == run("decompress", "in", "-o", "out", "--resume")
    whole = Path("out/0.png").read_bytes()
    Path("out/0.png").write_bytes(whole[:-100])
    assert run("decompress", "in", "-o", "out", "--resume")[0] == 1
    assert run("decompress", "in", "-o", "out", "--resume", "--force") == (0, b"", [])
    assert Path("out/0.png").read_bytes() == whole
    assert run("compress", "in", "--resume", "--force", "-q", "20") == (0, b"", [])
    assert Path("in/0.clic").read_bytes() == api.compress(photograph(40, 60, 0), quality=20)


def test_processes_write_the_same(run, tree, published_micro):
    options = ["--model", published_micro, "--report"]
    assert run("compress", "in", "-o", "one", *options, "1.jsonl") == (0, b"", [])
    assert run("compress", "in", "-o", "two", *options, "2.jsonl", "--jobs", 2) == (0, b"", [])
    for path in Path("one").rglob("*.clic"):
        assert path.read_bytes() == Path("two", path.relative_to("one")).read_bytes()
    assert sorted(row["path"] for row in rows("1.jsonl")) == sorted(row["path"] for row in rows("2.jsonl"))


def test_addresses(run, tree, published_micro):
    """Files and folders in memory, which fsspec has under an address; file:// is a path."""
    fsspec = pytest.importorskip("fsspec", reason="needs the extra [cluster]")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pipe({f"/pics/{p}": Path("in", p).read_bytes() for p in ("0.png", "a/1.png", "a/b/2.png")})
    assert run("compress", "memory://pics", "-o", "memory://out", "--report", "r.jsonl") == (0, b"", [])
    assert memory.cat_file("/out/a/1.clic") == api.compress(photograph(40, 60, 1))
    assert {row["target"] for row in rows("r.jsonl")} == {f"memory://out/{p}.clic" for p in ("0", "a/1", "a/b/2")}
    status, _, lines = run("compress", "memory://pics", "-o", "memory://out")
    assert status == 2 and len(lines) == 3 and all("exists: to replace it" in line for line in lines)
    assert run("compress", "memory://pics", "-o", "memory://out", "--resume") == (0, b"", [])
    assert run("compress", "memory://pics/a/1.png", "-o", "here/") == (0, b"", [])
    assert run("decompress", "memory://out/a", "-o", "shown") == (0, b"", [])
    assert sorted(Path("shown").rglob("*.png")) == [Path("shown/1.png"), Path("shown/b/2.png")]
    assert run("decompress", "memory://out/0.clic", "-o", "memory://one.png") == (0, b"", [])
    np.testing.assert_array_equal(
        Image.open(io.BytesIO(memory.cat_file("/one.png"))), api.decompress(memory.cat_file("/out/0.clic"))
    )
    Path("list").write_text("memory://pics/0.png\nmemory://pics/nowhere.png\n")
    status, _, (line,) = run("compress", "--files-from", "list", "-o", "listed")
    assert status == 1 and "nowhere.png" in line and Path("listed/pics/0.clic").exists()
    assert run("compress", f"file://{tree}/in/0.png", "-o", f"file://{tree}/x.clic") == (0, b"", [])
    assert Path("x.clic").exists()


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["empty"], "empty: holds no pictures: name another folder"),
        ([], "nothing to do: name files or folders"),
        (["--files-from", "missing"], "missing: 2 of 3 files of the list are not there, nowhere.png in line 2 first"),
        (["--files-from", "blank"], "blank: the list is empty"),
        (["--files-from", "nowhere"], "nowhere: No such file or directory"),
        (["a.png", "b/a.png", "-o", "out"], "a.png and b/a.png would both become out/a.clic"),
        (["b", "-o", "out"], "b/a.jpg and b/a.png would both become out/a.clic"),
        (["b/a.png", "-o", "-", "--files-from", "good"], "go with one input only"),
        (["a.png", "--report", "nowhere/r.jsonl"], "nowhere/r.jsonl: no report can be written there"),
        (["a.png", "--report", "b"], "b: no report can be written there"),
        (["a.png", "--report", "text", "--resume"], "text: line 1 is not of a report"),
        (["a.png", "--report", "s3://b/r.jsonl"], "s3://b/r.jsonl is an address, not a path"),
        (["-", "--cluster", "local", "-o", "x.clic"], "do not go with --cluster"),
        (["a.png", "--cluster", "nonsense"], "no scheduler answers at nonsense"),
        (["a.png", "--cluster", "tcp://127.0.0.1:1"], "no scheduler answers at tcp://127.0.0.1:1"),
        (["nothing://b/a.png"], "nothing://b/a.png: Protocol not known: nothing"),
        (["a.png", "-o", "nothing://b/"], "nothing://b/: Protocol not known: nothing"),
    ],
)
def test_mistakes(run, folder, arguments, text, monkeypatch):
    """One line, status 2, and nothing is written."""
    if "--cluster" in arguments:
        pytest.importorskip("distributed", reason="needs the extra [cluster]")
        monkeypatch.setattr("clic_jax.bulk.engines.PATIENCE", 2)
    if "Protocol" in text:
        pytest.importorskip("fsspec", reason="needs the extra [cluster]")
    for name in ("empty", "b"):
        Path(name).mkdir()
    save("a.png"), save("b/a.png"), save("b/a.jpg")
    for name, content in (("missing", "a.png\nnowhere.png\nb/x.png"), ("blank", "\n\n"), ("good", "a.png")):
        Path(name).write_text(content)
    Path("text").write_text("no row\nnone\n")
    before = listing()
    status, out, err = run("compress", *arguments)
    assert (status, out, len(err)) == (2, b"", 1), err
    assert err[0].startswith("clic-jax: error: ") and text in err[0], err
    assert listing() == before and Path("text").read_text() == "no row\nnone\n"


def test_without_the_extra(run, tree, monkeypatch):
    """One line each; and files and folders do without."""
    for package in ("distributed", "fsspec"):
        monkeypatch.setitem(sys.modules, package, None)
    status, _, (line,) = run("compress", "in", "--cluster", "local")
    assert status == 2 and line.endswith("distributed, which is missing: pip install 'clic_jax[cluster]'")
    for arguments in (["s3://b/a.png", "-o", "x/"], ["in", "-o", "s3://b/out"], ["s3://b/a.png", "s3://b/b.png"]):
        status, _, (line,) = run("compress", *arguments)
        assert status == 2 and "fsspec is missing: pip install 'clic_jax[cluster]'" in line
    assert run("compress", "in", "-o", "out") == (0, b"", [])


def test_a_missing_file_system_is_one_line(run, folder):
    pytest.importorskip("fsspec", reason="needs the extra [cluster]")
    try:
        import s3fs  # noqa: F401
    except ImportError:
        status, _, (line,) = run("compress", "s3://bucket/folder", "-o", "out")
        assert status == 2 and "s3://bucket/folder: a package is missing for such addresses" in line and "s3fs" in line
    else:
        pytest.skip("s3fs is installed")


def test_no_import_of_what_is_optional():
    script = (
        "import sys, clic_jax, clic_jax.__main__; print([n for n in ('fsspec', 'distributed') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout == b"[]\n", done
