"""Published folders that mean harm: refused in one line, before orbax obeys them; nothing outside is read."""

import json
import os
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tensorstore

from clic_jax import api
from clic_jax.checkpoints import limits
from clic_jax.checkpoints.arrays import CheckpointError
from clic_jax.config import ConfigError
from clic_jax.errors import UserError
from clic_jax.settings import from_json

# orbax leaves coroutines behind when files are damaged; they complain when they are collected
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

KEY = "prior.median"  # an array of one axis


@pytest.fixture
def folder(published_micro, tmp_path) -> Path:
    return Path(shutil.copytree(published_micro, tmp_path / "micro"))


def database(folder):
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/params/"}).result()


def edit_array(folder, **changes):
    """Another layout of KEY."""
    store = database(folder)
    about = json.loads(store.read(f"{KEY}/.zarray").result().value)
    store.write(f"{KEY}/.zarray", json.dumps(about | changes).encode()).result()


def edit_json(folder, name, change):
    """`change` of the contents of a JSON file, in place."""
    tree = json.loads((folder / name).read_text())
    change(tree)
    (folder / name).write_text(json.dumps(tree))


def huge_shape(folder):
    edit_array(folder, shape=[2**40], chunks=[1])


def huge_sum(folder):
    edit_array(folder, shape=[2**28 + 1], chunks=[1])


def huge_pieces(folder):
    edit_array(folder, chunks=[2**32])  # 8.4 GB were allocated for these


def bomb(folder):
    """40 kB that unfold to 1.3 GB, in the place of a stored array."""
    frame = b"\x28\xb5\x2f\xfd\x00\x58" + b"\x02\x00\x10\x01" * 10_000 + b"\x03\x00\x10\x01"
    database(folder).write(f"{KEY}/0", frame).result()


def other_compressor(folder):
    edit_array(folder, compressor={"id": "bz2", "level": 9})


def pickled(folder):
    edit_array(folder, dtype="|O")


def elsewhere(folder):
    """An array by its path, which orbax would read."""
    outside = folder.parent / "outside"
    layout = {"shape": [4], "chunks": [4], "dtype": "<f4", "compressor": None}
    spec = {"driver": "zarr", "kvstore": f"file://{outside}/", "metadata": layout, "create": True}
    tensorstore.open(spec).result()[...] = 7
    level, kind = {"key": str(outside), "key_type": 2}, {"value_type": "np.ndarray", "skip_deserialize": False}
    tree = {"('x',)": {"key_metadata": [level], "value_metadata": kind}}
    edit_json(folder, "params/_METADATA", lambda about: about.update(tree_metadata=tree, use_ocdbt=False))


def elsewhere_in_database(folder):
    elsewhere(folder)
    edit_json(folder, "params/_METADATA", lambda about: about.update(use_ocdbt=True))


def other_driver(folder):
    edit_json(folder, "params/_METADATA", lambda about: about.update(use_zarr3=True))


def text_array(folder):
    def change(about):
        next(iter(about["tree_metadata"].values()))["value_metadata"]["value_type"] = "string"

    edit_json(folder, "params/_METADATA", change)


def link(folder):
    path = next((folder / "params" / "d").iterdir())
    path.symlink_to(path.rename(folder.parent / "outside"))


def linked_folder(folder):
    path = folder / "params" / "d"
    path.symlink_to(path.rename(folder.parent / "outside"))


def linked_text(folder):
    (folder / "coding.json").unlink()
    (folder / "coding.json").symlink_to("/dev/zero")


