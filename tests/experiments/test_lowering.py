"""The programs of the codec and of training for CUDA and TPU, as far as a machine without either can tell."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax import config, runtime
from clic_jax.model.clic import CLIC
from clic_jax.training import steps
from experiments.lowering import __main__ as lowering
from experiments.lowering import findings, programs, targets
from experiments.paths import RESULTS
from tests.micro import MICRO, MICRO_PAPER


def step_of(micro, devices=1, **train):
    micro = dataclasses.replace(micro, train=dataclasses.replace(micro.train, **train))
    return programs.of_training(micro, steps.make_mesh(jax.devices()[:devices]), side=64)


@pytest.mark.parametrize("micro", [MICRO, MICRO_PAPER], ids=["tiny", "paper"])
def test_codec(micro):
    """Lowers for both, calls nothing outside, and multiplies with every digit of float32."""
    rows = []
    for program in programs.of_codec(micro.model, height=64, width=128):
        rows += lowering.rows_of(program, micro.name, "codec", None)
    assert [findings.faults(row) for row in rows] == [[]] * len(rows)
    assert {row["platform"] for row in rows} == {"cuda", "tpu"}
    assert {row["quick"] for row in rows} == {0}
    by_name = {row["program"]: row for row in rows}
    for name in ("analyse", "hyper", "feature", "synthesise", "maps", "fitted", "corrected", "searched"):
        assert by_name[name]["exact"] > 0, name
    assert {row["exact"] for row in rows if "step" in row["program"]} == {0}  # integers, without digits to lose


STEPS = {
    "soap": (MICRO, {"optimizer": "soap"}),
    # everything else that a step may do otherwise
    "muon": (
        MICRO_PAPER,
        {"optimizer": "muon", "remat": True, "accumulate": 2, "metric": "ms-ssim", "crop": 192, "batch": 16},
    ),
}


@pytest.mark.parametrize("case", STEPS)
def test_training_step(case):
    """The same of a step in float32: entropy model, loss, optimiser, and the transforms as well."""
    micro, train = STEPS[case]
    rows = lowering.rows_of(step_of(micro, 8, **train), micro.name, "train", None)
    assert [findings.faults(row) for row in rows] == [[], []]
    assert all(row["exact"] > 0 and row["quick"] == 0 for row in rows)


def test_quick_products_are_the_transforms_alone():
    """What a compute type makes quick is in g_a, g_s and h_a; their choices of centres keep every digit."""
    parts = ("g_a", "g_s", "h_a", "h_s", "prior", "context", "basis_0")
    step, where = step_of(MICRO, dtype="tensorfloat32"), {"exact": set(), "quick": set()}
    for equation in findings.equations(step.function.trace(*step.arguments).jaxpr.jaxpr):
        for kind in findings.kinds_of(equation):
            where[kind] |= {part for part in parts if part in str(equation.source_info.name_stack)}
    assert where["quick"] == {"g_a", "g_s", "h_a"}
    assert {"g_a", "g_s", "h_s", "context", "basis_0"} <= where["exact"] and "h_a" not in where["exact"]


def test_compute_types_on_a_cpu():
    """tensorfloat32 is a declaration: a CPU computes the very same. The others differ, from it and each other."""
    params, x, found = programs.parameters(MICRO.model), np.float32(np.random.default_rng(0).random((1, 64, 64, 3))), []
    for dtype in (None, "tensorfloat32", "bfloat16_products", "bfloat16"):
        model = CLIC(MICRO.model, dtype)
        found.append(jax.jit(lambda p, m=model: m.apply({"params": p}, x, jnp.ones(1), method=CLIC.analyse)[0])(params))
    assert (found[0] == found[1]).all()
    errors = [np.abs(y - found[0]).mean() for y in found[2:]]
    assert 0 < errors[0] < errors[1] < 0.05 * np.abs(found[0]).mean()
    with pytest.raises(config.ConfigError, match="float32, tensorfloat32, bfloat16_products, bfloat16, not 'float16'"):
        dataclasses.replace(MICRO.train, dtype="float16")


def test_faults_are_found():
    """A product without a precision, float64 and a call of the host fail, and a program that cannot be lowered."""

    def row(function, *arguments):
        return lowering.rows_of(programs.Program("f", jax.jit(function), arguments), "none", "codec", None)[0]

    a = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    assert findings.faults(row(lambda a: a + 1, a)) == []
    assert findings.faults(row(lambda a: a @ a, a)) == ["1 dots or convolutions without a declared precision"]
    assert findings.faults(row(lambda a: jnp.matmul(a, a, precision="highest"), a)) == []
    assert row(lambda a: jnp.matmul(a, a, precision="default"), a)["quick"] == 1
    assert findings.faults(row(lambda a: (jax.debug.callback(print, a), a)[1], a)) != []
    with runtime.doubles():
        assert "arrays of float64" in findings.faults(row(lambda a: a.astype(jnp.float64) + 1, a))[0]
    assert findings.faults(row(lambda a: a.nothing, a))[0].startswith("AttributeError: ")


def test_combinations():
    """Of everything, and one change at a time; batches divide over the devices."""
    every = list(programs.training_configs(config.TINY, True))
    few = list(programs.training_configs(config.TINY, False))
    assert len(set(every)) == len(every) == 4 * 3 * 2 * 2 and len(set(few)) == len(few) == 1 + 3 + 2 + 1 + 1
    assert set(few) < set(every)
    assert all(chosen.train.batch % devices == 0 for chosen, devices in every)


def test_command_line(tmp_path, monkeypatch, capsys):
    """A line for each program, a file with the versions, status 1 where one fails."""
    monkeypatch.setitem(config.PRESETS, "tiny", MICRO)
    monkeypatch.setattr(lowering.os, "environ", dict(lowering.os.environ))
    out = tmp_path / "new" / "table.json"
    assert lowering.main(["--presets", "tiny", "--parts", "codec", "--out", str(out)]) == 0
    said = capsys.readouterr()
    result = json.loads(out.read_text())
    assert said.out == f"{len(result['programs'])} programs, 0 failed\n" and result["failed"] == 0
    assert len(said.err.splitlines()) == len(result["programs"]) and " ok     cuda micro " in said.err
    assert result["versions"]["jax"] == jax.__version__ and result["machine"] and result["target"] is None
    monkeypatch.setattr(
        programs, "of_codec", lambda *_: [programs.Program("bad", jax.jit(lambda a: a @ a), (np.eye(2),))]
    )
    assert lowering.main(["--presets", "tiny", "--parts", "codec"]) == 1
    assert "FAILED cuda micro    codec bad: 1 dots" in capsys.readouterr().err
    with pytest.raises(config.ConfigError, match="no preset 'huge'"):
        lowering.main(["--presets", "huge"])


def test_without_a_compiler_one_line(monkeypatch):
    """What is missing, and how to get it."""
    monkeypatch.setitem(targets.TARGETS, "v5e", targets.TARGETS["v5e"]._replace(devices=lambda count: 1 / 0))
    with pytest.raises(targets.NoCompiler, match=r"no compiler for v5e here \(division by zero\): make lowering, then"):
        targets.devices("v5e", 1)


@pytest.mark.parametrize("path", sorted((RESULTS / "lowering").glob("*.json")), ids=lambda path: path.stem)
def test_committed_tables(path):
    """None failed, and who compiled it; what is compiled may be of some presets alone."""
    result = json.loads(path.read_text())
    assert result["failed"] == 0 == sum(bool(findings.faults(row)) for row in result["programs"])
    presets = {row["preset"] for row in result["programs"]}
    assert presets <= set(config.PRESETS) and (result["target"] or presets == set(config.PRESETS))
    assert {row["part"] for row in result["programs"]} == {"codec", "train"}
    assert set(targets.TARGETS[result["target"]].packages if result["target"] else ["jax"]) <= set(result["versions"])
