"""Mutations of published folders, for the tests and for `make fuzz`: each changes a copy with a random.Random.

`opened` says what became of one. A folder whose parameters or coding data changed has another model id; `opened` gives
it that, as a forger would, so that half of the mutants get as far as the codec.
"""

import json
import os
import re
import shutil
from pathlib import Path

import tensorstore

from clic_jax import api
from clic_jax.checkpoints.arrays import CheckpointError
from clic_jax.errors import UserError

VALUES = (0, 1, -1, 2, 64, 255, 8192, 8193, 2**31, 2**40, 10**30, 1.5, -0.0, 1e308, float("nan"), float("inf"))
VALUES += (None, True, "", "x", "../../outside", "/etc/passwd", "file:///etc/", [], {}, [[]], [1] * 100, {"x": 1})
TEXTS = ("config.json", "coding.json", "checkpoint.json", "metrics.json", "params/_METADATA")


def change_json(folder, rng):
    """Another value, of any type, somewhere in a JSON file; or one that is missing, or too many."""
    path = folder / rng.choice(TEXTS)
    tree = json.loads(path.read_text())
    at, depth = tree, rng.randrange(1, 8)
    for _ in range(depth):
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = rng.choice(keys)
        if isinstance(at[key], (dict, list)) and at[key] and rng.randrange(4):
            at = at[key]
            continue
        how = rng.randrange(6)
        if how == 0:
            del at[key]
        elif how == 1 and isinstance(at, list):
            at += [at[key]] * rng.choice((1, 2, 1000))
        else:
            at[key] = rng.choice(VALUES)
        break
    path.write_text(json.dumps(tree))


def change_text(folder, rng):
    """Bytes of a JSON file: cut, replaced, nested without end, or none."""
    path = folder / rng.choice(TEXTS)
    data = bytearray(path.read_bytes())
    how, at = rng.randrange(4), rng.randrange(len(data))
    if how == 0:
        del data[at:]
    elif how == 1:
        data[at] = rng.randrange(256)
    elif how == 2:
        data[at:at] = rng.choice((b"[", b'{"a":', b"9")) * rng.choice((1, 5000, 100_000))
    else:
        data.clear()
    path.write_bytes(data)


def change_bytes(folder, rng):
    """Bytes of a file of orbax's."""
    path = rng.choice(sorted(p for p in (folder / "params").rglob("*") if p.is_file()))
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) or 1)
        data[at : at + rng.choice((0, 1, 1, 4))] = rng.randbytes(rng.choice((0, 1, 1, 4, 100)))
    path.write_bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data) + 1)))])


def change_array(folder, rng):
    """What zarr says of one array, or its stored values: a bomb, noise, nothing."""
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/params/"}).result()
    key = rng.choice([key for key in store.list().result() if rng.randrange(2) or key.endswith(b".zarray")])
    value = bytes(store.read(key).result().value)
    if key.endswith(b".zarray"):
        about = json.loads(value)
        field = rng.choice(sorted(about))
        about[field] = rng.choice((*VALUES, [2**40], [64] * 4, "<f8", "|O", "<U9", {"id": "blosc"}, {"id": "zlib"}))
        if rng.randrange(3) == 0:
            about["shape"], about["chunks"] = [rng.choice((2**32, 2**40))], [rng.choice((1, 2**20, 2**40))]
        value = json.dumps(about).encode()
    else:
        # frames of blocks that repeat one byte 2^17 times, without the size before them
        bomb = b"\x28\xb5\x2f\xfd\x00\x58" + b"\x02\x00\x10\x01" * rng.choice((1, 100, 30_000))
        value = rng.choice((bomb + b"\x01\x00\x00", b"", rng.randbytes(64), value[: len(value) // 2]))
    store.write(key, value).result()


def change_files(folder, rng):
    """Links, pipes, folders and nothing in the place of a file; files that nobody asked for."""
    path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    path.unlink()
    how = rng.randrange(6)
    if how == 0:
        path.symlink_to(rng.choice(("/dev/zero", "/etc/passwd", path.name, "../../outside")))
    elif how == 1:
        os.mkfifo(path)
    elif how == 2:
        path.mkdir()
    elif how == 3:
        (path.parent / rng.choice(("_sharding", "checkpoint", "d", "x"))).write_bytes(rng.randbytes(99))


MUTATIONS = (change_json, change_json, change_json, change_text, change_bytes, change_array, change_array, change_files)


def mutate(original: Path, folder: Path, rng) -> None:
    """A copy of `original` in `folder`, which may exist, with one to three mutations."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    for _ in range(rng.choice((1, 1, 2, 3))):
        try:
            rng.choice(MUTATIONS)(folder, rng)
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            pass  # the mutation before it left nothing to mutate


def opened(folder: Path) -> str:
    """What became of a published folder: "opened", or the name of its error, a UserError of one line."""
    for attempt in range(2):
        try:
            api._open.__wrapped__(str(folder), "jax")
            return "opened"
        except UserError as error:
            text = str(error)
            assert text and "\n" not in text and len(text) < 2000, text[:3000]
            forged = re.search(r"has the id ([0-9a-f]{8}), not", text)
            if attempt or not forged or not isinstance(error, CheckpointError):
                return type(error).__name__
            (folder / "checkpoint.json").write_text(json.dumps({"format": 1, "model_id": forged[1]}))
    raise AssertionError("not reached")
