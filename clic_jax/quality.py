"""The quality of a file: 1 to 100 in hundredths, and the rate-distortion trade-off that it stands for."""

import dataclasses
import math
from collections.abc import Sequence

from clic_jax.errors import UserError

STEPS = 100  # to a whole quality


class QualityError(UserError):
    """A quality out of range."""


@dataclasses.dataclass(frozen=True, order=True)
class Quality:
    """A quality as files store it. `float(quality)` is what users write, 1.0 (smallest) to 100.0 (best).

    Raises: QualityError outside that range.
    """

    hundredths: int

    def __post_init__(self):
        _check(float(self))

    @classmethod
    def of(cls, value: "float | Quality") -> "Quality":
        """The quality of a number, to the nearest hundredth. Raises: QualityError outside 1..100, and for NaN."""
        if isinstance(value, Quality):
            return value
        _check(value)  # before it is rounded
        return cls(round(value * STEPS))

    def __float__(self) -> float:
        return self.hundredths / STEPS

    def __format__(self, spec: str) -> str:
        return format(float(self), spec)

    def place(self, anchors: int) -> float:
        """Where it lies between that many gain anchors: 0 at quality 1, the last at 100.

        Products and one quotient only, so exactly the same everywhere.
        """
        return (self.hundredths - STEPS) * (anchors - 1) / (99 * STEPS)

    def lmbda(self, lmbdas: Sequence[float]) -> float:
        """The rate-distortion trade-off, linear in its logarithm between the anchors `lmbdas` of a model."""
        at = self.place(len(lmbdas))
        left = min(int(at), max(len(lmbdas) - 2, 0))
        low, high = (math.log(lmbda) for lmbda in (lmbdas[left], lmbdas[min(left + 1, len(lmbdas) - 1)]))
        return math.exp(low + (at - left) * (high - low))


def _check(value: float) -> None:
    if not 1 <= value <= 100:  # nor is NaN
        raise QualityError(f"quality {value:g} is out of range: choose 1 (smallest) to 100 (best)")
