"""JPEG XL by imagecodecs, which is not installed by default: pip install imagecodecs.

libjxl has no limit of memory, and its frames may be larger than the picture, or many. So what others may have written
is decoded in a process of its own, whose time and address space have limits (Windows knows none of address space).
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

# Photographs took at most 0.2 GB, 20 bytes a pixel beyond the first 0.4 million, and 0.3 us a pixel, 2026-11-28.
_MEMORY, _MEMORY_A_PIXEL = 2**29, 64  # bytes
_SECONDS, _SECONDS_A_PIXEL = 60, 5e-6
_CHILD = Path(__file__).with_name("jpegxl_child.py")


def version() -> str:
    """Of the codec. Raises: ImportError where it is not installed."""
    import imagecodecs

    return f"imagecodecs {imagecodecs.__version__}, {imagecodecs.jpegxl_version()}"


def encode(x: np.ndarray, distance: float) -> bytes:
    """The codestream of x uint8 [H, W, 3] at a butteraugli distance of 0.01 to 25, or 0 for lossless. One thread."""
    import imagecodecs

    options = {"distance": distance} if distance else {"lossless": True}
    return imagecodecs.jpegxl_encode(x, effort=7, numthreads=1, **options)


def decode(stream: bytes) -> np.ndarray:
    """The picture uint8 [H, W, 3] in what `encode` made in this process."""
    import imagecodecs

    return imagecodecs.jpegxl_decode(stream, numthreads=1)


def decode_foreign(stream: bytes, height: int, width: int) -> np.ndarray:
    """The picture uint8 [height, width, 3], in limited memory and time. Raises: ValueError for all that goes wrong."""
    pixels = height * width
    seconds = _SECONDS + _SECONDS_A_PIXEL * pixels
    command = [sys.executable, "-P", str(_CHILD), str(_MEMORY + _MEMORY_A_PIXEL * pixels), str(height), str(width)]
    try:
        done = subprocess.run(command, input=stream, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"decoding took more than {seconds:.0f} seconds") from error
    if done.returncode or len(done.stdout) != 3 * pixels:
        raise ValueError(done.stderr.decode(errors="replace")[-200:])
    return np.frombuffer(done.stdout, np.uint8).reshape(height, width, 3).copy()
