r"""`compact` with 128 more channels of y for texture (`model.detail_channels`).

    python -m experiments.train --config experiments/configs/compact_detail.py --init clic-compact \
        --data folder:PHOTOS --valid folder:HELD_OUT --out runs/compact_detail --set train.optimizer=soap \
        --set train.crop=384 --set train.batch=2 --set train.warmup=100 --set train.cooldown=0 --set train.ema=0.998 \
        --set train.dtype=bfloat16_products --set train.steps=20000 --anneal --train-seconds 3500

At the high rates half of the error of `compact` is no rounding but what 192 channels cannot hold
(experiments/results/training_efficiency.md). The new channels start at the principal components of that. 23.3 kMAC a
pixel each way for 19.3.

Expected on Kodak, in real files, of the weights in `experiments/checkpoints/compact-detail`, which are not released:

    quality                1       20       40       60       80      100
    bpp                0.070    0.171    0.313    0.534    0.847    1.210
    PSNR, dB           26.14    28.84    30.99    33.21    35.41    37.24
    effort 1, bpp      0.071    0.175    0.322    0.554    0.874    1.247
    effort 1, PSNR     26.22    28.95    31.16    33.51    35.83    37.84

2.5 % fewer bits than `clic-compact` by PSNR over 0.1 to 0.9 bpp, 4.9 % at 0.6 to 0.9, and 1.5 % more by MS-SSIM, where
it is 2.4 % fewer below 0.3 bpp and 8.5 % more above 0.6.
"""

import dataclasses

from clic_jax.config import COMPACT, Config


def get_config() -> Config:
    """The preset with detail channels, which are coded last."""
    model = dataclasses.replace(COMPACT.model, detail_channels=128, groups=(*COMPACT.model.groups, 64, 64))
    return dataclasses.replace(COMPACT, name="compact-detail", model=model)
