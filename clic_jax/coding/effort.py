"""How much an encoder does for a picture: an effort of 0 to 9.

0 codes y as g_a gives it. From 1 on the encoder looks back: what it rounds instead is y_hat + g_a(x) - g_a(x_hat), what
it has coded corrected by what g_a sees of the error. That closed loop of one turn takes the time of g_a, of the context
networks, and of g_s twice. From 2 on it also searches for better latents (`clic_jax.coding.search`), for which it needs
slopes, so the runtime jax. Deviates: the paper codes y as it is. Decoders do not change and need not know.

Importing this module does not import JAX.
"""

from clic_jax.errors import UserError

# of the search, for each effort: about half as many again each time. A step of clic-compact takes 0.25 s for 768x512
# pixels on two cores.
STEPS = (0, 0, 4, 8, 12, 16, 24, 36, 54, 80)


class EffortError(UserError):
    """An effort that cannot be."""


def steps(effort: int) -> int:
    """Steps of the search at that effort. Raises: EffortError for anything but a whole number from 0 to 9."""
    if effort not in range(len(STEPS)):
        raise EffortError(f"effort {effort} is out of range: choose 0 (quickest) to {len(STEPS) - 1} (smallest files)")
    return STEPS[effort]
