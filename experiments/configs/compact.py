"""`clic-compact`: `tiny` with more layers where trained weights wanted them; its weights ship with the package.

    python -m experiments.train --config experiments/configs/compact.py --init clic-compact --data folder:PHOTOS \
        --valid folder:HELD_OUT --out runs/compact

`--init clic-tiny` starts from that model's weights, with its outputs. Variable rate: one model for every lmbda from
0.0006 to 0.085.
"""

from clic_jax.config import COMPACT, Config


def get_config() -> Config:
    """The preset as it is."""
    return COMPACT
