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
    bpp                0.071    0.170    0.312    0.532    0.847    1.210
    PSNR, dB           26.14    28.83    30.98    33.20    35.41    37.23
    effort 1, bpp      0.072    0.174    0.320    0.553    0.874    1.247
    effort 1, PSNR     26.22    28.93    31.13    33.49    35.83    37.84

2.5 % fewer bits than `clic-compact` by PSNR over 0.1 to 0.9 bpp, 4.7 % at 0.6 to 0.9, and 1.0 % fewer by MS-SSIM, where
it is 5.0 % fewer below 0.3 bpp and 6.0 % more above 0.6. Their last 0.4 Gpx had `--set train.ms_ssim_share=0.08`.
"""

import dataclasses

from clic_jax.config import COMPACT, Config


def get_config() -> Config:
    """The preset with detail channels, which are coded last."""
    model = dataclasses.replace(COMPACT.model, detail_channels=128, groups=(*COMPACT.model.groups, 64, 64))
    return dataclasses.replace(COMPACT, name="compact-detail", model=model)
