"""Golden files of a model that is released: `python -m tests.golden.write clic-compact`, once and never again."""

import io
import json
import sys
from unittest import mock

import numpy as np
from PIL import Image, ImageCms

from clic_jax import api
from clic_jax.coding import coefficients
from clic_jax.files import container
from clic_jax.quality import Quality
from tests.conftest import photograph
from tests.golden import pinned


def png(x: np.ndarray, **info) -> io.BytesIO:
    """x as an open PNG file."""
    file = io.BytesIO()
    Image.fromarray(x).save(file, "PNG", **info)
    file.seek(0)
    return file


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 [height, width, 3], full of detail of all sizes, so that many symbols and tables are used."""
    random, x = np.random.default_rng(seed), photograph(height, width, seed).astype(np.float64)
    for block in (2, 5, 11, 23):
        noise = random.normal(0, 18, (-(-height // block), -(-width // block), 3))
        x += np.kron(noise, np.ones((block, block, 1)))[:height, :width]
    return np.clip(x, 0, 255).astype(np.uint8)


def cases() -> dict[str, tuple]:
    """(picture, quality) of each file, small, and most of one padded size."""
    colour = picture(101, 123, 1)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        "colour": (colour, 50),
        "best": (picture(96, 128, 2), 100),
        "one_pixel": (colour[:1, :1], 33.25),
        "grey": (picture(90, 70, 3)[..., 0], 60),
        "alpha": (np.dstack([picture(128, 97, 4), photograph(128, 97, 5)[..., :1] // 128 * 255]), 70),
        "icc": (png(picture(70, 128, 6), icc_profile=profile), 20),
        "filtered": (picture(64, 64, 7), 20),
        pinned.TILED: (picture(120, 310, 8), 40),
    }


def main() -> None:
    """Writes the folder of the model named on the command line."""
    codec = pinned.listening(sys.argv[1])
    folder = pinned.FOLDER / codec.model_id
    if folder.exists():
        raise SystemExit(f"{folder} exists: what is released does not change")
    partial = folder.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    expected = {"name": sys.argv[1], "constants": pinned.constants(codec), "files": {}}
    for name, (x, quality) in cases().items():
        if name == "filtered" and not codec.tries_filter(Quality.of(quality)):
            continue
        tile = pinned.SMALLEST_TILE if name == pinned.TILED else 1024
        # in so small a picture the filter pays only if it is free
        with mock.patch.object(coefficients, "bits", np.zeros_like if name == "filtered" else coefficients.bits):
            data = api.compress(x, quality=quality, model=codec, tile=tile)
        assert (container.unpack(data)[0].pqf_bytes is not None) == (name == "filtered")
        expected["files"][name], shown = pinned.decoded(codec, data, tile)
        (partial / f"{name}.clic").write_bytes(data)
        np.savez_compressed(partial / f"{name}.npz", sample=pinned.sample(shown))
    (partial / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    partial.rename(folder)


if __name__ == "__main__":
    main()
