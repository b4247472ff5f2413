"""The classical codecs that ours is compared with, one row of CODECS each, with settings for a PSNR curve.

    coded = CODECS["avif"].encode(x, 50)  # x: uint8 [H, W, 3]; coded: what a file would hold
    x_hat = CODECS["avif"].decode(coded)

Pillow alone gives JPEG, WebP, AVIF and JPEG 2000. JPEG XL, HEVC and VVC need `pip install .[anchors]`. Every encoder is
held to one thread. The default qualities cover about 0.1 to 1.5 bits a pixel on photographs.
"""

import dataclasses
import functools
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from clic_jax.errors import UserError
from clic_jax.files import classical, jpegxl
from clic_jax.files.classical import MissingCodec
from experiments.rd_eval import ffmpeg_codecs


class UnknownCodec(UserError):
    """A name that is not in CODECS."""


class CodecQuality(UserError):
    """A quality that the codec does not have."""


@dataclasses.dataclass(frozen=True)
class Codec:
    """One classical codec at fixed settings.

    `encode` gives what a file would hold, container and all, or the raw stream where the description says so; `decode`
    gives uint8 [H, W, 3]. HEVC and VVC may give back more rows and columns than they were given, since they have no
    smallest images and VVC no odd ones: crop to the original.
    """

    name: str
    label: str  # for plots and tables
    description: str  # encoder and settings
    scale: str  # what a quality is
    limits: tuple[float, float]  # the qualities that exist
    whole: bool  # whether they are whole numbers
    qualities: tuple[float, ...]  # the default ones, smallest file first
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]
    version: Callable[[], str]  # of the encoder; raises MissingCodec or ImportError where it is not installed
    install: str = ""  # what to do where that is an ImportError


def open_codec(name: str) -> Codec:
    """The codec of that name, ready to run. Raises: UnknownCodec; MissingCodec."""
    if name not in CODECS:
        raise UnknownCodec(f"no codec {name!r}: there are {', '.join(CODECS)}")
    try:
        CODECS[name].version()
    except ImportError as error:
        raise MissingCodec(f"the codec {name} is not installed ({error}): {CODECS[name].install}") from None
    return CODECS[name]


def check_quality(codec: Codec, quality: float) -> float:
    """That quality. Raises: CodecQuality if the codec does not have it."""
    low, high = codec.limits
    if not low <= quality <= high or (codec.whole and quality != int(quality)):
        kind = "whole numbers " if codec.whole else ""
        raise CodecQuality(
            f"{codec.name} has no quality {quality:g}: its {codec.scale}, {kind}from {low:g} to {high:g}"
        )
    return quality


def _pillow_load(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def _jpeg(x: np.ndarray, quality: float) -> bytes:
    return classical.save(x, "JPEG", quality, subsampling="4:4:4", optimize=True, progressive=True)


def _jpeg2000(x: np.ndarray, quality: float) -> bytes:
    file = io.BytesIO()
    rate = {"quality_mode": "rates", "quality_layers": [24 / quality]}  # of the 24 bits that a pixel has
    Image.fromarray(x).save(file, "JPEG2000", irreversible=True, mct=1, no_jp2=True, **rate)
    return file.getvalue()


_ANCHORS = "pip install '.[anchors]'"

CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        Codec(
            name="jpeg",
            label="JPEG 4:4:4",
            description="libjpeg-turbo through Pillow, 4:4:4, optimised Huffman tables, progressive",
            scale="quality",
            limits=(1, 100),
            whole=True,
            qualities=(4, 8, 12, 18, 25, 35, 50, 65, 75, 82),
            encode=_jpeg,
            decode=_pillow_load,
            version=functools.partial(classical.version, "jpg"),
        ),
        Codec(
            name="webp",
            label="WebP",
            description="libwebp through Pillow, method 6, 4:2:0",
            scale="quality",
            limits=(0, 100),
            whole=True,
            qualities=(0, 5, 12, 22, 35, 50, 65, 77, 86),
            encode=functools.partial(classical.encode, "webp"),
            decode=_pillow_load,
            version=functools.partial(classical.version, "webp"),
        ),
        Codec(
            name="avif",
            label="AVIF 4:4:4",
            description="libaom through Pillow, speed 6, 4:4:4, 8 bits, tune=psnr, no tiles",
            scale="quality",
            limits=(0, 100),
            whole=True,
            qualities=(14, 24, 34, 42, 50, 57, 64),
            encode=functools.partial(classical.encode, "avif"),
            decode=_pillow_load,
            version=functools.partial(classical.version, "avif"),
        ),
        Codec(
            name="jpeg2000",
            label="JPEG 2000",
            description="openjpeg through Pillow, 9/7 wavelet, ICT, raw codestream, each image at the rate",
            scale="target rate in bits a pixel",
            limits=(0.01, 24),
            whole=False,
            qualities=(0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0),
            encode=_jpeg2000,
            decode=_pillow_load,
            version=functools.partial(classical.version, "jpg_2000"),
        ),
        Codec(
            name="jpegxl",
            label="JPEG XL",
            description="libjxl through imagecodecs, effort 7",
            install=_ANCHORS,
            scale="butteraugli distance",
            limits=(0.01, 25),
            whole=False,
            qualities=(15, 10, 7, 5, 3.5, 2.5, 1.8, 1.3),
            encode=jpegxl.encode,
            decode=jpegxl.decode,
            version=jpegxl.version,
        ),
        Codec(
            name="hevc",
            label="HEVC 4:4:4",
            description="libx265 through ffmpeg, veryslow, tune psnr, no wavefronts, 4:4:4, 10 bits, "
            "full-range BT.709, raw stream",
            install=_ANCHORS,
            scale="QP",
            limits=(0, 51),
            whole=True,
            qualities=(46, 42, 39, 36, 33, 30, 27),
            encode=ffmpeg_codecs.encode_hevc,
            decode=ffmpeg_codecs.decode_hevc,
            version=ffmpeg_codecs.version,
        ),
        Codec(
            name="vvc",
            label="VVC 4:2:0 (vvenc)",
            description="libvvenc through ffmpeg, medium, no perceptual tuning, 4:2:0, 10 bits, full-range BT.709, "
            "raw stream; no substitute for VTM 4:4:4, of which it needs about 11 % more bits",
            install=_ANCHORS,
            scale="QP",
            limits=(0, 63),
            whole=True,
            qualities=(44, 41, 38, 35, 32, 29),
            encode=ffmpeg_codecs.encode_vvc,
            decode=ffmpeg_codecs.decode_vvc,
            version=ffmpeg_codecs.version,
        ),
    )
}
