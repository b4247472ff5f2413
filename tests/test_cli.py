"""The wrapper of the command lines: what a user did wrong is one line, what we did wrong is a traceback."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from clic_jax import cli, processes
from clic_jax.bulk import engines
from clic_jax.config import ConfigError, preset
from experiments import cli as experiments_cli
from tests.conftest import ROOT

COMMANDS = [
    path for path in sorted((ROOT / "experiments").rglob("*.py")) if "\ndef main(argv=None)" in path.read_text()
]


def outcome(action, capsys):
    """(exit status, standard error) of a command whose main is `action`."""
    with pytest.raises(SystemExit) as exit_:
        cli.run(action)
    return exit_.value.code, capsys.readouterr().err


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize("status", [None, 0, 3])
def test_status(status, capsys):
    assert outcome(lambda: status, capsys) == (status, "")


@pytest.mark.parametrize(
    "error, message",
    [
        (ConfigError("no preset 'x';\nthere are tiny"), "no preset 'x'; there are tiny"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/a"), "runs/a: Permission denied"),
        (OSError("no answer from the server"), "no answer from the server"),
        (OSError(), "OSError"),
    ],
)
def test_user_errors(error, message, capsys):
    assert outcome(raising(error), capsys) == (2, f"tests.test_cli: error: {message}\n")


@pytest.mark.parametrize(
    "error, message",
    [
        (ConfigError("is not one"), "a.png: is not one"),
        (ConfigError("a.png: is not one"), "a.png: is not one"),
        (PermissionError(errno.EACCES, "Permission denied", "a.png"), "a.png: Permission denied"),
        (PermissionError(errno.EACCES, "Permission denied", "b.png"), "a.png: b.png: Permission denied"),
    ],
)
def test_errors_of_a_file_name_it_once(error, message):
    assert cli.error_text(error, "a.png") == message


def test_a_name_of_its_own(capsys):
    with pytest.raises(SystemExit):
        cli.run(raising(ConfigError("no")), "clic-jax")
    assert capsys.readouterr().err == "clic-jax: error: no\n"


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_experiments_end_alike(path):
    """The last lines of every experiment hand its main to this wrapper, by way of one module."""
    text = path.read_text()
    assert re.search(r"^from experiments import .*\bcli\b", text, re.M) and experiments_cli.run is cli.run
    assert text.endswith('\n\nif __name__ == "__main__":\n    cli.run(main)\n')


def _ready():
    """Nothing to do before the first item."""


def _die(name):
    if name == "b":
        os._exit(9)


def test_a_process_that_is_killed_is_one_line(capsys):
    """As by a system that runs out of memory."""
    message = "tests.test_cli: error: a process ended before its time, perhaps for lack of memory: try fewer --jobs\n"

    def main():
        list(engines.results(_die, ["a", "b", "c"], jobs=2, cluster=None, set_up=_ready))

    assert outcome(main, capsys) == (2, message)


BUSY = """import os, pathlib, time
def ready():
    pass
def wait(name):
    pathlib.Path(name).write_text(str(os.getpid()))
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="signals to a group are for POSIX")
@pytest.mark.parametrize(
    "number, status, said",
    [
        (signal.SIGINT, 130, "command: interrupted\n"),
        (signal.SIGTERM, 143, ""),
        (signal.SIGHUP, 129, ""),
        (signal.SIGKILL, -9, None),
    ],
)
def test_processes_end_with_their_parent(tmp_path, number, status, said):
    """At once, without a traceback of theirs, though they are busy; a terminal sends Ctrl-C to all of them."""
    (tmp_path / "busy.py").write_text(BUSY)
    body = (
        "import busy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # nohup and the like ignore
    )
    body += "[signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)]; "  # some of them
    body += "from clic_jax.bulk import engines; "
    body += "list(engines.results(busy.wait, ['a', 'b'], jobs=2, cluster=None, set_up=busy.ready))"
    process = start(tmp_path, body, "-m", "command", start_new_session=True)
    names, limit = [tmp_path / "a", tmp_path / "b"], time.monotonic() + 100
    while not all(name.exists() and name.read_text() for name in names) and time.monotonic() < limit:
        time.sleep(0.05)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    said_by_all = process.communicate(timeout=20)[1]  # which comes when all of them have closed their streams
    assert process.returncode == status and said_by_all == said or said is None


def _cores(name):
    Path(name).write_text(" ".join(map(str, sorted(os.sched_getaffinity(0)))))
    time.sleep(2)  # so that the other process takes the other file


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can bind a process to processors")
def test_processes_share_the_processors(tmp_path):
    names = [str(tmp_path / name) for name in "ab"]
    done = engines.results(_cores, names, jobs=2, cluster=None, set_up=_ready)
    assert sorted(done) == [(name, None) for name in names]
    found = [set(Path(name).read_text().split()) for name in names]
    everything = {str(core) for core in os.sched_getaffinity(0)}
    assert found[0] | found[1] == everything and (len(everything) == 1 or not found[0] & found[1])


def _blas(item):
    return os.environ["OPENBLAS_NUM_THREADS"], processes.processors()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can bind a process to processors")
