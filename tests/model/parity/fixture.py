"""The file of a fixture: what the authors' code computed is stored, what was merely drawn is drawn again.

So the 1.4 million weights of the reduced model need no room in the repository. Needs only NumPy, as JAX and PyTorch
need not live in one environment.
"""

import json

import numpy as np


def draw(shape, centre: float, spread: float, seed: int) -> np.ndarray:
    """float32 multiples of spread / 4096, uniform in centre + [-spread, spread).

    From integers of the generator that NumPy has frozen, so equal to the bit on every machine and in every version.
    """
    steps = np.random.RandomState(seed).randint(-4096, 4096, tuple(shape), dtype=np.int64)
    return (centre + spread * (steps / 4096)).astype(np.float32)


class Fixture:
    """Arrays by name, `param/NAME` for a tensor of the authors' state dict; the drawn ones are saved as rules."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.stored: dict[str, np.ndarray] = {}
        self.drawn: dict[str, list] = {}

    def draw(self, name: str, shape, centre: float, spread: float) -> np.ndarray:
        """A new array, each with a seed of its own."""
        self.drawn[name] = [list(shape), centre, spread, self.seed + len(self.drawn)]
        return draw(*self.drawn[name])

    def store(self, **arrays):
        """Keeps values (anything that NumPy reads) as float32; `__` in a keyword stands for `/`."""
        self.stored |= {k.replace("__", "/"): np.asarray(v, np.float32) for k, v in arrays.items()}

    def save(self, path):
        """Writes the file."""
        rules = np.frombuffer(json.dumps(self.drawn).encode(), np.uint8)
        np.savez_compressed(path, **self.stored, drawn=rules)


def load(path) -> dict[str, np.ndarray]:
    """All arrays of a fixture's file, also of one in which nothing was drawn."""
    arrays = dict(np.load(path))
    rules = json.loads(bytes(arrays.pop("drawn", b"{}")))
    return arrays | {name: draw(*rule) for name, rule in rules.items()}
