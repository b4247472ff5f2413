"""Published folders changed at random: opened or refused, and nothing else. `make fuzz` does it for hours."""

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import folders

# orbax leaves coroutines behind when files are damaged; they complain when they are collected
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_mutated_folders(published_micro, tmp_path, rng):
    folders.mutate(published_micro, tmp_path / "mutant", rng)
    assert folders.opened(tmp_path / "mutant") in (
        "opened",
        "CheckpointError",
        "ConfigError",
        "TableError",
        "UserError",
        "OtherArithmetic",
    )


def test_the_mutations_of_folders_do_what_they_say(published_micro, tmp_path):
    """Each changes a file."""
    before = contents(published_micro)
    for mutation in folders.MUTATIONS:
        shutil.rmtree(tmp_path / "mutant", ignore_errors=True)
        shutil.copytree(published_micro, tmp_path / "mutant")
        mutation(tmp_path / "mutant", random.Random(3))
        assert contents(tmp_path / "mutant") != before, mutation


def contents(folder: Path) -> dict:
    """What is in it, but for links and pipes."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}
