"""compress and decompress: pictures of every size and kind come back, and what cannot be has its own error."""

import dataclasses
import io
import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageCms

import clic_jax
from clic_jax import api
from clic_jax.checkpoints import arrays
from clic_jax.files import container
from clic_jax.files.container import Damaged, ModelMismatch, Tag, TooLarge
from clic_jax.files.images import ImageError
from clic_jax.files.pictures import ImageWarning
from clic_jax.metrics import psnr
from clic_jax.quality import QualityError
from tests.conftest import photograph

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def installed(monkeypatch, published_micro):
    """`micro` is an installed model, and the only one."""
    monkeypatch.setattr("clic_jax.checkpoints.installed.WEIGHTS", published_micro.parent)


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.setattr("clic_jax.checkpoints.installed.WEIGHTS", tmp_path / "weights")


@pytest.fixture(scope="module")
def data(published_micro):
    """The file of photograph(64, 64)."""
    return api.compress(photograph(64, 64), model=published_micro)


def close(a, b) -> bool:
    """Whether the second is a coded form of the first: 28 dB."""
    return a.shape == b.shape and b.dtype == np.uint8 and np.square(a * 1.0 - b).mean() < 100


@pytest.mark.parametrize("height, width", [(1, 1), (1, 200), (17, 31), (64, 64), (65, 129)])
def test_sizes(height, width, installed):
    x = photograph(height, width, 5)
    data = clic_jax.compress(x)
    assert container.peek(data)["bytes"]["header"] <= 24
    assert close(x, clic_jax.decompress(data))


def test_sources_of_decompress(installed, data, tmp_path):
    """The same as those of compress, and an error by name for what is none."""
    path = tmp_path / "x.clic"
    path.write_bytes(data)
    for source in (path, str(path), open(path, "rb"), io.BytesIO(data), bytearray(data), memoryview(data)):
        assert np.array_equal(api.decompress(source), api.decompress(data))
    for source in (None, 43, np.zeros(43, np.uint8)):
        with pytest.raises(container.NotClic, match="bytes, a path or an open file, not "):
            api.decompress(source)
    with pytest.raises(FileNotFoundError):
        api.decompress(tmp_path / "nowhere.clic")


def test_a_limit_of_pixels(installed):
    x = photograph(40, 50)
    with pytest.raises(ImageError, match="50 x 40 pixels are more than the limit of 1999"):
        api.compress(x, max_pixels=1999)
    assert api.compress(x, max_pixels=2000) == api.compress(x, max_pixels=None)


def test_what_is_no_photograph_is_told():
    """Where a released model gives it back worse than its mean colour; of a photograph nothing is told or made."""
    y, x = np.mgrid[:64, :64]
    checkerboard = np.repeat(255 * ((x + y) % 2).astype(np.uint8)[..., None], 3, -1)
    with pytest.warns(ImageWarning, match="no photograph") as told:
        found = api.decompress(api.compress(checkerboard, quality=1, model="clic-tiny"))
    assert len(told) == 1 and psnr(checkerboard, found) < psnr(checkerboard, np.full_like(checkerboard, 128))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImageWarning)
        api.compress(photograph(64, 64), quality=1, model="clic-tiny")


def test_a_file_too_short_for_its_picture(installed, data, monkeypatch):
    """Is refused by its header, before anything of that size is made."""
    header, stream, _ = container.unpack(data)
    header = dataclasses.replace(header, width=2**14, height=2**14, z_bytes=0, pqf_bytes=None)
    monkeypatch.setattr("clic_jax.coding.codec.Codec.read", lambda *_: pytest.fail("was begun"))
    with pytest.raises(Damaged, match="16384 x 16384 pixels are not in 20 bytes"):
        api.decompress(container.pack(header, stream[:20]))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_kinds(channels, installed):
    x = photograph(40, 50)
    alpha = np.arange(2000, dtype=np.uint8).reshape(40, 50)
    x = {1: x[..., 0], 2: np.dstack([x[..., 0], alpha]), 4: np.dstack([x, alpha])}[channels]
    y = api.decompress(api.compress(x))
    assert close(x, y)
    if channels > 1:
        assert np.array_equal(y[..., -1], alpha)


def test_metadata(installed):
    exif = Image.Exif()
    exif[0x0110], exif[0x0112] = "camera", 6
    x, file = photograph(40, 50), io.BytesIO()
    Image.fromarray(x).save(file, "PNG", icc_profile=PROFILE, exif=exif)
    image = api.decompress_image(api.compress(file))
    assert close(np.rot90(x, -1), np.asarray(image))
    assert image.info["icc_profile"] == PROFILE and dict(image.getexif()) == {0x0110: "camera"}
    image = api.decompress_image(api.compress(file, metadata=False))
    assert image.info["icc_profile"] == PROFILE and "exif" not in image.info


