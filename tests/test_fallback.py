"""compress(fallback=): never worse than the codec it falls back on; and compress(verify=)."""

# ruff: noqa: F811

import contextlib
import io
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

import clic_jax.pillow
from clic_jax import api, metrics
from clic_jax.coding import equal_quality, plausible
from clic_jax.files import classical, container, pictures, streams
from tests.conftest import photograph
from tests.files.test_classical import CODED, needs_jpegxl, packed
from tests.test_main import folder, listing, run, save  # noqa: F401

NAMES = ["avif", "webp", pytest.param("jpegxl", marks=needs_jpegxl)]


def screenshot(height: int = 96, width: int = 128) -> np.ndarray:
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width, 14), (40, 70, 120))
    for y in range(16, height - 10, 12):
        pen.text((4, y), f"line {y} of a text", (30, 30, 30))
    return np.asarray(image)


CHECKERBOARD = np.repeat(255 * (np.indices((64, 64)).sum(0) % 2).astype(np.uint8)[..., None], 3, 2)
PICTURES = {"screenshot": screenshot(), "checkerboard": CHECKERBOARD, "grey": screenshot()[..., 0]}
PICTURES |= {"photograph": photograph(64, 64), "one pixel": photograph(1, 1)}


@pytest.mark.parametrize("fallback", NAMES)
@pytest.mark.parametrize("name", PICTURES)
def test_never_worse_than_the_classical_codec(name, fallback, published_micro):
    """Against all that it can write, by 0.1 % and 16 bytes; never larger than the model's file, nor worse in error."""
    x, options = PICTURES[name], {"quality": 60, "model": published_micro}
    rgb = x if x.ndim == 3 else np.repeat(x[..., None], 3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pictures.ImageWarning)
        plain = api.compress(x, **options)
    error, flat = metrics.squared_error(rgb, shown(plain, published_micro)), plausible.flat_error(rgb)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pictures.ImageWarning)  # nothing is worse than flat
        data = api.compress(x, **options, fallback=fallback)
    most = min(error, flat)
    assert len(data) <= len(plain) or error > flat
    assert metrics.squared_error(rgb, shown(data, published_micro)) <= most
    for quality in classical.SCALES[fallback]:
        alone = classical.encode(fallback, rgb, quality)
        stream = streams.of_file(fallback, alone)
        if metrics.squared_error(rgb, classical.decode(fallback, stream, *rgb.shape[:2], ours=True)) <= most:
            assert len(data) <= 1.001 * len(alone) + 16
    kept = container.peek(data).get("classical")
    assert (kept is not None or data == plain) and (kept is not None or name == "photograph")
    assert api.decompress(data, model=published_micro).shape == x.shape


def shown(data: bytes, model) -> np.ndarray:
    """RGB as decoded, not yet the grey of a grey picture."""
    header, stream, _ = container.unpack(data)
    if header.grey:
        header = type(header)(**vars(header) | {"grey": False})
    return api.decompress(container.pack(header, stream), model=model)


@pytest.mark.parametrize("name", NAMES)
def test_the_search_finds_what_trying_all_finds(name):
    x = photograph(48, 64)
    files = [streams.of_file(name, classical.encode(name, x, quality)) for quality in classical.SCALES[name]]
    errors = [metrics.squared_error(x, classical.decode(name, data, 48, 64, ours=True)) for data in files]
    exact = len(streams.of_file("webp", classical.encode_exactly(x)))
    for error, most in ((0, 10**9), (errors[20], 10**9), (errors[40], len(files[40]) - 1), (10**9, len(files[0]) + 1)):
        fits = [len(data) for data, found in zip(files, errors) if found <= error] + [exact]
        for lmbda in (1e-4, 0.01, 0.2):
            found = equal_quality.smallest(name, x, lmbda, error, most)
            least = min((size for size in fits if size < most), default=None)
            assert (found is None) == (least is None)
            # JPEG XL: next to a distance there are smaller files with less error, 20 steps away, too
            assert found is None or len(found[1]) == least or name == "jpegxl" and len(found[1]) <= 1.001 * least + 16


def test_without_it_nothing_changes(published_micro):
    x = photograph(64, 64)
    data = api.compress(x, model=published_micro)
    assert data == api.compress(x, model=published_micro, fallback="none", verify=True)
    assert data[3] & 15 == container.LEARNED


def test_metadata_are_kept(published_micro):
    exif = Image.Exif()
    exif[0x0110] = "camera"
    file = io.BytesIO()
    alpha = np.arange(96 * 128, dtype=np.uint8).reshape(96, 128)
    Image.fromarray(np.dstack([screenshot(), alpha])).save(file, "PNG", exif=exif, icc_profile=bytes(200))
    data = api.compress(file, model=published_micro, fallback="webp", verify=True)
    assert container.peek(data)["classical"] == "webp"
    image = api.decompress_image(data)
    assert image.getexif()[0x0110] == "camera" and image.info["icc_profile"] == bytes(200)
    assert np.array_equal(np.asarray(image)[..., 3], alpha)


