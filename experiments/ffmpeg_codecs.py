"""One image through ffmpeg's encoders for HEVC (x265) and VVC (vvenc), as raw streams.

The binary comes with the package imageio-ffmpeg. It also converts between RGB and full-range BT.601 (what BPG uses), so
that seconds include that and the start of a process, about a tenth of a second.
"""

import functools
import io
import re
import subprocess

import numpy as np
from PIL import Image

from clic_jax.errors import UserError

MIN_SIDE = 32  # less than that vvenc refuses, and x265 less than 16
_SCALE = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:sws_dither=none"
_X265 = "qp={}:pools=1:frame-threads=1:info=0:log-level=error"  # info=0: no settings as text in the stream


class FfmpegFailed(UserError):
    """ffmpeg refused the image or the stream."""


def encode_hevc(x: np.ndarray, quality: float) -> bytes:
    """uint8 [H, W, 3] as an HEVC stream of one intra picture, 4:4:4, 10 bits; quality is the QP, 0 to 51.

    A picture smaller than 32 pixels is made so large by repeating its last row and column, and stays so in the stream.
    """
    x265 = ["-preset", "veryslow", "-tune", "psnr", "-x265-params", _X265.format(int(quality))]
    return _encode(_padded(x, 1), "yuv444p10le", ["-c:v", "libx265", *x265, "-f", "hevc"])


def encode_vvc(x: np.ndarray, quality: float) -> bytes:
    """uint8 [H, W, 3] as a VVC stream of one intra picture, 4:2:0, 10 bits; quality is the QP, 0 to 63.

    As for HEVC; an odd side becomes even in the same way, since 4:2:0 has whole pairs only.
    """
    vvenc = ["-preset", "medium", "-qp", str(int(quality)), "-qpa", "0", "-threads", "1"]
    return _encode(_padded(x, 2), "yuv420p10le", ["-c:v", "libvvenc", *vvenc, "-f", "vvc"])


def decode_hevc(data: bytes) -> np.ndarray:
    """The picture of `encode_hevc`: uint8 [H, W, 3], as padded there."""
    return _decode(data, "hevc")


def decode_vvc(data: bytes) -> np.ndarray:
    """The picture of `encode_vvc`: uint8 [H, W, 3], as padded there."""
    return _decode(data, "vvc")


def _padded(x: np.ndarray, multiple: int) -> np.ndarray:
    """x with sides of at least MIN_SIDE pixels that are multiples of `multiple`."""
    more = [max(MIN_SIDE, -(-side // multiple) * multiple) - side for side in x.shape[:2]]
    return np.pad(x, [(0, more[0]), (0, more[1]), (0, 0)], mode="edge")


@functools.cache
def version() -> str:
    """Of the package and of the ffmpeg in it. Raises: ImportError where it is not installed."""
    import imageio_ffmpeg

    return f"imageio-ffmpeg {imageio_ffmpeg.__version__}, ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}"


def _encode(x: np.ndarray, pixels: str, encoder: list[str]) -> bytes:
    height, width = x.shape[:2]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-i", "-"]
    colours = ["-vf", f"scale=out_color_matrix=bt601:out_range=full:{_SCALE}", "-pix_fmt", pixels]
    return _ffmpeg([*source, *colours, "-frames:v", "1", *encoder, "-"], x.tobytes())


def _decode(data: bytes, kind: str) -> np.ndarray:
    colours = ["-vf", f"scale=in_color_matrix=bt601:in_range=full:{_SCALE}", "-pix_fmt", "rgb24"]
    picture = _ffmpeg(["-threads", "1", "-f", kind, "-i", "-", *colours, "-f", "image2pipe", "-c:v", "ppm", "-"], data)
    with Image.open(io.BytesIO(picture)) as image:
        return np.array(image)


def _ffmpeg(arguments: list[str], data: bytes) -> bytes:
    """What ffmpeg writes to standard output. Raises: FfmpegFailed with the first line of its complaint."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-filter_threads", "1"]
    done = subprocess.run([*command, *arguments], input=data, capture_output=True)
    if done.returncode or not done.stdout:
        text = re.sub(r"\s+", " ", done.stderr.decode(errors="replace")).strip()
        raise FfmpegFailed(f"ffmpeg: {text[:200] or 'no output'}")
    return done.stdout
