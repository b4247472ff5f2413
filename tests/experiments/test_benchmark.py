"""experiments.benchmark through its command line with the micro model, and the arithmetic behind its numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import before, coding, peers, stopwatch
from tests.conftest import QUICK_COMPILER, ROOT, photograph
from tests.micro import EXPERIMENT


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The JSON of a quick run of the micro model, on one device."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "micro.py").write_text(EXPERIMENT)
    command = [sys.executable, "-m", "experiments.benchmark", "--codec", "--train", "--service", "--quick"]
    command += ["--threads", "1", "3"]
    command += ["--preset", str(folder / "micro.py"), "--machine", "a test", "--json", str(folder / "out.json")]
    env = os.environ | {"XLA_FLAGS": QUICK_COMPILER}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(folder / "out.json"))
    return json.loads((folder / "out.json").read_text())


def check_times(found):
    assert 0 < found["min"] <= found["median"] <= found["max"] and found["repetitions"] >= 2


def test_training(result):
    assert result["machine"] == "a test" and "peers" not in result
    (row,) = result["train"]
    assert (row["preset"], row["batch"], row["crop"], row["dtype"]) == ("micro", 1, 64, "float32")
    check_times(row["seconds"])
    assert row["compiling"]["compile_seconds"] > 0 and row["compiling"]["temporary_mib"] > 0
    assert row["pixels_per_second"] == pytest.approx(64**2 / row["seconds"]["median"])
    rate = row["compiling"]["macs"] / row["seconds"]["median"]
    assert row["mfu"] == pytest.approx(rate / row["matmul_peak_macs_per_second"]) and 0 < row["mfu"] < 1
    assert np.isfinite(row["loss"]) and row["peak_rss_mib"] > 100


def test_service(result):
    (found,) = result["service"]  # the micro model is not exported
    assert (found["preset"], found["runtime"], found["size"]) == ("micro", "jax", [64, 64])
    assert [row["threads"] for row in found["rows"]] == [1, 3] and found["peak_rss_mib"] > 100
    for row in found["rows"]:
        check_times(row["encode"])
        check_times(row["decode"])


def test_coding(result):
    (row,) = result["codec"]
    assert row["preset"] == "micro" and row["size"] == [64, 64]
    for direction in ("encode", "decode"):
        whole, parts = row[direction], dict(row["parts"][direction])
        check_times(whole["seconds"])
        assert whole["first"]["programs"] > 0 and whole["first"]["seconds"] > whole["first"]["compile_seconds"] > 0
        assert whole["programs_compiled_when_warm"] == 0
        total = parts.pop("whole")["seconds"]
        assert set(parts) == set(coding.PARTS)
        assert sum(part["seconds"] for part in parts.values()) == pytest.approx(total)
        assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
        assert all(part["seconds"] >= 0 for part in parts.values())
        networks = {"hyper", "entropy_parameters", "g_s" if direction == "decode" else "g_a"}
        assert networks <= {name for name, part in parts.items() if "mfu" in part}
        assert all(0 < part["mfu"] < 1 for part in parts.values() if "mfu" in part)
        needed = networks | {"coder"}  # what the container takes is among "other"
        assert all(parts[name]["calls"] and parts[name]["seconds"] for name in needed)
        assert whole["macs"] == sum(part.get("macs", 0) for part in parts.values())
        check_times(row["coder_alone"][direction]["seconds"])
    latents = 24 * 4 * 4 + 8  # y and z; the filter's coefficients join them where it pays
    assert row["coder_alone"]["symbols"] in (latents, latents + 8 * 2)
    assert 0 < row["coder_alone"]["bytes"] < row["bytes"]
    check_times(row["png"]["read"])
    check_times(row["png"]["write"])


def test_sizes_and_cold_starts(result):
    (row,) = result["codec"]
    sizes = row["by_size"]
    assert [entry["side"] for entry in sizes["sizes"]] == [64, 128] and sizes["fitted_from"] == 64
    assert np.isfinite([sizes["encode_exponent"], sizes["decode_exponent"]]).all()
    for entry in sizes["sizes"]:
        median = entry["encode"]["seconds"]["median"]
        assert entry["encode"]["pixels_per_second"] == pytest.approx(entry["side"] ** 2 / median)
    for state in ("empty_cache", "filled_cache"):
        cold = row["cold"][state]
        assert cold["seconds"]["min"] > 0 and cold["peak_rss_mib"] > 100 and cold["cpu_seconds"]["min"] > 0


def test_exponent():
    pixels = np.array([512, 1024, 2048]) ** 2
    assert coding.exponent(pixels, 3e-7 * pixels**1.05) == pytest.approx(1.05)
    assert coding.exponent([100], [1.0]) is None
    assert coding.exponent([100, 200], [1.0, -1.0]) is None


def test_mirrored():
    x = photograph(5, 7)
    assert np.array_equal(coding.mirrored(x, 3, 4), x[:3, :4])
    y = coding.mirrored(x, 13, 30)
    assert np.array_equal(y[:5, :7], x) and np.array_equal(y[5:10, :7], x[::-1]) and np.array_equal(y[10:, :7], x[:3])
    assert np.array_equal(y[:5, 7:14], x[:, ::-1]) and y.shape == (13, 30, 3)


def test_parts_inside_parts(monkeypatch):
    """The outer part's time is without the inner one's, however deep."""
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    watch = stopwatch.Stopwatch()

    def spend(seconds, *inner):
        now[0] += seconds
        for function in inner:
            function()

    deepest = watch.wrap("c", lambda: spend(4))
    middle = watch.wrap("b", lambda: spend(2, deepest, deepest))
    watch.wrap("a", lambda: spend(1, middle, deepest))()
    assert watch.seconds == {"a": 1, "b": 2, "c": 12} and watch.calls == {"a": 1, "b": 1, "c": 3}


def test_repetitions(monkeypatch):
    """At least two, at most `most`, and none begun after `limit` seconds."""
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])

    def second():
        now[0] += 1

    for most, limit, expected in ((10, 0.0, 2), (10, 4.0, 4), (3, 100.0, 3)):
        assert stopwatch.repeat(second, most, limit) == [1.0] * expected
    assert stopwatch.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "repetitions": 3}


def test_classical_peers(tmp_path, monkeypatch):
    """Pillow's codecs, each in its process, in turns; of the others none."""
    monkeypatch.setattr(peers, "MODELS", ())
    arrays = tmp_path / "x.npz"
    np.savez(arrays, image=photograph(64, 64)[None], crops=photograph(64, 64)[None])
    rows = peers.measure([], peers.others(True, None), arrays, peers.cases(1, [1], True), 3, 100.0)
    assert [(row["model"], row["op"]) for row in rows] == [
        (f"Pillow {name}", op) for op in ("compress", "decompress") for name in ("avif", "webp")
    ]
    for row in rows:
        check_times(row["seconds"])
        assert row["seconds"]["repetitions"] == 3 and row["threads"] == 1 and 10 < row["peak_rss_mib"] < 500


