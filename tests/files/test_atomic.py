"""Files are written whole or not at all."""

import builtins
import os
import stat

import pytest

from clic_jax.files import atomic


def test_writes_a_new_file_and_replaces_an_old_one(tmp_path):
    path = tmp_path / "a.clic"
    atomic.write(path, b"old, and longer")
    atomic.write(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.clic"]


def test_a_name_without_folder_and_the_longest_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b" * 255):
        atomic.write(name, b"x")
    assert len(os.listdir()) == 2


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    atomic.write(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


class _FullDisk:
    """A file of which the first half can be written."""

    def __init__(self, file, error):
        self.file, self.error = file, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        raise self.error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "^C"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    path = tmp_path / "a.clic"
    path.write_bytes(b"old")
    monkeypatch.setattr(atomic, "open", lambda *a: _FullDisk(builtins.open(*a), error), raising=False)
    with pytest.raises(type(error)) as caught:
        atomic.write(path, b"never seen")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.clic"]
    if isinstance(error, OSError):
        assert str(caught.value) == f"[Errno 28] No space left on device: '{path}'"


def test_a_failed_replacement_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        atomic.write(tmp_path / "a", b"x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("target, kind", [("none/a", FileNotFoundError), ("file/a", NotADirectoryError)])
def test_errors_name_the_target_and_not_the_temporary_file(tmp_path, target, kind):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(kind) as caught:
        atomic.write(tmp_path / target, b"x")
    assert caught.value.filename == str(tmp_path / target)
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError):
        atomic.write(tmp_path, b"x")


def test_links_are_followed(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    atomic.write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"new"


def test_descriptors_are_written_to_where_they_are(tmp_path):
    """As a shell's >> and groups leave them: what is there stays, what is written comes behind it."""
    log = tmp_path / "log"
    log.write_bytes(b"before ")
    with open(log, "ab", buffering=0) as file:
        names = [f"/dev/fd/{file.fileno()}", tmp_path / "link"]
        names[1].symlink_to(names[0])
        for name in names:
            atomic.write(name, b"ours ")
        file.write(b"after")
    assert log.read_bytes() == b"before ours ours after" and sorted(os.listdir(tmp_path)) == ["link", "log"]
    with pytest.raises(OSError, match="descriptor: '/dev/fd/999'"):
        atomic.write("/dev/fd/999", b"x")


def test_pipes_are_written_to(tmp_path):
    """By a descriptor, as of >(...), and by a name in a folder."""
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    reader, writer = os.pipe()
    for name, end in ((f"/dev/fd/{writer}", reader), (tmp_path / "fifo", fifo)):
        atomic.write(name, b"x")
        assert os.read(end, 10) == b"x"
        os.close(end)
    with pytest.raises(BrokenPipeError):
        atomic.write(f"/dev/fd/{writer}", b"x")
    os.close(writer)
    assert stat.S_ISFIFO(os.stat(tmp_path / "fifo").st_mode) and os.listdir(tmp_path) == ["fifo"]


def test_what_is_no_file_is_written_to_and_not_replaced():
    before = os.stat(os.devnull)
    atomic.write(os.devnull, b"x")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode) and os.stat(os.devnull).st_ino == before.st_ino
