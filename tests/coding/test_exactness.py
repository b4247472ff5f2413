"""Real files of the installed model: the encoder's own picture comes out exactly, at the size that the model estimates.

`python -m pytest -m slow tests/coding/test_exactness.py -s` prints the figures: 200 sizes, and Kodak.
"""

import numpy as np
import pytest
from PIL import Image

from clic_jax import api
from clic_jax.files import container
from clic_jax.quality import Quality
from clic_jax.training import evaluation
from tests.conftest import photograph

# heights and widths as padded, in units of 64 pixels: each pair compiles once, whatever is padded to it
PADDED = ((1, 1), (1, 2), (2, 1), (1, 5), (5, 1), (2, 3), (3, 2), (3, 3), (4, 3), (4, 5), (5, 4), (5, 5))


def sizes(count: int, seed: int) -> list[tuple[int, int]]:
    """Random (height, width) up to 320, evenly over PADDED and over all remainders of both sides, 1x1 among them."""
    random = np.random.default_rng(seed)
    rest = [np.concatenate([random.permutation(64) for _ in range(-(-count // 64))])[:count] for _ in range(2)]
    found = [tuple(64 * (n - 1) + 1 + int(r[i]) for n, r in zip(PADDED[i % len(PADDED)], rest)) for i in range(count)]
    return [(1, 1), *found[1:]]


def check(x: np.ndarray, hundredths: int) -> dict:
    """Codes x uint8 [H, W, 3] and back: bytes of the file, of its filter, and of the float model's estimate.

    Fails unless the decoded picture is the one that the encoder made from its own latents.
    """
    model = api.open_model(runtime="jax")
    data = api.compress(x, quality=hundredths / 100, model=model)
    shown = model.show(model.encode(x, Quality(hundredths))[1], *x.shape[:2])
    np.testing.assert_array_equal(api.decompress(data, model=model), shown)
    lmbda = Quality(hundredths).lmbda(model.config.model.lmbdas)
    _, bits = evaluation.reconstruct(model.config.model, model.params, x, lmbda)
    return {"file": len(data), "pqf": container.unpack(data)[0].pqf_bytes or 0, "estimate": bits / 8}


def report(rows: dict):
    """Prints the extremes; fails where file and estimate differ by more than 1 % and 64 bytes."""
    excess = {name: row["file"] - row["pqf"] - row["estimate"] for name, row in rows.items()}
    used = {name: abs(excess[name]) / (0.01 * row["estimate"] + 64) for name, row in rows.items()}
    worst, filtered = max(used, key=used.get), sum(row["pqf"] > 0 for row in rows.values())
    total = sum(excess.values()) / sum(row["estimate"] for row in rows.values())
    print(f"\n{len(rows)} files exact, {filtered} with the filter; {total:+.3%} of the estimate in all,")
    print(f"{min(excess.values()):+.0f} to {max(excess.values()):+.0f} bytes each; nearest to the limit, at", end=" ")
    print(f"{used[worst]:.0%} of it: {worst} {rows[worst]}")
    assert used[worst] <= 1


def test_sizes_cover_every_remainder():
    drawn = sizes(200, 0)
    for axis in range(2):
        assert {side[axis] % 64 for side in drawn} == set(range(64))
    assert {(-(-h // 64), -(-w // 64)) for h, w in drawn} == set(PADDED)


def test_a_few_sizes():
    report(
        {
            (h, w, q): check(photograph(h, w, q), q)
            for (h, w), q in zip(((1, 1), (37, 64), (64, 50)), (100, 5050, 10000))
        }
    )


@pytest.mark.slow
def test_200_sizes():
    random = np.random.default_rng(1)
    rows = {}
    for i, (h, w) in enumerate(sizes(200, 0)):
        hundredths = int(random.integers(100, 10001))
        rows[h, w, hundredths] = check(photograph(h, w, i), hundredths)
    report(rows)


@pytest.mark.slow
def test_kodak(shared):
    paths = sorted((shared / "data" / "kodak").glob("*.png"))
    assert len(paths) == 24
    pictures = {path.stem: np.asarray(Image.open(path).convert("RGB")) for path in paths}
    report({(name, q): check(x, 100 * q) for name, x in pictures.items() for q in (1, 50, 100)})
