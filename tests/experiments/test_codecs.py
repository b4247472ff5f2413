"""The classical codecs: round trips, real rates, what each setting is for, and codecs that are not installed."""

import sys

import numpy as np
import pytest
from PIL import Image

from clic_jax import metrics
from clic_jax.files import classical
from experiments.rd_eval import codecs
from tests.conftest import photograph

PILLOW = ("jpeg", "webp", "avif", "jpeg2000")


def ready(name):
    """The codec, or a skip where its package is not installed."""
    try:
        return codecs.open_codec(name)
    except codecs.MissingCodec as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", codecs.CODECS)
def test_better_qualities_cost_more(name):
    """Every default list goes from small and bad to large and good, and every quality in it exists."""
    codec, x = ready(name), photograph(96, 128)
    for quality in codec.qualities:
        codecs.check_quality(codec, quality)
    ends = [codec.encode(x, quality) for quality in (codec.qualities[0], codec.qualities[-1])]
    psnrs = [metrics.psnr(x, codec.decode(data)) for data in ends]
    assert len(ends[0]) < len(ends[1])
    assert 15 < psnrs[0] < psnrs[1] - 3


@pytest.mark.parametrize("name", codecs.CODECS)
@pytest.mark.parametrize("shape", [(1, 1), (15, 33), (67, 41)])
def test_any_size(name, shape):
    codec, x = ready(name), photograph(*shape)
    x_hat = codec.decode(codec.encode(x, codec.qualities[-1]))
    assert x_hat.dtype == np.uint8 and x_hat.shape[2] == 3
    assert name in ("hevc", "vvc") or x_hat.shape == x.shape
    assert all(0 <= got - had <= max(32 - had, 1) for got, had in zip(x_hat.shape[:2], shape))
    assert metrics.psnr(x, x_hat[: shape[0], : shape[1]]) > 20 or name == "jpeg2000"  # whose headers alone are the rate


@pytest.mark.parametrize("name", [name for name in codecs.CODECS if name not in ("webp", "vvc")])
def test_full_chroma(name):
    """Pixels that differ in colour only survive: nothing but WebP and VVC is 4:2:0."""
    x = np.zeros((64, 64, 3), np.uint8)
    x[:, ::2], x[:, 1::2] = (200, 60, 60), (60, 116, 200)
    codec = ready(name)
    best = {"jpeg": 100, "avif": 100, "jpeg2000": 20, "jpegxl": 0.1, "hevc": 4}[name]
    assert metrics.psnr(x, codec.decode(codec.encode(x, best))) > 35


def test_jpeg_is_progressive_and_optimised():
    """Against Pillow's defaults: the same pixels as its 4:4:4 file, in fewer bytes."""
    x = photograph(128, 128)
    data = codecs.CODECS["jpeg"].encode(x, 50)
    assert b"\xff\xc2" in data and b"\xff\xc0" not in data  # SOF2, not SOF0
    plain = classical.save(x, "JPEG", 50, subsampling="4:4:4")
    np.testing.assert_array_equal(codecs.CODECS["jpeg"].decode(data), np.array(codecs._pillow_load(plain)))
    assert len(data) < len(plain)


def test_jpeg2000_keeps_its_rate_and_is_a_codestream():
    x = photograph(256, 256)
    data = codecs.CODECS["jpeg2000"].encode(x, 0.5)
    assert 8 * len(data) / 256**2 == pytest.approx(0.5, abs=0.03)
    assert data[:2] == b"\xff\x4f"  # SOC
    coding_style = data[data.index(b"\xff\x52") :]  # COD
    assert coding_style[8] == 1  # colours are transformed: without it Kodak needs half as many bits again
    assert coding_style[13] == 0  # the 9/7 wavelet, irreversible


def test_avif_is_tuned_for_psnr():
    x = photograph(192, 192)
    codec = codecs.CODECS["avif"]
    untuned = classical.save(x, "AVIF", 42, subsampling="4:4:4", speed=6, max_threads=1)
    assert codec.encode(x, 42) != untuned
    assert metrics.psnr(x, codec.decode(codec.encode(x, 42))) > 25


@pytest.mark.parametrize(
    "name, quality, words",
    [
        ("jpeg", 101, "quality, whole numbers from 1 to 100"),
        ("webp", 40.5, "webp has no quality 40.5"),
        ("jpeg2000", 0, "target rate in bits a pixel, from 0.01 to 24"),
        ("vvc", float("nan"), "QP"),
        ("hevc", 52, "QP, whole numbers from 0 to 51"),
    ],
)
def test_qualities_that_do_not_exist(name, quality, words):
    with pytest.raises(codecs.CodecQuality, match=words):
        codecs.check_quality(codecs.CODECS[name], quality)


def test_unknown_codec():
    with pytest.raises(codecs.UnknownCodec, match="no codec 'gif': there are jpeg, webp"):
        codecs.open_codec("gif")


@pytest.mark.parametrize("name, package", [("jpegxl", "imagecodecs"), ("hevc", "imageio_ffmpeg")])
def test_package_that_is_missing(name, package, monkeypatch):
    codecs.ffmpeg_codecs.version.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)  # as if not installed
    with pytest.raises(codecs.MissingCodec, match=rf"{name} is not installed .*pip install '\.\[anchors\]'"):
        codecs.open_codec(name)


def test_pillow_without_avif(monkeypatch):
    monkeypatch.setattr(classical.features, "check", lambda feature: feature != "avif")
    with pytest.raises(codecs.MissingCodec, match="built without avif.*upgrade pillow"):
        codecs.open_codec("avif")


def test_versions_name_the_encoder():
    assert f"Pillow {Image.__version__}, webp " in codecs.CODECS["webp"].version()


def test_ffmpeg_errors_are_one_line():
    ready("hevc")
    with pytest.raises(codecs.ffmpeg_codecs.FfmpegFailed, match="^ffmpeg: [^\n]+$"):
        codecs.CODECS["hevc"].decode(b"not a stream")
