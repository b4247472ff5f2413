r"""`clic-tiny`: the model that a laptop trains, for little arithmetic; its weights ship with the package.

    python -m experiments.train --config experiments/configs/tiny.py --data folder:PHOTOS --valid folder:HELD_OUT \
        --out runs/tiny

Variable rate: one model for every lmbda from 0.0018 to 0.0483. Expected on Kodak, in real files, of the weights in the
package, which had 2.8e9 pixels in some hours of two CPU cores (experiments/results/training_log.md), the last of them
with --set train.optimizer=soap --set train.crop=384 --set train.batch=1:

    quality           1       20       40       60       80      100
    bpp           0.174    0.255    0.371    0.517    0.688    0.887
    PSNR, dB      28.31    29.69    31.15    32.55    33.78    34.80

After twenty minutes of one core, 7,600 steps of four 128x128 crops with Adam and a cosine (--set train.steps=7600 --set
train.schedule=cosine), an earlier form without `rdoq` had 0.240 bpp at 28.02 dB to 1.221 bpp at 35.00 dB.
"""

from clic_jax.config import TINY, Config


def get_config() -> Config:
    """The preset as it is."""
    return TINY
