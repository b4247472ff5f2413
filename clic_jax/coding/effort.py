"""How long an encoder searches for better latents (`clic_jax.coding.search`): an effort of 0 to 9, and its steps.

Importing this module does not import JAX.
"""

from clic_jax.errors import UserError

# of the search, for each effort: about half as many again each time. A step of clic-compact takes 0.25 s for 768x512
# pixels on two cores.
STEPS = (0, 4, 6, 8, 12, 16, 24, 36, 54, 80)


class EffortError(UserError):
    """An effort that cannot be."""


def steps(effort: int) -> int:
    """Steps of the search at that effort. Raises: EffortError for anything but a whole number from 0 to 9."""
    if effort not in range(len(STEPS)):
        raise EffortError(f"effort {effort} is out of range: choose 0 (quickest) to {len(STEPS) - 1} (smallest files)")
    return STEPS[effort]
