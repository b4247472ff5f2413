r"""`clic-compact`: `tiny` with more layers where trained weights wanted them; its weights ship with the package.

    python -m experiments.train --config experiments/configs/compact.py --init clic-compact --data folder:PHOTOS \
        --valid folder:HELD_OUT --out runs/compact --set train.optimizer=soap --set train.crop=384 \
        --set train.batch=2 --set train.steps=4500 --set train.warmup=150 --set train.cooldown=0.8 --set train.ema=0.998

`--init clic-tiny` starts from that model's weights, with its outputs. Variable rate: one model for every lmbda from
0.0006 to 0.085. Expected on Kodak, in real files, of the weights in the package:

    quality           1       20       40       60       80      100
    bpp           0.073    0.175    0.313    0.510    0.759    1.019
    PSNR, dB      26.14    28.83    30.92    32.94    34.63    35.74

They had 8.3e9 pixels. The last three runs like this one, about 1.3e9 pixels in one to two hours of two CPU cores each,
brought 2.9, 1.9 and 1.3 % fewer bits (experiments/results/training_log.md).
"""

from clic_jax.config import COMPACT, Config


def get_config() -> Config:
    """The preset as it is."""
    return COMPACT
