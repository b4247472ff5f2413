"""The scales that y's distributions may have: 64 of them, a fixed ladder that training, encoder and decoder share.

NumPy only. The ladder is part of the file format: decimal arithmetic, whose ln and exp round correctly, makes it the
same everywhere.
"""

import decimal

import numpy as np

SCALE_MIN = 0.11  # smallest scale of Balle et al.'s table: narrower Gaussians cost nothing more
SCALE_MAX = 256.0  # its largest
SCALE_LEVELS = 64  # its length: neighbours are 13 % apart, which costs 0.006 bits at most if the nearest is taken
# ln of the ratio of neighbours, and of the smallest: literals, as logarithms differ by machine
LOG_STEP, LOG_MIN = 0.12305479932808386, -2.2072749131897207


def _scale_table() -> np.ndarray:
    with decimal.localcontext(decimal.Context(prec=28)):
        low, high = decimal.Decimal(str(SCALE_MIN)), decimal.Decimal(str(SCALE_MAX))
        step = (high / low).ln() / (SCALE_LEVELS - 1)
        return np.array([float(low * (step * i).exp()) for i in range(SCALE_LEVELS)])


SCALE_TABLE = _scale_table()  # float64 [64], log-uniform, in quantisation steps
SCALE_TABLE.flags.writeable = False
LIKELIHOOD_MIN = 1e-9  # the floor below which a symbol costs 29.9 bits instead of infinitely many
