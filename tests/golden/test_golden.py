"""Files that were written once keep decoding, to the same integers, and a change of any of these is noticed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.checkpoints import arrays, installed, published
from clic_jax.coding import fixedpoint, stored, tables
from tests.golden import pinned

FOLDERS = sorted(path.parent for path in pinned.FOLDER.glob("*/expected.json"))


def expected(folder) -> dict:
    return json.loads((folder / "expected.json").read_text())


@pytest.mark.parametrize("runtime", ("onnx", "jax"))
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_released_files_decode_as_they_did(folder, runtime):
    about = expected(folder)
    pinned.check(pinned.listening(about["name"], runtime), folder.name, about, folder)
    assert len(about["files"]) == len(list(folder.glob("*.clic"))) >= 7


def test_every_installed_model_has_golden_files_and_is_released():
    rows = {row["id"]: row for row in installed.released()}
    assert len(rows) == len(installed.released())
    assert {name: row["id"] for row in rows.values() if row["status"] == "installed" for name in [row["name"]]} == (
        installed.installed()
    )
    assert {folder.name for folder in FOLDERS} == set(installed.installed().values())
    assert all(row["status"] in ("installed", "retired") and row["arithmetic"] for row in rows.values())
    assert all(("commit" in row) == (row["status"] == "retired") for row in rows.values())


def flipped(array, at=0):
    """The array with the last bit of one entry flipped."""
    array = np.array(array)
    array.flat[at] ^= 1
    return array


def kernel(monkeypatch):
    """The last bit of one tap of one kernel."""
    original = fixedpoint.integer_layer

    def changed(*arguments):
        layer = original(*arguments)
        return layer._replace(kernel=flipped(layer.kernel)) if layer.kernel.shape[-2] > 100 else layer

    monkeypatch.setattr(fixedpoint, "integer_layer", changed)


def activation(monkeypatch):
    """The last bit of what comes out for one input, 3 steps above 0."""
    original = fixedpoint.activation_table
    monkeypatch.setattr(
        fixedpoint, "activation_table", lambda name, e: flipped(original(name, e), fixedpoint.LIMIT + 3)
    )


def table(monkeypatch):
    """One unit of one frequency of one table moved to its neighbour."""
    original = stored.slice_tables

    def changed(config, data):
        first, *rest = original(config, data)
        freq = np.array(first[20].freq)
        middle = freq.argmax()
        freq[middle] -= 1
        freq[middle + 1] += 1
        return [(*first[:20], tables.Table(first[20].first, freq), *first[21:]), *rest]

    monkeypatch.setattr(stored, "slice_tables", changed)


def rounding(monkeypatch):
    """Sums rounded down instead of to the nearest: no constant changes, so that only the files can tell."""

    def floor(x, amount):
        return (x >> jnp.maximum(amount, 0)) << jnp.maximum(-amount, 0)

    monkeypatch.setattr(fixedpoint, "shift_right", floor)
    monkeypatch.setattr(pinned, "constants", lambda codec: expected(FOLDERS[0])["constants"])


@pytest.mark.parametrize("mutate", [kernel, activation, table, rounding])
def test_a_changed_bit_is_noticed(mutate, monkeypatch):
    """The same check fails, and says what to do."""
    folder = FOLDERS[0]
    mutate(monkeypatch)
    with pytest.raises(AssertionError, match="docs/format.md"):
        pinned.check(pinned.listening(expected(folder)["name"]), folder.name, expected(folder), folder)


def test_kernels_and_activations_reach_the_files(monkeypatch):
    """Also without the hash of the constants: the integers of the files are other ones."""
    folder = FOLDERS[0]
    kernel(monkeypatch)
    activation(monkeypatch)
    monkeypatch.setattr(pinned, "constants", lambda codec: expected(folder)["constants"])
    with pytest.raises(AssertionError, match="other integers|is refused"):
        pinned.check(pinned.listening(expected(folder)["name"]), folder.name, expected(folder), folder)


def test_another_arithmetic_is_refused_by_name():
    """A model that was published for other integers is never met as a decoder out of step."""
    name = expected(FOLDERS[0])["name"]
    config, params, _ = published.load_published(name)
    data = published.load_coding(name)
    for version in (0, fixedpoint.ARITHMETIC + 1):
        with pytest.raises(stored.OtherArithmetic, match=f"in arithmetic {version}, this clic_jax in arithmetic 1"):
            pinned.Listening(config, params, "00000000", data | {"arithmetic": version})
    params = jax.tree.map(np.asarray, params)
    ids = {arrays.model_id(params, data | {"arithmetic": version}) for version in (1, 2)}
    assert len(ids) == 2  # so that a file names its arithmetic
