"""The command line: what it writes, and one line for everything that can be wrong."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clic_jax import __main__, api
from clic_jax.files import container
from tests.conftest import ROOT, photograph

X = photograph(40, 60)
FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, published_micro):
    """An empty folder to work in, and `micro` as the only installed model."""
    monkeypatch.setattr("clic_jax.checkpoints.installed.WEIGHTS", published_micro.parent)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsysbinary, monkeypatch):
    """run(*arguments, stdin=bytes or a file) -> (exit status, standard output, lines of standard error)."""

    def run(*arguments, stdin=b""):
        stdin = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
        with pytest.raises(SystemExit) as exit_:
            __main__.main([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        return exit_.value.code or 0, out, err.decode().splitlines()

    return run


def save(path, pixels=X, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture(scope="module")
def data(published_micro):
    """The .clic file of X."""
    return api.compress(X, model=published_micro)


def listing():
    return sorted(str(path) for path in Path().rglob("*"))


def test_there_and_back(run, data):
    save("a.b.png")
    assert run("compress", "a.b.png") == (0, b"", [])
    assert Path("a.b.clic").read_bytes() == data
    os.rename("a.b.clic", "c.clic")
    assert run("decompress", "c.clic") == (0, b"", [])
    assert np.array_equal(np.asarray(Image.open("c.png")), api.decompress(data))
    assert listing() == ["a.b.png", "c.clic", "c.png"]


def test_options(run, published_micro):
    exif = Image.Exif()
    exif[0x0110] = "camera"
    save("a.png", exif=exif)
    assert run("compress", "a.png", "-q", "7.5", "--model", published_micro, "--strip", "-o", "b")[0] == 0
    assert Path("b").read_bytes() == api.compress(X, quality=7.5)
    assert run("compress", "a.png", "--quality", "7.5", "--model", "micro", "-o", "c.clic")[0] == 0
    assert run("compress", "a.png", "--effort", "2", "--strip", "-o", "d.clic") == (0, b"", [])
    assert Path("d.clic").read_bytes() == api.compress(X, effort=2)
    for effort in ("-1", "10"):
        status, _, (line,) = run("compress", "a.png", "--effort", effort)
        text = "is out of range: choose 0 (quickest) to 9 (smallest files)"
        assert status == 2 and line == f"clic-jax: error: effort {effort} {text}"
    assert container.unpack(Path("c.clic").read_bytes())[2].keys() == {container.Tag.EXIF}


def test_several_processes(run, published_micro):
    """The files of one process; what is wrong with one of them is a line, and the others are coded."""
    for i in range(3):
        save(f"{i}.png", photograph(40, 60, i))
    Path("3.png").write_bytes(b"nonsense")
    names, options = [f"{i}.png" for i in range(4)], ["--model", published_micro, "--jobs", 2]
    status, out, lines = run("compress", *names, *options, "-o", "coded")
    assert (status, out) == (1, b"") and len(lines) == 1 and lines[0].startswith("clic-jax: error: 3.png: ")
    for i in range(3):
        assert Path(f"coded/{i}.clic").read_bytes() == api.compress(photograph(40, 60, i), model=published_micro)
    assert run("decompress", *(f"coded/{i}.clic" for i in range(3)), *options, "-o", "shown") == (0, b"", [])
    for i in range(3):
        coded = Path(f"coded/{i}.clic").read_bytes()
        np.testing.assert_array_equal(Image.open(f"shown/{i}.png"), api.decompress(coded, model=published_micro))
    for bad in ("0", "-1", "two"):
        status, _, lines = run("compress", "0.png", "--jobs", bad)
        assert status == 2 and f"'{bad}' is not a number of processes" in lines[-1]


def test_output_folder(run, data):
    save("a.png")
    save("b.jpg")
    assert run("compress", "a.png", "b.jpg", "-o", "new/folder") == (0, b"", [])
    assert run("compress", "a.png", "-o", "new") == (0, b"", [])
    assert run("compress", "a.png", "-o", "third/") == (0, b"", [])
    assert run("decompress", "new/folder/a.clic", "new/folder/b.clic", "-o", "new") == (0, b"", [])
    written = ["new/a.clic", "new/a.png", "new/b.png", "new/folder/a.clic", "new/folder/b.clic", "third/a.clic"]
    assert [path for path in listing() if "/" in path and Path(path).is_file()] == written


@pytest.mark.parametrize("name, kind", [("y.png", "PNG"), ("y.JPG", "JPEG"), ("y.webp", "WEBP"), ("y", "PNG")])
def test_suffix_chooses_the_format(run, data, name, kind):
    Path("x.clic").write_bytes(data)
    Path(name).write_bytes(b"old")  # is replaced
    assert run("decompress", "x.clic", "-o", name) == (0, b"", [])
    with Image.open(name) as image:
        assert image.format == kind
        difference = np.abs(np.asarray(image).astype(int) - api.decompress(data))
        assert difference.max() <= (40 if kind == "JPEG" else 0)


def test_standard_streams(run, data):
    png = save(io.BytesIO(), format="PNG").getvalue()
    assert run("compress", "-", stdin=png) == (0, data, [])
    status, out, err = run("decompress", "-", stdin=data)
    assert (status, err) == (0, []) and np.array_equal(np.asarray(Image.open(io.BytesIO(out))), api.decompress(data))
    assert run("decompress", "-", "-o", "x.bmp", stdin=data) == (0, b"", [])
    save("a.png")
    assert run("compress", "a.png", "-o", "-") == (0, data, [])
    assert listing() == ["a.png", "x.bmp"]
    assert run("info", "-", "--json", stdin=data)[0] == 0


def test_pipe(data, published_micro):
    """A real process, real streams."""
    command = [sys.executable, "-m", "clic_jax", "compress", "-", "--model", published_micro]
    png = save(io.BytesIO(), format="PNG").getvalue()
    done = subprocess.run(command, input=png, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


def test_descriptors(run, data):
    """As the shell names them: /dev/stdout behind a >>, >(...) and <(...)."""
    save("a.png")
    with open("log", "ab", buffering=0) as log:
        log.write(b"before")
        assert run("compress", "a.png", "-o", f"/dev/fd/{log.fileno()}") == (0, b"", [])
    assert Path("log").read_bytes() == b"before" + data
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    status, _, (line,) = run("decompress", f"/dev/fd/{reader}")
    assert status == 2 and line == f"clic-jax: error: /dev/fd/{reader} is no file: give -o FILE for what comes from it"
    assert run("decompress", f"/dev/fd/{reader}", "-o", "b.png") == (0, b"", [])
    os.close(reader)
    assert listing() == ["a.png", "b.png", "log"]


def test_closed_streams_of_a_real_process(data, published_micro):
    """The file is written, and nothing that is said lands in it, in whose place it may have been opened."""
    save("a.png")
    command = f"{sys.executable} -m clic_jax compress a.png nowhere.png --model {published_micro} <&- >&- 2>&-"
    done = subprocess.run(command, shell=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1 and Path("a.clic").read_bytes() == data and listing() == ["a.clic", "a.png"]


def test_processes_of_a_real_process(published_micro):
    """`python -m clic_jax`, whose processes must find what to call under the package's name."""
    for name in ("a.png", "b.png"):
        save(name)
    command = [sys.executable, "-m", "clic_jax", "compress", "a.png", "b.png", "--jobs", "2"]
    command += ["--model", published_micro]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, b"")
    assert listing() == ["a.clic", "a.png", "b.clic", "b.png"]


