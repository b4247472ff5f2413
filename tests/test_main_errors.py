"""The command line and input that is no picture, no file of ours, or no sense: one line, the right status, no file."""

# ruff: noqa: F811

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_main import FULL, ROOT, X, data, folder, listing, run, save  # noqa: F401


def damaged(data: bytes) -> dict[str, tuple[bytes, str]]:
    """Files that are not right, by name, and what is said about them."""
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 4
    return {
        "flipped": (bytes(flipped), "damaged"),
        "cut": (data[:-9], "cut short"),
        "long": (data + b"more", "too many"),
        "png": (b"\x89PNG\r\n\x1a\n", "not a .clic file"),
        "empty": (b"", "cut short"),
        "new": (data[:3] + b"\x03" + data[4:], "version 3"),
        "other": (data[:4] + bytes(4) + data[8:], "damaged"),
    }


@pytest.mark.parametrize("name", ["flipped", "cut", "long", "png", "empty", "new", "other"])
@pytest.mark.parametrize("command", [["decompress"], ["decompress", "-o", "y.png"], ["info"]])
def test_damaged_files(run, data, name, command):
    content, text = damaged(data)[name]
    Path("x.clic").write_bytes(content)
    status, out, err = run(command[0], "x.clic", *command[1:])
    assert (status, out, len(err)) == (2, b"", 1)
    assert err[0].startswith("clic-jax: error: x.clic: ") and text in err[0]
    assert listing() == ["x.clic"]


def test_damaged_file_does_not_replace_the_output(run, data):
    Path("x.clic").write_bytes(data[:-9])
    Path("y.png").write_bytes(b"old")
    assert run("decompress", "x.clic", "-o", "y.png")[0] == 2
    assert Path("y.png").read_bytes() == b"old"


@pytest.mark.parametrize("command", ["compress", "decompress", "info"])
def test_files_that_are_none(run, command):
    Path("folder").mkdir()
    folder = "is a directory" if command == "info" else "holds no "
    for name, text in (("nowhere.x", "no such file"), ("folder", folder), (".", folder)):
        status, out, err = run(command, name)
        assert (status, out, len(err)) == (2, b"", 1)
        assert err[0].lower().startswith(f"clic-jax: error: {name}: ") and text in err[0].lower()
    assert listing() == ["folder"]


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"P6\n0 5\n255\n", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]
)
def test_pictures_that_are_none(run, content):
    Path("a.png").write_bytes(content)
    status, out, err = run("compress", "a.png")
    assert (status, out, len(err)) == (2, b"", 1) and err[0].startswith("clic-jax: error: a.png: ")
    assert listing() == ["a.png"]
    assert run("compress", "-", stdin=content)[2][0].startswith("clic-jax: error: -: ")


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--quality", "0"], "quality 0 is out of range"),
        (["--quality", "101"], "quality 101 is out of range"),
        (["--quality", "nan"], "quality nan is out of range"),
        (["--quality", "best"], "argument -q/--quality: invalid float value: 'best'"),
        (["--model", "nowhere"], "no model 'nowhere': it is neither a folder nor an installed model (micro)"),
        (["--model", "."], "cannot write files yet"),
        (["-o", "nowhere/x.clic"], "a.png: nowhere/x.clic: No such file or directory"),
        (["-o", "a.png"], "a.png is an input"),
        (["--max-pixels", "2399"], "60 x 40 pixels are more than the limit of 2399"),
        (["-o", "link.png"], "link.png is an input"),
        pytest.param(
            *(["-o", "/dev/full"], "No space left"), marks=pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
        ),
        (["nowhere", "-o", "link.png"], "link.png is not a folder"),
        (["-"], "one input only"),
        (["b.png", "-o", "-"], "one input only"),
        (["a.jpg"], "both become a.clic"),
        (["--what"], "unrecognized arguments: --what"),
        (["--model", "s3://bucket/x"], "s3://bucket/x is an address, not a path"),
    ],
)
def test_bad_arguments_of_compress(run, arguments, text):
    save("a.png")
    os.symlink("a.png", "link.png")
    before = Path("a.png").read_bytes()
    status, out, err = run("compress", "a.png", *arguments)
    assert (status, out, len(err)) == (2, b"", 1), err
    assert err[0].startswith("clic-jax: error: ") and text in err[0]
    assert listing() == ["a.png", "link.png"] and Path("a.png").read_bytes() == before


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--model", "nowhere"], "no model 'nowhere'"),
        (["-o", "x.txt"], "suffix '.txt'"),
        (["-o", "x.clic"], "suffix '.clic'"),
        (["-o", "nowhere/x.png"], "No such file"),
        (["--max-pixels", "2399", "-o", "y.png"], "60 x 40 pixels are more than the limit of 2399"),
        ([], "x.png exists"),
    ],
)
def test_bad_arguments_of_decompress(run, data, arguments, text, monkeypatch):
    monkeypatch.delitem(Image.EXTENSION, ".clic", raising=False)  # of the tests of the plugin
    Path("x.clic").write_bytes(data)
    Path("x.png").write_bytes(b"original")
    status, out, err = run("decompress", "x.clic", *arguments)
    assert (status, out, len(err)) == (2, b"", 1) and text in err[0], err
    assert listing() == ["x.clic", "x.png"] and Path("x.png").read_bytes() == b"original"


@pytest.mark.parametrize("arguments", [[], ["what"], ["compress"], ["info"], ["info", "a", "b"]])
def test_usage(run, arguments):
    status, out, err = run(*arguments)
    assert (status, out, len(err)) == (2, b"", 1) and err[0].startswith("clic-jax: error: ")


