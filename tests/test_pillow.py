"""The .clic format in Pillow: lazy reading, saving with options, and the package's errors."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image, ImageCms

import clic_jax.pillow
from clic_jax import api
from clic_jax.errors import UserError
from clic_jax.files import container
from tests.conftest import photograph

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ALPHA = np.arange(64 * 60, dtype=np.uint8).reshape(60, 64)


@pytest.fixture(autouse=True)
def micro(published_micro):
    clic_jax.pillow.register(published_micro)
    yield published_micro
    clic_jax.pillow.register()


def saved(pixels, path, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_round_trip(mode, tmp_path, micro):
    x = photograph(60, 64)
    x = x if mode.startswith("RGB") else x[..., 0]
    x = np.dstack([x, ALPHA]) if mode.endswith("A") else x
    path = saved(x, tmp_path / "x.clic", quality=60)
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("CLIC", mode, (64, 60))
        assert image.info["quality"] == 60
        assert np.array_equal(np.asarray(image), api.decompress(path.read_bytes(), model=micro))
        assert image.getpixel((0, 0)) is not None and image.load() is not None  # again
    assert path.read_bytes() == api.compress(x, quality=60, model=micro)


def test_pixels_are_decoded_when_they_are_needed(tmp_path, monkeypatch):
    path = saved(photograph(60, 64), tmp_path / "x.clic")
    calls = []
    decode = api.decompress_image
    monkeypatch.setattr(api, "decompress_image", lambda *a, **k: calls.append(1) or decode(*a, **k))
    image = Image.open(path)
    assert image.size == (64, 60) and not calls
    half = image.resize((32, 30))
    assert half.size == (32, 30) and len(calls) == 1
    image.convert("L")
    assert len(calls) == 1


def test_another_model_is_for_what_comes_after(tmp_path, micro):
    """An image is decoded by the model under which it was opened; later ones, and what is saved, by the next."""
    path = saved(photograph(60, 64), tmp_path / "x.clic")
    image = Image.open(path)
    clic_jax.pillow.register(tmp_path / "nowhere")
    later = Image.open(path)
    assert np.array_equal(np.asarray(image), api.decompress(path.read_bytes(), model=micro))
    for fails in (later.load, lambda: image.save(tmp_path / "y.clic")):
        with pytest.raises(api.NoModel, match="nowhere"):
            fails()
    clic_jax.pillow.register(micro)
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(image))


def test_pickled(tmp_path):
    """As a pool of processes hands images over."""
    image = Image.open(saved(photograph(60, 64), tmp_path / "x.clic"))
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(image))), np.asarray(image))


def test_options(tmp_path, micro):
    x = photograph(60, 64)
    low = saved(x, tmp_path / "low.clic", quality=5, model=micro).stat().st_size
    assert low < saved(x, tmp_path / "high.clic", quality=95).stat().st_size
    searched = saved(x, tmp_path / "searched.clic", model=micro, effort=2).read_bytes()
    assert searched == api.compress(x, model=micro, effort=2)
    with pytest.raises(UserError, match="effort 10 is out of range"):
        saved(x, tmp_path / "none.clic", effort=10)
    exif = Image.Exif()
    exif[0x0110] = "camera"
    for given in (exif, exif.tobytes()):
        image = Image.open(saved(x, tmp_path / "x.clic", icc_profile=PROFILE, exif=given))
        assert image.info["icc_profile"] == PROFILE and image.getexif()[0x0110] == "camera"
    image.save(tmp_path / "again.clic")
    image = Image.open(tmp_path / "again.clic")
    assert image.info["icc_profile"] == PROFILE and image.getexif()[0x0110] == "camera"
    image.save(tmp_path / "plain.clic", metadata=False, icc_profile=None)
    assert not {"exif", "icc_profile"} & Image.open(tmp_path / "plain.clic").info.keys()


def test_options_that_are_none(tmp_path):
    """Pillow would pass them over in silence, or fail with a KeyError."""
    image, frames = Image.fromarray(photograph(60, 64)), {"save_all": True, "append_images": [Image.new("L", (9, 9))]}
    for options, message in (({"qualty": 90}, "no option 'qualty' .*: there are quality, "), (frames, "one picture")):
        with pytest.raises(clic_jax.pillow.OptionError, match=message):
            image.save(tmp_path / "x.clic", **options)
    assert not (tmp_path / "x.clic").exists()
    image.save(tmp_path / "x.clic", save_all=True, quality=20, dpi=(300, 300))
    assert Image.open(tmp_path / "x.clic").info["dpi"] == (300, 300)


def test_streams():
    file = io.BytesIO()
    Image.fromarray(photograph(60, 64)).save(file, "CLIC")
    file.seek(0)
    image = Image.open(file)
    image.load()
    assert image.size == (64, 60) and not file.closed


def test_registered():
    assert Image.registered_extensions()[".clic"] == "CLIC"
    assert Image.MIME["CLIC"] == "image/x-clic"


def test_errors_keep_their_names(tmp_path, monkeypatch):
    path = saved(photograph(60, 64), tmp_path / "x.clic")
    data = path.read_bytes()
    with pytest.raises(container.Truncated):
        Image.open(io.BytesIO(data[:-5]))
    with pytest.raises(container.Damaged):
        Image.open(io.BytesIO(data[:-5] + bytes(5)))
    clic_jax.pillow.register()
    monkeypatch.setattr("clic_jax.checkpoints.installed.WEIGHTS", tmp_path)
    image = Image.open(path)  # needs no model
    with pytest.raises(container.ModelMismatch):
        image.load()
    with pytest.raises(api.NoModel):
        saved(photograph(60, 64), tmp_path / "y.clic")
    assert not (tmp_path / "y.clic").exists()
