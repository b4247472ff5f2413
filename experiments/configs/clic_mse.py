"""The paper's model and training for one operating point, mean squared error.

    python -m experiments.train --config experiments/configs/clic_mse.py --data folder:PHOTOS --out runs/clic_0130
    ... --set model.lmbdas='(0.0067,)'      another point: 0.0018 0.0035 0.0067 0.0130 0.0250 0.0483

Published on Kodak at these six: 0.128 bpp 29.25 dB, 0.200 30.90, 0.303 32.58, 0.446 34.32, 0.634 36.14, 0.873 37.94.
Made
for accelerators: 2 M steps of 16 crops of 256x256. On a CPU use the tiny preset.
"""

from clic_jax.config import PAPER, Config


def get_config() -> Config:
    """The preset as it is."""
    return PAPER