def test_quality(published_micro, data):
    x = photograph(64, 64)
    small, large = (api.compress(x, quality=quality, model=published_micro) for quality in (1, 99.99))
    assert len(small) < len(data) < len(large)
    assert container.peek(large)["quality"] == 99.99
    values = [psnr(x, api.decompress(file, model=published_micro)) for file in (small, data, large)]
    assert values == sorted(values)


@pytest.mark.parametrize("quality", [0, 0.99, 100.01, -1, float("nan"), float("inf")])
def test_qualities_out_of_range(quality, nothing_installed):
    with pytest.raises(QualityError, match="1 .* to 100"):
        api.compress(photograph(4, 4), quality=quality)


def test_a_model_is_opened_once(installed, published_micro):
    codec = api.open_model(published_micro)
    assert codec is api.open_model(str(published_micro)) is api.open_model("micro") is api.open_model()


def test_default_model(installed, published_micro, monkeypatch, tmp_path):
    assert api.open_model().model_id == api.installed()["micro"]
    for name in ("a", api.DEFAULT_MODEL, "z"):
        shutil.copytree(published_micro, tmp_path / name)
    monkeypatch.setattr("clic_jax.checkpoints.installed.WEIGHTS", tmp_path)
    assert list(api.installed()) == ["a", api.DEFAULT_MODEL, "z"]
    monkeypatch.setattr(api, "_open", lambda folder, _: folder)
    assert api.open_model() == str(tmp_path / api.DEFAULT_MODEL)


def test_the_file_finds_its_model(installed, data, published_micro):
    assert np.array_equal(api.decompress(data), api.decompress(data, model=published_micro))


def test_no_model(nothing_installed, data):
    assert api.installed() == {}
    with pytest.raises(api.NoModel, match="--model FOLDER"):
        api.compress(photograph(4, 4))
    with pytest.raises(ModelMismatch, match="it needs model"):
        api.decompress(data)


def test_an_unreadable_model_does_not_hide_the_others(installed, published_micro, monkeypatch, tmp_path, data):
    shutil.copytree(published_micro, tmp_path / "micro")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "checkpoint.json").write_text("[")
    monkeypatch.setattr("clic_jax.checkpoints.installed.WEIGHTS", tmp_path)
    assert api.installed() == {"bad": "unreadable", "micro": container.peek(data)["model_id"]}
    codec = api.open_model(published_micro)
    monkeypatch.setattr(api, "_open", lambda folder, _: {str(tmp_path / "micro"): codec}[folder])
    assert api.decompress(data).shape == (64, 64, 3)


def changed(data, extras=None, **fields):
    """The file with another header, and checksums to match."""
    header, stream, old = container.unpack(data)
    return container.pack(dataclasses.replace(header, **fields), stream, old | (extras or {}))


def test_wrong_model(data, published_micro, nothing_installed):
    other = changed(data, model_id="00000000")
    with pytest.raises(
        ModelMismatch, match="it needs model 00000000, which is not installed: no model of that id was released"
    ):
        api.decompress(other)
    with pytest.raises(ModelMismatch) as raised:
        api.decompress(other, model=published_micro)
    assert raised.value.args[:2] == ("00000000", container.peek(data)["model_id"])


def test_models_that_are_none(tmp_path, published_micro):
    with pytest.raises(api.NoModel, match="neither a folder nor an installed model"):
        api.open_model(tmp_path / "nowhere")
    with pytest.raises(arrays.CheckpointError, match="cannot write files"):
        api.open_model(tmp_path)
    with pytest.raises(ImageError):  # which does not need one
        api.compress("nowhere.png", model=tmp_path)


def test_limit_of_pixels(data, nothing_installed):
    with pytest.raises(TooLarge, match="4095"):
        api.decompress(data, max_pixels=4095)
    with pytest.raises(ModelMismatch):
        api.decompress(data, max_pixels=4096)


def test_filter_that_the_model_lacks(data, published_micro, monkeypatch):
    codec = api.open_model(published_micro)
    config = dataclasses.replace(codec.config, model=dataclasses.replace(codec.config.model, pqf="none"))
    monkeypatch.setattr(api, "_open", lambda *_: SimpleNamespace(config=config, model_id=codec.model_id))
    with pytest.raises(Damaged, match="filter"):
        api.decompress(changed(data, pqf_bytes=1), model=published_micro)


def test_damage_that_the_checksum_of_the_file_misses(data, published_micro):
    with pytest.raises(container.Desync):
        api.decompress(changed(data, latents_check=1), model=published_micro)
    with pytest.raises(Damaged, match="transparency"):
        api.decompress(changed(data, {Tag.ALPHA: b"rubbish"}), model=published_micro)


def test_other_names_are_unknown():
    with pytest.raises(AttributeError, match="no attribute 'compres'"):
        clic_jax.compres
