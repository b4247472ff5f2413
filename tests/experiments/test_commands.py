"""Commands in docstrings can be copied: each parses as it stands, and the configs say what to expect of theirs."""

import ast
import importlib
import json
import re
import shlex

import pytest

from clic_jax import settings
from clic_jax.errors import UserError
from experiments.paths import CONFIGS, RESULTS, ROOT
from experiments.train import __main__ as train
from experiments.train import options
from tests.experiments.test_recipes import table

RECIPES = sorted(path.stem for path in CONFIGS.glob("*.py"))
OTHERS = (
    "benchmark/__main__.py",
    "clusters/__main__.py",
    "plot_rd.py",
    "rd_eval/__main__.py",
    "report/__main__.py",
    "tune/__main__.py",
    "visualize.py",
    "web/__main__.py",
)


def commands(path) -> list[tuple[str, list[str]]]:
    """(module, arguments) of every command in the docstring of a file, as a shell reads it: with $lmbda of its loop."""
    text = ast.get_docstring(ast.parse(path.read_text()), clean=False)
    loop = re.search(r"for lmbda in (\S+) ", text)
    joined = re.sub(r"\\\n *", " ", text).replace("$lmbda", loop[1] if loop else "$lmbda")
    words = [shlex.split(line, comments=True) for line in joined.splitlines() if re.match(" +python -m", line)]
    assert words and "python -m" not in re.sub(r"^ +python -m.*$", "", joined, flags=re.M).replace("`python -m", "")
    return [(module, arguments) for _, _, module, *arguments in words]


@pytest.mark.parametrize("recipe", RECIPES)
def test_configs(recipe):
    """The first command trains this config, whose settings can be changed so, into a folder of its own."""
    path = CONFIGS / f"{recipe}.py"
    (module, arguments), *more = commands(path)
    args = train.parse(arguments)
    assert module == "experiments.train" and ROOT / args.config == path
    assert args.data == "folder:PHOTOS" and args.out.parts[0] == "runs" and args.out.name != "runs"
    settings.override(options.chosen(args), args.set)
    for module, arguments in more:
        importlib.import_module(f"{module}.__main__").parse(arguments)


def test_home_folder(monkeypatch):
    """~ in an option is the home folder, by the one rule of `cli.expanded`, in every command."""
    monkeypatch.setenv("HOME", "/home/us")
    args = train.parse(["--out", "~/runs/a", "--init", "~/b", "--config", "~/c.py"])
    assert (str(args.out), args.init, args.config) == ("/home/us/runs/a", "/home/us/b", "/home/us/c.py")
    for path in (ROOT / "experiments").rglob("*.py"):
        assert not re.search(r"type=Path\b|\.expanduser\(", path.read_text()), path


@pytest.mark.parametrize("option", ["--out", "--init", "--config", "--data"])
def test_addresses_are_no_folders(option, tmp_path, monkeypatch, capsys):
    """Told before anything is compiled, and no folder called gs: is made in the working one."""
    monkeypatch.chdir(tmp_path)
    address, small = "gs://bucket/a", ["--valid", "none", "--set", "train.batch=8"]
    with pytest.raises((SystemExit, UserError)) as stopped:
        train.main([option, f"folder:{address}" if option == "--data" else address, *small])
    said = str(stopped.value) if option == "--data" else capsys.readouterr().err
    assert "gs://bucket/a is an address, not a path: copy it here, or mount the bucket" in said
    assert not (tmp_path / "gs:").exists()


@pytest.mark.parametrize("name", OTHERS)
def test_experiments(name):
    found = commands(ROOT / "experiments" / name)
    own = ".".join(["experiments", *name.removesuffix(".py").removesuffix("/__main__").split("/")])
    assert own in {module for module, _ in found}
    for module, arguments in found:
        where = f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module
        importlib.import_module(where).parse(arguments)


@pytest.mark.parametrize("recipe", RECIPES)
def test_configs_say_what_to_expect(recipe):
    assert "Expected" in (CONFIGS / f"{recipe}.py").read_text()


@pytest.mark.parametrize("recipe", ["tiny", "compact"])
def test_expected_figures_are_those_of_the_weights(recipe):
    measured = json.loads((RESULTS / "kodak" / f"clic-{recipe}.json").read_text())
    stated = table(recipe)
    assert stated["quality"] == measured["quality"]
    assert stated["bpp"] == pytest.approx(measured["results"]["bpp"], abs=5.1e-4)
    assert stated["PSNR, dB"] == pytest.approx(measured["results"]["psnr-rgb"], abs=5.1e-3)


def test_a_broken_command_is_found(tmp_path):
    """What these tests are for: a line broken without a backslash, and a command that no one would find."""
    (tmp_path / "a.py").write_text(
        '"""A.\n\n    python -m experiments.train --data folder:PHOTOS --out\n    runs/a\n"""\n'
    )
    ((_, arguments),) = commands(tmp_path / "a.py")
    with pytest.raises(SystemExit):
        train.parse(arguments)
    (tmp_path / "b.py").write_text('"""B.\n\npython -m experiments.train\n"""\n')
    with pytest.raises(AssertionError):
        commands(tmp_path / "b.py")
