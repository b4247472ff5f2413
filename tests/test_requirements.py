"""One list of dependencies, in pyproject.toml: each says what it is for, and requirements.txt points there."""

import re
import tomllib

from tests.conftest import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
EXTRAS = PROJECT["optional-dependencies"]


def names(requirements: list[str]) -> set[str]:
    """The packages named, those of our own extras in place of the extras."""
    found = set()
    for requirement in requirements:
        ours = re.fullmatch(r"clic_jax\[([\w,]+)\]", requirement)
        found |= (
            names(sum((EXTRAS[extra] for extra in ours[1].split(",")), []))
            if ours
            else {re.match(r"[\w-]+", requirement)[0]}
        )
    return found


def test_requirements_name_what_they_install():
    """The one line that pip reads is this package with extras that exist; the names above it are for the reader."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    (line,) = (line for line in lines if not line.startswith("#"))
    extras = re.fullmatch(r"--editable \.\[([\w,]+)\]", line)[1].split(",")
    told = [line.split()[1:] for line in lines if line.startswith("#   ")]
    installed = names(PROJECT["dependencies"] + sum((EXTRAS[extra] for extra in extras), []))
    assert sorted(sum(told, [])) == sorted(installed)
    assert {"jax", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "pytest"} <= installed


def test_no_package_has_two_ranges():
    ranges = {}
    for requirement in PROJECT["dependencies"] + sum(EXTRAS.values(), []):
        name, extra, versions = re.fullmatch(r"([\w-]+)(\[[\w,]+\])?(.*)", requirement).groups()
        if not extra:
            assert versions and name not in ranges, name
            ranges[name] = versions
    assert len(ranges) > 20


def test_every_range_says_what_it_is_for():
    bare = [line for line in PYPROJECT.splitlines() if re.match(r' +"[\w-]+[<>=]', line) and "  # " not in line]
    assert not bare


def test_the_light_install_has_the_ranges_of_the_full_one():
    lines = [line.split("  #")[0] for line in (ROOT / "requirements-runtime.txt").read_text().splitlines()]
    light = [line for line in lines if line and not line.startswith("#")]
    assert set(light) <= set(PROJECT["dependencies"]) and len(light) == 5