@pytest.mark.slow
def test_compressai(tmp_path):
    """Both models of CompressAI do what is asked."""
    if not peers.PYTHON.exists():
        pytest.skip("needs .venv-peers, which `make peers` makes")
    arrays = tmp_path / "x.npz"
    np.savez(arrays, image=photograph(64, 64)[None], crops=photograph(64, 64)[None])
    rows = peers.measure([], peers.others(True, None), arrays, peers.cases(1, [1], True), 2, 0.0)
    found = [row["op"] for row in rows if row["model"].startswith("CompressAI")]
    assert found == [op for op in ("forward", "forward_backward", "compress", "decompress") for _ in range(2)]


@pytest.mark.slow
def test_authors(tmp_path):
    """Their training step, from a checkout that $CLIC_CHECKOUT names."""
    if not (checkout := os.environ.get("CLIC_CHECKOUT")) or not peers.PYTHON.exists():
        pytest.skip("needs $CLIC_CHECKOUT, a checkout of 1chizhang/CLIC, and .venv-peers, which `make peers` makes")
    arrays = tmp_path / "x.npz"
    np.savez(arrays, image=photograph(64, 64)[None], crops=photograph(64, 64)[None])
    rows = peers.measure([], peers.others(False, Path(checkout)), arrays, peers.cases(2, [1], False), 2, 0.0)
    assert [(row["model"], row["op"]) for row in rows] == [
        ("the authors' CLIC", op) for op in ("forward", "forward_backward")
    ]
    assert rows[1]["seconds"]["median"] > rows[0]["seconds"]["median"] > 0


