"""Pictures coded classically: what a .clic file may hold in the place of a model's stream, and files of that kind.

    file = encode("avif", x, 50)  # x: uint8 [H, W, 3]
    stream = streams.of_file("avif", file)  # what the .clic file holds
    x_hat = decode("avif", stream, height, width)

One thread; no metadata. The settings are those with which `experiments.rd_eval` measures these codecs.
"""

import io

import numpy as np
from PIL import AvifImagePlugin, Image, WebPImagePlugin, features

from clic_jax.errors import UserError
from clic_jax.files import jpegxl, streams
from clic_jax.files.format_errors import Damaged

SETTINGS = {  # of `Image.save`
    "avif": {
        "codec": "aom",
        "subsampling": "4:4:4",
        "speed": 6,
        "max_threads": 1,
        "autotiling": False,
        "advanced": {"tune": "psnr"},
    },
    "webp": {"method": 6},  # always 4:2:0
}
_QUANTISER = [((100 - quality) * 63 + 50) // 100 for quality in range(101)]  # libavif's, of the qualities of AVIF
SCALES = {  # qualities, smallest file first; those of AVIF that share a quantiser, and so make the same file, once
    "avif": tuple(q for q in range(101) if not q or _QUANTISER[q] != _QUANTISER[q - 1]),
    "webp": tuple(range(101)),
    "jpegxl": (*(round(25 * 0.99**i, 4) for i in range(618)), 0.0),  # distances to 0.05 by 1 %, and lossless
}
_SIDES = {"avif": 2**15, "webp": 2**14 - 1, "jpegxl": 2**18}
_PIXELS = {"avif": 2**28, "webp": 2**28, "jpegxl": 2**25}  # libjxl's encoder takes up to 125 bytes a pixel
_PLUGINS = {"avif": AvifImagePlugin.AvifImageFile, "webp": WebPImagePlugin.WebPImageFile}


class MissingCodec(UserError):
    """A codec that is not installed; says what to install."""


def version(name: str) -> str:
    """Of the codec of that name, as Pillow's `features` call it, or of jpegxl. Raises: MissingCodec."""
    if name == "jpegxl":
        try:
            return jpegxl.version()
        except ImportError as error:
            raise MissingCodec(f"the codec {name} is not installed ({error}): pip install imagecodecs") from None
    if not features.check(name):
        text = f"the codec {name} is not installed (Pillow {Image.__version__} was built without {name})"
        raise MissingCodec(f"{text}: pip install --upgrade pillow")
    return f"Pillow {Image.__version__}, {name} {features.version(name)}"


def holds(name: str, height: int, width: int) -> bool:
    """Whether a picture of that size can be coded, and decoded by libraries that have limits of their own."""
    return max(height, width) <= _SIDES[name] and height * width <= _PIXELS[name]


def save(x: np.ndarray, kind: str, quality: float, **settings) -> bytes:
    """The file of x uint8 [H, W, 3] in a format of Pillow's."""
    file = io.BytesIO()
    Image.fromarray(x).save(file, kind, quality=int(quality), **settings)
    return file.getvalue()


def encode(name: str, x: np.ndarray, quality: float) -> bytes:
    """The file of x uint8 [H, W, 3], of a size that it `holds`, by one of SCALES at a quality of its scale."""
    return jpegxl.encode(x, quality) if name == "jpegxl" else save(x, name.upper(), quality, **SETTINGS[name])


def encode_exactly(x: np.ndarray, quick: bool = False) -> bytes:
    """A lossless WebP of x uint8 [H, W, 3], in up to 1.2 us a pixel; larger if `quick`, 0.08 us."""
    return save(x, "WEBP", 0 if quick else 75, lossless=True, method=0 if quick else 4)


def decode(name: str, stream: bytes, height: int, width: int, *, ours: bool = False) -> np.ndarray:
    """The picture uint8 [height, width, 3] of a stream of that codec, as `streams` describes it.

    ours: whether `encode` made it, in this process: JPEG XL is then decoded without limits, and sooner.

    Raises: MissingCodec; Damaged, before pixels are decoded where its size is another, for all that is wrong with it.
    """
    version(name)
    if streams.size_of(name, stream) != (width, height):
        text = f"its {name} picture is none of {width} x {height} pixels"
        raise Damaged(f"damaged, for {text}: copy or download the file again")
    try:
        if name == "jpegxl":
            return jpegxl.decode(stream) if ours else jpegxl.decode_foreign(stream, height, width)
        # Image.open would judge a size that is checked here
        image = _PLUGINS[name](io.BytesIO(streams.to_file(name, stream, width, height)))
        if image.size == (width, height) and image.mode == "RGB":
            image.load()
            return np.array(image)
    except MemoryError:
        raise
    except Exception as error:  # whatever these decoders raise on damaged streams
        raise Damaged(f"damaged, for its {name} picture cannot be read: copy or download the file again") from error
    raise Damaged(f"damaged, for its {name} picture is of another kind: copy or download the file again")
