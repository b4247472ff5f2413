"""`clic-tiny`: the model that a laptop trains, for little arithmetic; its weights ship with the package.

    python -m experiments.train --config experiments/configs/tiny.py --data folder:PHOTOS --valid folder:HELD_OUT --out
    runs/tiny

Variable rate: one model for every lmbda from 0.0018 to 0.0483.
"""

from clic_jax.config import TINY, Config


def get_config() -> Config:
    """The preset as it is."""
    return TINY
