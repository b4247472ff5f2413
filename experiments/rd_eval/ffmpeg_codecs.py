"""One image through ffmpeg's encoders for HEVC (x265) and VVC (vvenc), as raw streams.

The binary comes with the package imageio-ffmpeg. Colours are converted here, to full-range BT.709 of 10 bits, since
ffmpeg's own rounding costs 0.05 dB at high rates; chroma is subsampled by ffmpeg, bicubic. Seconds include all that and
the start of a process, about a tenth of a second.
"""

import functools
import re
import subprocess

import numpy as np

from clic_jax.errors import UserError

MIN_SIDE = 32  # less than that vvenc refuses, and x265 less than 16
PEAK, CENTRE = 1023, [0, 512, 512]  # of 10 bits
_RED, _BLUE = 0.2126, 0.0722  # BT.709
_LUMA = np.array([_RED, 1 - _RED - _BLUE, _BLUE])
RGB_TO_YCBCR = np.stack([_LUMA, ([0, 0, 1] - _LUMA) / (2 - 2 * _BLUE), ([1, 0, 0] - _LUMA) / (2 - 2 * _RED)])
_SCALE = "scale=flags=bicubic+accurate_rnd+full_chroma_int:sws_dither=none"
# info=0: no settings as text in the stream; without wavefronts, a help to threads that costs up to 1 % of the bits
_X265 = "qp={}:pools=none:frame-threads=1:wpp=0:keyint=1:info=0:log-level=error"


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
    source = ["-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-s", f"{width}x{height}", "-i", "-"]
    planes = np.round(x / 255 @ RGB_TO_YCBCR.T * PEAK + CENTRE).clip(0, PEAK).astype("<u2").transpose(2, 0, 1)
    return _ffmpeg([*source, "-vf", _SCALE, "-pix_fmt", pixels, "-frames:v", "1", *encoder, "-"], planes.tobytes())


def _decode(data: bytes, kind: str) -> np.ndarray:
    output = ["-vf", _SCALE, "-pix_fmt", "yuv444p10le", "-strict", "-1", "-f", "yuv4mpegpipe", "-"]  # -1: 10 bits
    picture = _ffmpeg(["-threads", "1", "-f", kind, "-i", "-", *output], data)
    header, _, samples = picture.split(b"\n", 2)  # YUV4MPEG2 W768 H512 ...; FRAME; the planes
    width, height = (int(re.search(rb" %c(\d+)" % side, header)[1]) for side in b"WH")
    planes = np.frombuffer(samples, "<u2").reshape(3, height, width).transpose(1, 2, 0)
    x = (planes - np.array(CENTRE)) / PEAK @ np.linalg.inv(RGB_TO_YCBCR).T
    return np.round(x * 255).clip(0, 255).astype(np.uint8)


def _ffmpeg(arguments: list[str], data: bytes) -> bytes:
    """What ffmpeg writes to standard output. Raises: FfmpegFailed with the first line of its complaint."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-filter_threads", "1"]
    done = subprocess.run([*command, *arguments], input=data, capture_output=True)
    if done.returncode or not done.stdout:
        text = re.sub(r"\s+", " ", done.stderr.decode(errors="replace")).strip()
        raise FfmpegFailed(f"ffmpeg: {text[:200] or 'no output'}")
    return done.stdout
