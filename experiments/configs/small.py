r"""`clic-small`: `tiny` for half an hour of one GPU, in whose memory the photographs live; 50 steps run in one call.

    python -m experiments.train --config experiments/configs/small.py --data folder:PHOTOS --valid folder:HELD_OUT \
        --out runs/small --max-seconds 1800

Repeated with --resume, the same command goes on. Expected: not known. Nobody has trained it, so that neither a point of
its curve nor the half hour is measured; its 11.8 M parameters and 60 kMAC a pixel are (experiments.complexity).
"""

from clic_jax.config import SMALL, Config


def get_config() -> Config:
    """The preset as it is."""
    return SMALL