def test_libraries_share_the_processors(monkeypatch):
    """BLAS counts the processors before they are shared out, so it is told; the user's word counts."""
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    share = max(processes.processors() // 2, 1)
    told = dict(engines.results(_blas, "ab", jobs=2, cluster=None, set_up=_ready))  # whichever ends first comes first
    assert told == {c: (str(share), share) for c in "ab"}
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    assert {told for _, (told, _) in engines.results(_blas, "ab", jobs=2, cluster=None, set_up=_ready)} == {"7"}


def test_interrupt(capsys):
    assert outcome(raising(KeyboardInterrupt()), capsys) == (130, "tests.test_cli: interrupted\n")


@pytest.mark.parametrize("error", [ValueError("a bug"), TypeError("a bug"), AssertionError()])
def test_faults_keep_their_traceback(error):
    with pytest.raises(type(error)) as raised:
        cli.run(raising(error))
    assert raised.value is error


def test_library_errors_are_user_errors(capsys):
    status, text = outcome(lambda: preset("huge"), capsys)
    assert status == 2 and "no preset 'huge'" in text


def start(folder, body, *how, file="command.py", program=sys.executable, stdout=subprocess.PIPE, **more):
    """A process, Python started in this way, in whose `file` is a command with `body` as its main."""
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(
        f"from clic_jax import cli\ndef main():\n    {body}\nif __name__ == '__main__':\n    cli.run(main)\n"
    )
    return subprocess.Popen(
        [program, *how],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


@pytest.mark.parametrize(
    "how, file, name",
    [
        (("-m", "command"), "command.py", "command"),
        (("./command.py",), "command.py", "command.py"),
        (("-m", "package.command"), "package/command/__main__.py", "package.command"),
    ],
)
def test_name_of_the_command(tmp_path, how, file, name):
    process = start(tmp_path, "open('nowhere/x')", *how, file=file)
    assert process.communicate()[1] == f"{name}: error: nowhere/x: No such file or directory\n"
    assert process.returncode == 2


@pytest.mark.parametrize(
    "closed, body, status, said",
    [
        (">&-", "print('x')", 0, ""),
        (">&-", "cli.standard_output().write(b'x')", 2, "command.py: error: standard output is closed"),
        ("<&-", "cli.standard_input().read()", 2, "command.py: error: standard input is closed"),
        ("2>&-", "open('new', 'w').write('x'); open('nowhere/x')", 2, ""),
        ("2>&-", "cli.batch('ab', open, 'x', UserWarning)", None, ""),
        ("2>/dev/full", "open('nowhere/x')", 2, ""),
    ],
)
def test_streams_that_are_closed(tmp_path, closed, body, status, said):
    """No traceback, nothing of what is said in a file or in another stream."""
    process = start(tmp_path, body, "-c", f'sh -c "exec {sys.executable} command.py {closed}"', program="/bin/sh")
    out, err = process.communicate()
    assert (process.returncode, out) == (status or 0, "")
    assert err.startswith(said) and len(err.splitlines()) == bool(said)
    assert not (tmp_path / "new").exists() or (tmp_path / "new").read_text() == "x"


THREADS = """
    import sys, threading, types
    def run(work, *arguments):
        thread = threading.Thread(target=work, args=arguments)
        thread.start()
        thread.join()
    run(open, 'nowhere/x')
    callback = types.SimpleNamespace(exc_type=ValueError, exc_value=ValueError('late'), exc_traceback=None)
    callback.err_msg = callback.object = None
    sys.unraisablehook(callback)
    run(int, 'a bug')
"""


def test_errors_of_other_threads(tmp_path):
    """What the system refuses is a line, what comes after the first error nothing, a bug keeps its traceback."""
    first, *rest = start(tmp_path, THREADS.strip(), "-m", "command").communicate()[1].splitlines()
    assert first == "command: warning: nowhere/x: No such file or directory"
    assert rest[-1].startswith("ValueError: invalid literal") and not any("late" in line for line in rest)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_is_full(tmp_path):
    with open("/dev/full", "w") as full:
        process = start(tmp_path, "print('x')", "command.py", stdout=full)
    assert process.communicate()[1] == "command.py: error: No space left on device\n"
    assert process.returncode == 2


class Odd(UserWarning):
    """For the tests of batches."""


@pytest.mark.parametrize("bad, status", [("", 0), ("b", 1), ("abc", 2)])
def test_batch(bad, status, capsys):
    seen = []

    def work(name):
        seen.append(name)
        warnings.warn("not shown", stacklevel=1)
        warnings.warn("odd", Odd, stacklevel=1)
        if name in bad:
            raise ConfigError("is bad")

    assert cli.batch("abc", work, "x", Odd) == status
    expected = [f"x: {line}" for n in "abc" for line in [f"warning: {n}: odd"] + [f"error: {n}: is bad"] * (n in bad)]
    assert seen == list("abc") and capsys.readouterr().err.splitlines() == expected


@pytest.mark.parametrize("error", [TypeError("a bug"), BrokenPipeError(), KeyboardInterrupt()])
def test_what_stops_a_batch(error):
    with pytest.raises(type(error)):
        cli.batch("ab", lambda name: raising(error)(), "x", Odd)


def test_reader_that_goes_away(tmp_path):
    process = start(tmp_path, "print('x' * 10**6)", "-m", "command")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141
