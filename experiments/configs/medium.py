r"""`clic-medium`: a model for a GPU that encodes slowly and decodes quickly, to be compared with `small`.

    python -m experiments.train --config experiments/configs/medium.py --data folder:PHOTOS --valid folder:HELD_OUT \
        --out runs/medium --max-seconds 1800

56 kMAC a pixel to encode and 37 to decode (experiments.complexity), where `small` has 60 both ways; 11.5 M parameters.
Expected: not known. Nobody has trained it.
"""

from clic_jax.config import MEDIUM, Config


def get_config() -> Config:
    """The preset as it is."""
    return MEDIUM
