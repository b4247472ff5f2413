"""`clic-small`: a GPU trains it in half an hour; photographs live in its memory and 50 steps run in one call.

python -m experiments.train --config experiments/configs/small.py --data folder:PHOTOS --max-seconds 540
"""

from clic_jax.config import SMALL, Config


def get_config() -> Config:
    """The preset as it is."""
    return SMALL
