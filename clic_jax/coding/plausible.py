"""What tells in time that something is wrong: a stream too short for its picture, a picture that is no photograph."""

import numpy as np

from clic_jax import metrics
from clic_jax.coding import range_coder
from clic_jax.coding.codec import STRIDE, Codec, Coded, Latents
from clic_jax.files.container import Damaged
from clic_jax.quality import Quality

# Bits a pixel, at quality 0 and for each step of it, about twice what any of 12 photographs of grass, sand, buildings,
# steel and faces took with any released model: 0.36 at quality 1, 1.05 at 50, 2.11 at 100. What came out worse than
# flat took 1.8 at quality 1, 4.6 at 50 and 6.0 at 100 at least (checkerboards, stripes, noise, halftones; 2026-11-28).
PHOTOGRAPH_BPP = (1.0, 0.03)
FEW_BITS = 128  # by which a stream may be shorter than its symbols say


def check_length(codec: Codec, stream: bytes, height: int, width: int):
    """Raises: Damaged, before any work, for a stream of less than half of what z alone takes for a picture this size.

    A few bytes that claim 16384 x 16384 pixels would else take minutes and gigabytes until their checksum is wrong.
    """
    positions = -(-height // STRIDE) * -(-width // STRIDE)
    if 8 * len(stream) < positions * sum(map(range_coder.least_bits, codec.prior)) / 2 - FEW_BITS:
        size = f"{width} x {height} pixels"
        raise Damaged(f"damaged, for {size} are not in {len(stream)} bytes: copy or download the file again")


def flat_error(x: np.ndarray) -> int:
    """Squared error of the mean colour of x uint8 [H, W, 3] everywhere."""
    return metrics.squared_error(x, np.broadcast_to(np.rint(x.mean((0, 1))).astype(np.uint8), x.shape))


def is_failure(
    codec: Codec,
    x: np.ndarray,
    coded: Coded,
    latents: Latents,
    quality: Quality,
    tile: int,
    shown: np.ndarray | None = None,
) -> bool:
    """Whether what decodes is worse, in squared error, than the mean colour of x uint8 [H, W, 3] everywhere.

    It comes to that with what no photograph looks like, checkerboards and halftones of single pixels, and then costs
    many bits; so only then the picture is made and looked at, in half the time that coding it took.

    coded, latents: of `Codec.encode` at that quality. tile: as there. shown: of `Codec.show`, if it is made already.
    """
    if shown is None:
        pixels = latents.z.shape[1] * latents.z.shape[2] * STRIDE**2
        if 8 * len(coded.stream) <= pixels * (PHOTOGRAPH_BPP[0] + PHOTOGRAPH_BPP[1] * float(quality)):
            return False
        shown = codec.show(latents, *x.shape[:2], tile=tile)
    return metrics.squared_error(x, shown) > flat_error(x)
