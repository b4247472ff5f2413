"""The table of what a fallback gains: its numbers are those of files."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from clic_jax import api, metrics
from clic_jax.files import classical, container, images
from experiments import fallback_gain
from tests.conftest import photograph


@pytest.fixture
def few(monkeypatch):
    """One small drawn picture in the place of all."""
    x = np.repeat(255 * (np.indices((64, 64)).sum(0) % 2).astype(np.uint8)[..., None], 3, 2)
    monkeypatch.setattr(fallback_gain, "drawn", lambda: {"checkerboard": x})
    return x


def test_rows_and_table(few, published_micro, tmp_path, capsys):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(photograph(64, 80 + i)).save(folder / f"{i}.png")
    common = ("--model", str(published_micro), "--qualities", "30", "--fallback", "webp")
    assert fallback_gain.main(["--data", str(folder), "--images", "2", *common, "--out", str(tmp_path / "x.json")]) == 0
    result = json.loads((tmp_path / "x.json").read_text())
    assert "webp" in result["encoder"] and str(tmp_path) not in (tmp_path / "x.json").read_text()
    rows = result["rows"]["photographs"]
    assert [row["name"] for row in rows] == ["0.png", "1.png"]
    (drawn,) = result["rows"]["drawn"]
    assert (drawn["kept"], drawn["lossless"], drawn["error_with"]) == ("webp", True, 0)
    data = api.compress(folder / "0.png", quality=30, model=published_micro, fallback="webp")
    assert rows[0]["bytes_with"] == len(data) and rows[0]["kept"] == container.peek(data).get("classical")
    x, most = images.read_rgb(folder / "0.png"), min(rows[0]["error"], rows[0]["flat"])
    files = [classical.encode("webp", x, quality) for quality in range(101)]
    fits = [len(f) for f in files if metrics.squared_error(x, np.asarray(Image.open(io.BytesIO(f)))) <= most]
    assert rows[0]["alone"] == min(fits, default=None)
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["photographs", "drawn"]
    assert all(line.count("|") == head.count("|") for line in lines)


@pytest.mark.parametrize("count, expected", [(2, "02"), (3, "012"), (4, "0123"), (9, "0123")])
def test_evenly_spaced_and_never_twice(count, expected, tmp_path, few):
    for i in range(4):
        Image.fromarray(photograph(8, 8 + i)).save(tmp_path / f"{i}.png")
    found = fallback_gain.groups([str(tmp_path)], count)[tmp_path.name]
    assert "".join(name[0] for name in found) == expected
    assert all(x.shape == (8, 8 + int(name[0]), 3) for name, x in found.items())


def test_folders_without_images(tmp_path):
    with pytest.raises(images.ImageError, match="no images"):
        fallback_gain.groups([str(tmp_path)], 1)


def test_what_is_drawn_is_the_same_each_time():
    first, second = fallback_gain.drawn(), fallback_gain.drawn()
    assert {"text", "window", "chart", "checkerboard"} <= set(first)
    for name, x in first.items():
        assert x.dtype == np.uint8 and x.ndim == 3 and x.shape[2] == 3
        np.testing.assert_array_equal(x, second[name])
