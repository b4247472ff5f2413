"""What the golden files pin of a released model: the integers it is made of, and all that its files decode to.

tests/golden/MODEL_ID/ holds a few .clic files, a sample of each decoded picture, and expected.json. Nothing in it ever
changes; a model that is released gets a folder of its own by `python -m tests.golden.write NAME`.
`python -m tests.golden` checks all of them where JAX is not installed.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np

from clic_jax import api
from clic_jax.checkpoints import installed
from clic_jax.coding.codec import Codec
from clic_jax.errors import UserError
from clic_jax.light import programs

FOLDER = Path(__file__).parent
TILED = "tiled"  # the file that is decoded in tiles of the smallest size
SMALLEST_TILE = 256
REMEDY = (
    "files written before can no longer be decoded. If that was not meant, undo it. If it was, give "
    "fixedpoint.ARITHMETIC (or container.VERSION) a new number and publish new models: docs/format.md"
)


class Listening(Codec):
    """A codec that hashes every integer that its decoder goes through: means, raw scales, gains, symbols, y_hat."""

    def run_schedule(self, z, quality, code):
        digest = hashlib.sha256(np.asarray(z, "<i4").tobytes())

        def heard(k, colour, mean, raw, gain):
            y_hat = code(k, colour, mean, raw, gain)
            for integers in (mean, raw, gain, y_hat):
                digest.update(np.asarray(integers, "<i4").tobytes())
            return y_hat

        latents = super().run_schedule(z, quality, heard)
        self.heard = digest.hexdigest()
        return latents


def listening(name: str, runtime: str = "jax") -> Listening:
    """The codec of an installed model or a published folder, that of "onnx" with its programs and stored integers."""
    data = json.loads((installed.folder_of(name) / "coding.json").read_text())
    if runtime == "jax":
        from clic_jax.checkpoints import published

        return Listening(*published.load_published(name), data)
    light = programs.load(name)
    return Listening(light.config, light.params, light.model_id, data, programs=light.programs)


def constants(codec: Codec) -> str:
    """SHA-256 of every integer that a model's files rest on: kernels, biases, shifts, activations, tables."""
    digest, context = hashlib.sha256(), codec.programs.context
    for array in map(np.asarray, _leaves((context.hyper, context.channel, context.spatial, context.parameters))):
        digest.update(f"{array.dtype.name} {array.shape}".encode() + array.tobytes())
    for table in (*codec.prior, *(table for part in codec.tables for table in part)):
        digest.update(f"{table.first} {table.freq.size}".encode() + table.freq.astype("<i4").tobytes())
    return digest.hexdigest()


def _leaves(tree):
    """As jax.tree.leaves."""
    if isinstance(tree, dict):
        tree = [tree[key] for key in sorted(tree)]
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [] if tree is None else [tree]


def decoded(codec: Listening, data: bytes, tile: int) -> tuple[dict, np.ndarray]:
    """({"integers": SHA-256, "picture": SHA-256}, the picture) of a file."""
    picture = np.array(api.decompress_image(data, model=codec, tile=tile))
    return {"integers": codec.heard, "picture": hashlib.sha256(picture.tobytes()).hexdigest()}, picture


def sample(picture: np.ndarray) -> np.ndarray:
    """Every sixth pixel of every sixth row: what is kept of a picture to compare it with, to one grey level."""
    return picture[::6, ::6]


def check(codec: Listening, model_id: str, expected: dict, folder: Path) -> None:
    """Raises: AssertionError, naming the file and the remedy, where anything is not as it was."""
    assert codec.model_id == model_id, f"model {model_id} has the id {codec.model_id}: {REMEDY}"
    assert constants(codec) == expected["constants"], (
        f"{model_id}: a kernel, an activation or a table is another: {REMEDY}"
    )
    for name, hashes in expected["files"].items():
        data = (folder / f"{name}.clic").read_bytes()
        try:
            found, picture = decoded(codec, data, SMALLEST_TILE if name == TILED else 1024)
        except UserError as error:
            raise AssertionError(f"{model_id}/{name}.clic is refused ({error}): {REMEDY}") from error
        assert found["integers"] == hashes["integers"], f"{model_id}/{name}.clic has other integers: {REMEDY}"
        if found["picture"] != hashes["picture"]:  # float32: another machine may be a grey level off
            kept = np.load(io.BytesIO((folder / f"{name}.npz").read_bytes()))["sample"]
            assert np.abs(sample(picture).astype(int) - kept).max() <= 1, f"{model_id}/{name}.clic: other pixels"