OLDER = """
import json, sys, time
from pathlib import Path
from experiments.benchmark.stopwatch import serve

assert json.loads((Path(sys.argv[1]) / "config.json").read_text()) == {"older": "some"}
assert (Path(sys.argv[1]) / "params").exists()
calls = []

def forward(batch):
    time.sleep(0.01 if calls else 0.1)
    calls.append(batch)

serve({"forward": forward})
"""


def test_an_older_checkout(tmp_path):
    """Its worker and its presets are asked, from its folder; the first call of a new process is told apart."""
    checkout, model, copies = tmp_path / "older", tmp_path / "model", tmp_path / "copies"
    with pytest.raises(peers.PeersError, match="git worktree add"):
        before.check(checkout)
    for file, text in {
        "clic_jax/__init__.py": "",
        "clic_jax/config.py": 'def preset(name):\n    return {"older": {"some": name}[name]}',
        "clic_jax/settings.py": "from json import dumps as to_json",
        "experiments/benchmark/worker.py": OLDER,
        "experiments/benchmark/stopwatch.py": (ROOT / "experiments/benchmark/stopwatch.py").read_text(),
    }.items():
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).write_text(text)
    before.check(checkout)
    model.mkdir()
    (model / "config.json").write_text('{"newer": 1}')
    (model / "params").write_text("as they are")
    found = before.processes(checkout, {"some": str(model), "installed": "clic-some"}, copies)
    assert [process.label for process in found] == ["clic_jax some at older", "clic_jax installed at older"]
    assert found[1].name == "clic-some" and (model / "config.json").read_text() == '{"newer": 1}'
    (row,) = peers.measure(found[:1], [], tmp_path / "none.npz", [peers.Case(1, "forward", 1)], 3, 1.0)
    check_times(row["seconds"])
    assert row["model"] == "clic_jax some at older" and row["seconds"]["repetitions"] == 3
    assert row["seconds"]["max"] < 0.1 <= row["first_seconds"] and row["first_peak_rss_mib"] > 1
    with pytest.raises(peers.PeersError, match="has no preset other: KeyError: 'other'"):
        before.processes(checkout, {"other": str(model)}, copies)


def test_a_process_that_fails(tmp_path):
    with pytest.raises(peers.PeersError, match="process of webp has ended with status 1"):
        peers.Worker(peers.Process("webp", "worker", "webp"), tmp_path / "none.npz", 1, tmp_path)


def test_bad_command_lines(monkeypatch, tmp_path, capsys):
    wrong = ([], ["--codec", "--crop", "100"], ["--codec", "--sizes", "0"])
    for arguments in wrong:
        with pytest.raises(SystemExit) as stop:
            benchmark.main([*arguments, "--json", str(tmp_path / "x.json")])
        assert stop.value.code == 2
    with pytest.raises(peers.PeersError, match="has no compressai/models"):
        benchmark.main(["--authors", str(tmp_path), "--json", str(tmp_path / "x.json")])
    with pytest.raises(peers.PeersError, match="git worktree add"):
        benchmark.main(["--before", str(tmp_path), "--json", str(tmp_path / "x.json")])
    monkeypatch.setattr(peers, "PYTHON", tmp_path / "python")
    with pytest.raises(peers.PeersError, match="make peers"):
        benchmark.main(["--peers", "--json", str(tmp_path / "x.json")])
    assert not list(tmp_path.iterdir())
