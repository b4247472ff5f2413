"""The committed results are of the models that ship: new weights or arithmetic make old figures fail here."""

import json

import pytest

from clic_jax.checkpoints import installed
from experiments.paths import RESULTS

FILES = sorted(RESULTS.rglob("*.json"))
OF_THE_DEFAULT = ("portability.json", "referee.json", f"{installed.DEFAULT_MODEL}.json")  # README rests on these


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(RESULTS).as_posix())
def test_models_are_installed_and_machines_named(path):
    result = json.loads(path.read_text())
    if path.name == "published_kodak.json":  # others' figures, with their sources
        return
    assert result["machine"]
    known = installed.installed()
    assert result.get("model_id") in {None, *known.values()}, f"measured with other weights: {path.name}"
    if path.name in OF_THE_DEFAULT:
        assert result["model_id"] == known[installed.DEFAULT_MODEL], f"measure {path.name} anew: other weights"


def test_all_of_them_are_there():
    assert set(OF_THE_DEFAULT) <= {path.name for path in FILES}