@pytest.mark.parametrize("arguments", [["--help"], ["compress", "--help"], ["decompress", "--help"]])
def test_help(run, arguments):
    status, out, err = run(*arguments)
    assert (status, err) == (0, []) and out.startswith(b"usage: clic-jax")


def test_no_model(run, data, folder, monkeypatch):
    monkeypatch.setattr("clic_jax.checkpoints.installed.WEIGHTS", folder)
    save("a.png")
    Path("x.clic").write_bytes(data)
    status, _, err = run("compress", "a.png")
    assert status == 2 and len(err) == 1 and "--model FOLDER" in err[0]
    status, _, err = run("decompress", "x.clic")
    assert status == 2 and len(err) == 1 and "it needs model" in err[0]
    assert listing() == ["a.png", "x.clic"]


def test_wrong_model(run, data, folder, published_micro):
    from clic_jax.files.container import pack, unpack

    header, stream, extras = unpack(data)
    header = type(header)(**vars(header) | {"model_id": "00000000"})
    Path("x.clic").write_bytes(pack(header, stream, extras))
    status, _, err = run("decompress", "x.clic", "--model", published_micro)
    assert status == 2 and len(err) == 1 and "it needs model 00000000, not" in err[0]


def test_only_what_was_named_is_overwritten(run, data):
    """By whichever way a name comes about; and an input not even then."""
    save("a.png")
    save("a.jpg")
    original = Path("a.png").read_bytes()
    Path("a.clic").write_bytes(data)
    Path("out").mkdir()
    for name in ("out/a.clic", "out/a.png"):
        Path(name).write_bytes(b"old")
    routes = (["compress", "a.jpg"], ["compress", "a.jpg", "-o", "out"], ["compress", "a.jpg", "-o", "."])
    routes += (["decompress", "a.clic"], ["decompress", "a.clic", "-o", "."], ["decompress", "a.clic", "-o", "out/"])
    for route in routes:
        status, _, (line,) = run(*route)
        assert status == 2 and line.endswith(" exists: to replace it, name it with -o, or give --force"), route
    assert run("decompress", "a.clic", "-o", "a.clic", "--force")[0] == 2
    assert Path("a.png").read_bytes() == original and Path("a.clic").read_bytes() == data
    assert [Path(name).read_bytes() for name in ("out/a.clic", "out/a.png")] == [b"old"] * 2
    assert (
        run("compress", "a.png", "-o", "out/a.clic") == run("decompress", "a.clic", "-o", "out", "-f") == (0, b"", [])
    )
    assert Path("out/a.clic").read_bytes() == data and Image.open("out/a.png").size == (60, 40)


def test_an_input_given_twice_is_done_once(run):
    save("a.png")
    assert run("compress", "a.png", "a.png") == (0, b"", [])


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[2Jb.png"])
def test_one_line_whatever_the_name(run, name):
    Path(name).write_bytes(b"no picture")
    status, _, err = run("compress", name)
    assert status == 2 and err == [f"clic-jax: error: {repr(name)[1:-1]}: not an image that Pillow can read"]
    assert len(run("compress", name, "--what")[2]) == len(run("compress", "-o", name, "b.png")[2]) == 1


def test_home_folder(run, folder, monkeypatch):
    """Every option that names a file understands ~, as does the shell where it can."""
    monkeypatch.setenv("HOME", str(folder))
    save("a.png")
    assert run("compress", "~/a.png", "-o", "~/b.clic", "--model", "micro") == (0, b"", [])
    assert run("info", "~/b.clic")[0] == run("decompress", "~/b.clic", "--output=~/c.png")[0] == 0
    assert listing() == ["a.png", "b.clic", "c.png"]
    assert f"no model '{folder}/nowhere'" in run("models", "~/nowhere")[2][0]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
def test_what_never_ends_is_refused_at_its_start(run, folder):
    """By info, decompress and compress, by name and on standard input."""
    for command in (["info"], ["decompress", "-o", "x.png"], ["compress", "-o", "x.clic"]):
        status, _, (line,) = run(*command, "/dev/zero")
        assert status == 2 and ("not a .clic file" in line or "not an image" in line)
    with open("/dev/zero", "rb") as endless:
        for command in (["info"], ["decompress", "-o", "x.png"]):
            assert "not a .clic file" in run(*command, "-", stdin=endless)[2][0]


def test_a_batch_goes_on(run, data):
    save("a.png")
    Path("b.png").write_bytes(b"no picture")
    save("c.png")
    status, out, err = run("compress", "a.png", "b.png", "c.png")
    assert (status, out, len(err)) == (1, b"", 1) and err[0].startswith("clic-jax: error: b.png: ")
    assert listing() == ["a.clic", "a.png", "b.png", "c.clic", "c.png"]
    Path("a.clic").write_bytes(data[:-9])
    status, _, err = run("decompress", "a.clic", "c.clic", "-o", "out")
    assert (status, len(err)) == (1, 1) and err[0].startswith("clic-jax: error: a.clic: cut short")
    assert [path for path in listing() if path.startswith("out")] == ["out", "out/c.png"]
    assert run("decompress", "a.clic", "b.png", "-o", "none")[0] == 2
    assert not Path("none").exists()


def test_warnings_are_one_line(run):
    save("a.png", X[..., 0].astype(np.uint16) * 257)
    assert run("compress", "a.png") == (
        0,
        b"",
        ["clic-jax: warning: a.png: its 16-bit samples are reduced to 8 bits"],
    )


def test_reader_that_goes_away(data, published_micro):
    """A pipe that closes is no mistake of the user's; and no file is left."""
    Path("x.clic").write_bytes(data)
    command = [sys.executable, "-m", "clic_jax", "info", "x.clic"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141