def test_pictures_that_the_codec_cannot_hold(published_micro, monkeypatch):
    monkeypatch.setattr(classical, "holds", lambda *_: False)
    assert container.peek(api.compress(screenshot(), model=published_micro, fallback="webp"))["model_id"]
    monkeypatch.undo()
    assert not classical.holds("webp", 1, 2**14) and classical.holds("avif", 1, 2**14)


def test_fallbacks_that_cannot_be(published_micro, monkeypatch):
    with pytest.raises(equal_quality.FallbackError, match="no fallback 'gif': choose none, avif, webp, jpegxl"):
        api.compress(screenshot(), model=published_micro, fallback="gif")
    monkeypatch.setattr(classical.features, "check", lambda name: False)
    with pytest.raises(classical.MissingCodec, match="upgrade pillow"):
        api.compress(screenshot(), model=published_micro, fallback="avif")


def test_a_model_for_another_metric_is_refused():
    codec = SimpleNamespace(config=SimpleNamespace(train=SimpleNamespace(metric="ms-ssim")))
    with pytest.raises(equal_quality.FallbackError, match="compares squared error, .*trained for ms-ssim"):
        equal_quality.check("avif", codec)
    assert equal_quality.check("none", codec) == "none"


# verify


def brighter(image, levels):
    return Image.fromarray(np.asarray(image) ^ np.uint8(levels))


def described(image):
    image.info["dpi"] = (300, 300)
    return image


def refused(_):
    raise container.Damaged("damaged")


@pytest.mark.parametrize("fallback", ["none", "webp"])
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda image: brighter(image, 1), None),
        (lambda image: brighter(image, 2), "decodes to another picture, by 2 grey levels: please report this line"),
        (described, "has other metadata than the picture: please report this line"),
        (lambda image: image.convert("L"), "has other metadata"),
        (refused, r"does not decode: please report this line \(damaged\)"),
    ],
)
def test_verify(change, message, fallback, published_micro, monkeypatch):
    """A decoder that is wrong is noticed; one grey level is what machines may differ by."""
    decode, options = api.decompress_image, {"model": published_micro, "fallback": fallback}
    monkeypatch.setattr(api, "decompress_image", lambda *a, **k: change(decode(*a, **k)))
    api.compress(screenshot(), **options)
    with pytest.raises(api.NotVerified, match=message) if message else contextlib.nullcontext():
        api.compress(screenshot(), **options, verify=True)


# The command, Pillow


def test_command(run):
    save("a.png", CHECKERBOARD)
    save("b.png", photograph(64, 64))
    assert run("compress", "a.png", "b.png", "--fallback", "webp", "--verify") == (0, b"", [])
    about = json.loads(run("info", "a.clic", "--json")[1])
    assert (about["classical"], about["model"], about["model_id"]) == ("webp", None, None)
    assert about["bytes"]["total"] == Path("a.clic").stat().st_size
    text = run("info", "a.clic")[1].decode()
    assert "webp, lossless; no model is needed" in text and "picture" in text and "64 x 64 pixels, quality 50" in text
    assert "classical" not in json.loads(run("info", "b.clic", "--json")[1])
    assert run("decompress", "a.clic", "-o", "c.png") == (0, b"", [])
    assert np.array_equal(Image.open("c.png"), CHECKERBOARD)
    status, _, (line,) = run("compress", "a.png", "--fallback", "gif")
    assert status == 2 and "'gif'" in line and "webp" in line


def test_command_with_files_that_are_not_right(run, published_micro):
    kind, data = CODED["webp"]
    for content, text in (
        (packed(kind, data[:20]), "damaged, for its webp picture cannot be read"),
        (packed(kind, data, 61), "is none of 61 x 40 pixels"),
        (packed(kind, data)[:-1] + b"?", "checksum is wrong"),
    ):
        Path("x.clic").write_bytes(content)
        status, out, (line,) = run("decompress", "x.clic")
        assert (status, out) == (2, b"") and line.startswith("clic-jax: error: x.clic: ") and text in line
        assert listing() == ["x.clic"]


def test_pillow(tmp_path, published_micro):
    clic_jax.pillow.register(published_micro)
    try:
        Image.fromarray(CHECKERBOARD).save(tmp_path / "x.clic", fallback="webp", verify=True, quality=30)
    finally:
        clic_jax.pillow.register()
    image = Image.open(tmp_path / "x.clic")
    assert image.info["quality"] == 30 and image.size == (64, 64)
    assert np.array_equal(image, CHECKERBOARD)