def test_info(run, data, monkeypatch, folder):
    Path("x.clic").write_bytes(data)
    status, out, err = run("info", "x.clic", "--json")
    about = json.loads(out)
    assert (status, err) == (0, [])
    assert list(about)[:5] == ["width", "height", "quality", "model", "model_id"]
    assert (about["width"], about["height"], about["quality"], about["model"]) == (60, 40, 50, "micro")
    parts = about["bytes"]
    assert {"total", "header", "z", "y", "pqf"} <= parts.keys()
    assert parts["total"] == len(data) == sum(parts.values()) - parts["total"]
    text = run("info", "x.clic")[1].decode()
    assert "60 x 40" in text and "quality 50" in text and f"{len(data)} bytes" in text and "(micro)" in text
    monkeypatch.setattr("clic_jax.checkpoints.installed.WEIGHTS", folder)
    assert json.loads(run("info", "x.clic", "--json")[1])["model"] is None
    assert "not installed" in run("info", "x.clic")[1].decode()


def test_info_does_without_jax(data):
    Path("x.clic").write_bytes(data)
    code = (
        "import sys, clic_jax.__main__ as m\ntry: m.main(['info', 'x.clic', '--json'])\n"
        "except SystemExit as e: print(e.code, [n for n in ('jax', 'flax', 'orbax') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True
    )
    assert done.stdout.splitlines()[1:] == ["0 []"] and done.stderr == ""


def test_models(run, published_micro, folder, monkeypatch):
    status, out, err = run("models")
    assert (status, err) == (0, [])
    assert out.decode().startswith(f"micro: id {api.installed()['micro']}, quality 1 to 100, 0.1 M parameters, ")
    assert out.decode().rstrip().endswith(str(published_micro))
    assert run("models", published_micro)[1].decode().split(":")[1] == out.decode().split(":")[1]
    monkeypatch.setattr("clic_jax.checkpoints.installed.WEIGHTS", folder)
    assert run("models") == (
        0,
        b"no model is installed; --model FOLDER takes the folder `published` of a training run\n",
        [],
    )