def pipe(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def long_text(folder):
    with open(folder / "coding.json", "r+b") as file:
        file.truncate(2**36)  # which takes no room on the disk


def nested_text(folder):
    (folder / "config.json").write_text("[" * 10**6)


def list_for_object(folder):
    (folder / "checkpoint.json").write_text("[]")


def no_id(folder):
    edit_json(folder, "checkpoint.json", lambda about: about.pop("model_id"))  # found by `make fuzz`


def legacy_file(folder):
    (folder / "params" / "checkpoint").write_bytes(b"\x80")


def many_files(folder):
    for i in range(60):
        (folder / "params" / "d" / f"{i:032x}").write_bytes(b"")


def huge_tables(folder):
    edit_json(folder, "coding.json", lambda coding: coding["prior"][0].update(first=10**30))


def exponents_missing(folder):
    edit_json(folder, "coding.json", lambda coding: coding.pop("exponents"))


def other_shapes(folder):
    edit_json(folder, "config.json", lambda config: config["model"].update(parameter_widths=[17]))


ATTACKS = {
    huge_shape: "no shape",
    huge_sum: "more than 1073741824 bytes",
    huge_pieces: "pieces larger than itself",
    bomb: "unfold to more than 1073741824 bytes",
    other_compressor: "another way than ours",
    pickled: "type object",
    elsewhere: "one OCDBT database",
    elsewhere_in_database: "a name in its list",
    other_driver: "one OCDBT database",
    text_array: "has a string",
    link: "a link or no file.*cp -rL",
    linked_folder: "a link or no file",
    linked_text: "coding.json is a link",
    pipe: "config.json is a link or no file",
    long_text: "coding.json has more than 16777216 bytes",
    nested_text: "recursion",
    list_for_object: "if it is damaged",
    no_id: "model_id",
    legacy_file: "not of a published folder, 'checkpoint'",
    many_files: "more than 50 files",
    huge_tables: "leaves -32768..32767",
    exponents_missing: "exponents",
    other_shapes: "by its config.json",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_refused_in_one_line_before_the_work(folder, attack, monkeypatch):
    monkeypatch.setattr(limits, "MAX_FILES", 50)
    api._open.__wrapped__(str(folder), "jax")
    attack(folder)
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with pytest.raises(UserError, match=ATTACKS[attack]) as caught:
            api._open.__wrapped__(str(folder), "jax")
    except AssertionError:
        forge(folder)  # what only the model id gave away
        with pytest.raises(UserError, match=ATTACKS[attack]) as caught:
            api._open.__wrapped__(str(folder), "jax")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert time.monotonic() - start < 60  # 0.1 s on an idle machine
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB


def forge(folder):
    """Gives a changed folder the model id that it now has."""
    with pytest.raises(CheckpointError, match="has the id") as caught:
        api._open.__wrapped__(str(folder), "jax")
    identity = str(caught.value).split("has the id ")[1][:8]
    (folder / "checkpoint.json").write_text(json.dumps({"format": 1, "model_id": identity}))


def test_a_database_cannot_point_outside_its_folder(folder):
    """Tensorstore itself refuses a key with .. in it, which this holds it to."""
    context, params = tensorstore.Context(), folder / "params"
    spec = {"driver": "ocdbt", "base": "memory://x/params/", "config": {"max_inline_value_bytes": 0}}
    store = tensorstore.KvStore.open(spec | {"value_data_prefix": "../outside/v"}, context=context).result()
    source = database(folder)
    for key in source.list().result():
        store.write(key, source.read(key).result().value).result()
    shutil.rmtree(params / "d")
    shutil.rmtree(params / "ocdbt.process_0")
    files = tensorstore.KvStore.open("memory://x/", context=context).result()
    for key in files.list().result():
        path = Path(os.path.normpath(folder / key.decode()))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files.read(key).result().value)
    assert any((folder / "outside").iterdir())
    with pytest.raises(CheckpointError, match="Invalid key|not of a published folder"):
        api._open.__wrapped__(str(folder), "jax")


def test_a_training_step_with_coding_data_is_no_way_around(folder):
    (folder / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match="cannot write files yet"):
        api._open.__wrapped__(str(folder), "jax")


@pytest.mark.parametrize(
    "name, value",
    [
        ("widths", [16, 2**40]),
        ("widths", "ab"),
        ("widths", [[16], 24]),
        ("groups", [1] * 65),
        ("head_dim", -8),
        ("head_dim", 8.0),
        ("mlp_ratio", float("nan")),
        ("mlp_ratio", "2"),
        ("checkerboard_blocks", 1),
        ("activation", None),
        ("depths", [8192, 1]),
        ("synthesis_depths", [8192, 1]),
    ],
)
def test_a_config_beyond_all_use(published_micro, name, value):
    config = json.loads((published_micro / "config.json").read_text())
    config["model"][name] = value
    with pytest.raises(ConfigError):
        from_json(json.dumps(config))


def test_what_unfolds_is_never_told_too_small(folder):
    """The bound on real frames: at least what they unfold to, and at most a block more for each."""
    store, total, count = database(folder), 0, 0
    for key in store.list().result():
        value = bytes(store.read(key).result().value)
        if not key.endswith(b".zarray"):
            array = tensorstore.open(
                {"driver": "zarr", "kvstore": store.spec().to_json() | {"path": key.rsplit(b"/")[0].decode() + "/"}}
            ).result()
            size = int(np.prod(array.shape)) * array.dtype.numpy_dtype.itemsize
            bound = limits._unfolded(value, 2**40)
            assert size <= bound <= size + 2**17
            total, count = total + size, count + 1
    assert count > 20 and total > 10_000
    with pytest.raises(ValueError, match="unfold"):
        limits._unfolded(b"".join(path.read_bytes() for path in limits._files(folder / "params")), total)
