"""Many files between the two runtimes: `FILES=10000 python -m pytest -m slow tests/light/test_many.py -s`.

With XLA_FLAGS=--xla_backend_optimization_level=3 in front it takes a quarter of an hour on two cores, else five times
as long.
"""

import os

import numpy as np
import pytest

from clic_jax import api
from clic_jax.quality import Quality
from tests.conftest import photograph

SIZES = (64, 64), (64, 128), (128, 64)
FILES = int(os.environ.get("FILES", 300))  # written by each runtime, read by the other


def picture(rng, height, width):
    """A photograph, noise, or stripes, at any contrast."""
    kind, contrast = rng.integers(3), rng.uniform(0, 1)
    if kind == 0:
        x = photograph(height, width, int(rng.integers(2**31)))
    elif kind == 1:
        x = rng.integers(0, 256, (height, width, 3))
    else:
        x = 255 * (np.add.outer(np.arange(height), np.arange(width)) // rng.integers(1, 9) % 2)[..., None].repeat(3, 2)
    return np.uint8(128 + contrast * (x.astype(float) - 128))


@pytest.mark.slow
def test_many_files_each_way():
    """Every checksum of the integers agrees, of latents that photographs never give as well."""
    codecs = {name: api.open_model("clic-compact", runtime=name) for name in ("onnx", "jax")}
    rng, size = np.random.default_rng(0), 0
    for _ in range(FILES):
        height, width = SIZES[rng.integers(len(SIZES))]
        x, quality = picture(rng, height, width), Quality(int(rng.integers(100, 10001)))
        for writer, reader in (("jax", "onnx"), ("onnx", "jax")):
            coded, latents = codecs[writer].encode(x, quality)
            filtered = coded.pqf_bytes is not None
            found = codecs[reader].read(coded.stream, filtered, coded.check, height, width, quality)  # or it raises
            # what is corrected by the filter's maps is float32
            np.testing.assert_allclose(found.y_hat, latents.y_hat, atol=1e-3 if filtered else 0)
            size += len(coded.stream)
    print(f"\n{FILES} files each way, {size} bytes: all latents equal")
