r"""`compact` with 128 more channels of y for texture (`model.detail_channels`).

    python -m experiments.train --config experiments/configs/compact_detail.py --init clic-compact \
        --data folder:PHOTOS --valid folder:HELD_OUT --out runs/compact_detail --set train.optimizer=soap \
        --set train.crop=384 --set train.batch=2 --set train.warmup=100 --set train.cooldown=0 --set train.ema=0.998 \
        --set train.learning_rate=7e-4 --set train.ms_ssim_share=0.08 --set train.steps=20000 \
        --anneal --train-seconds 3500

`--init clic-compact-detail` goes on from the weights in the package.

At the high rates half of the error of `compact` is no rounding but what 192 channels cannot hold
(experiments/results/training_efficiency.md). The new channels start at the principal components of that. 23.3 kMAC a
pixel each way for 19.3.

Expected on Kodak, in real files, of the weights in the package:

    quality                1       20       40       60       80      100
    bpp                0.070    0.169    0.309    0.528    0.840    1.199
    PSNR, dB           26.13    28.83    30.97    33.19    35.39    37.20

3.2 % fewer bits than `clic-compact` by PSNR over 0.1 to 0.9 bpp, 5.4 % at 0.6 to 0.9, and 2.6 % fewer by MS-SSIM, where
it is 6.7 % fewer below 0.3 bpp and 4.4 % more above 0.6. They had 4.4e9 pixels after those of `clic-compact`, in about
five hours of two CPU cores, the first 3.3e9 without the share of MS-SSIM (experiments/results/training_log.md).
"""

import dataclasses

from clic_jax.config import COMPACT, Config


def get_config() -> Config:
    """The preset with detail channels, which are coded last."""
    model = dataclasses.replace(COMPACT.model, detail_channels=128, groups=(*COMPACT.model.groups, 64, 64))
    return dataclasses.replace(COMPACT, name="compact-detail", model=model)
