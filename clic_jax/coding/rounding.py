"""Whole steps for y: the nearest, or the next one towards 0 where that costs fewer bits than it is worth.

What `model.entropy.nearest_or_cheaper` decides in training from densities, an encoder looks up, for its scales are
those of the table: the same function for arrays of NumPy and of JAX. A decoder needs none of it.
"""

import functools

import numpy as np

from clic_jax.coding.tables import VALUE_MAX, VALUE_MIN, half_normal
from clic_jax.scales import LIKELIHOOD_MIN, SCALE_TABLE

LARGEST = 64  # steps up to which it is looked up; beyond, the nearest


@functools.cache
def excess(density: str, energy: float) -> np.ndarray:
    """float32 [scales, LARGEST + 1]: the next step towards 0 pays where |residual| - |nearest| is below it.

    density: "gaussian" or "mixed" (`entropy.y_likelihood`). energy: bits that one squared step of error is worth, > 0.
    Going from m to m - 1 adds 2 (|residual| - m) + 1 to the squared error.
    """
    edges = np.arange(LARGEST + 1) + 0.5
    table = np.full((len(SCALE_TABLE), LARGEST + 1), -1.0)  # never: the difference is -1/2 at least
    for row, scale in zip(table, SCALE_TABLE):
        below = half_normal(edges / scale)
        if density == "mixed":
            below = 0.5 * below + 0.25 * -np.expm1(-edges * np.sqrt(2) / scale)
        mass = np.concatenate([2 * below[:1], np.diff(below)])
        bits = -np.log2(np.maximum(mass, LIKELIHOOD_MIN))
        row[1:] = (np.diff(bits) / energy - 1) / 2
    return table.astype(np.float32)


def quantised(residual, index, density: str, energy: float):
    """Whole steps, float32 of the shape of `residual` y - mean, within VALUE_MIN..VALUE_MAX.

    index: of the scale table, 0..63, for each. energy: as for `excess`; 0 for the nearest throughout.
    """
    xp = residual.__array_namespace__()
    size = xp.abs(residual)
    steps = xp.round(size)
    if energy:
        limit = xp.asarray(excess(density, energy))[index, xp.minimum(steps, LARGEST).astype(xp.int32)]
        steps = steps - ((size - steps < limit) & (steps <= LARGEST))
    return xp.clip(xp.sign(residual) * steps, VALUE_MIN, VALUE_MAX)
