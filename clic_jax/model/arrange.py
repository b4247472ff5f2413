"""Pixels put in order, for arrays of NumPy or of JAX."""

import numpy as np


def depth_to_space(x, block: int = 2):
    """[B, H, W, C * block^2] -> [B, H * block, W * block, C].

    Input channel (c * block + i) * block + j is pixel (i, j).
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, c // block**2, block, block)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(b, h * block, w * block, c // block**2)


def space_to_depth(x, block: int = 2):
    """[B, H * block, W * block, C] -> [B, H, W, block^2 * C]; pixel (i, j)'s channel c is (i * block + j) * C + c."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // block, block, w // block, block, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // block, w // block, block**2 * c)


def positions(h: int, w: int) -> np.ndarray:
    """Coordinates [H, W, 2], row and column, each from -0.5 to 0.5 over the image (the paper's positional map)."""

    def line(n):
        return np.arange(n, dtype=np.float32) / max(n - 1, 1) - 0.5

    return np.stack(np.meshgrid(line(h), line(w), indexing="ij"), axis=-1).astype(np.float32)
