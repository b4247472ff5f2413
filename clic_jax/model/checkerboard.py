"""The two colours of the latent checkerboard: the only file that knows the parity.

    A n A n      A: anchor,     (row + column) even, coded first
    n A n A      n: non-anchor, (row + column) odd,  coded with the anchors as context
    A n A n

Anchors and non-anchors are handled as packed maps of half the width, so that 1x1 networks run on each position once:

    A0 n0 A1 n1                A0 A1       n0 n1
    n2 A2 n3 A3    split ->    A2 A3   and n2 n3      merge is the inverse

Arrays are of NumPy or of JAX, as everywhere where a function asks them for `__array_namespace__`.
"""

import numpy as np

# Taps of the 5x5 masked convolution that link the two colours: odd distance from the centre.
TAPS = np.indices((5, 5)).sum(0) % 2 == 1


def anchor_mask(h: int, w: int) -> np.ndarray:
    """bool [H, W], True on anchors."""
    return np.indices((h, w)).sum(0) % 2 == 0


def split(x):
    """[B, H, W, C] -> (anchors, non-anchors), each [B, H, W / 2, C]. H and W must be even."""
    xp, (b, h, w, c) = x.__array_namespace__(), x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c)
    anchors = xp.stack([x[:, :, 0, :, 0], x[:, :, 1, :, 1]], axis=2)
    others = xp.stack([x[:, :, 0, :, 1], x[:, :, 1, :, 0]], axis=2)
    return anchors.reshape(b, h, w // 2, c), others.reshape(b, h, w // 2, c)


def merge(anchors, others):
    """The inverse of `split`: two [B, H, W / 2, C] -> [B, H, W, C]."""
    xp, (b, h, half, c) = anchors.__array_namespace__(), anchors.shape
    a, n = (x.reshape(b, h // 2, 2, half, c) for x in (anchors, others))
    even = xp.stack([a[:, :, 0], n[:, :, 0]], axis=3)  # [B, H/2, W/2, 2, C]
    odd = xp.stack([n[:, :, 1], a[:, :, 1]], axis=3)
    return xp.stack([even, odd], axis=2).reshape(b, h, 2 * half, c)
