r"""`clic-compact-ms-ssim`: `compact` fine-tuned for MS-SSIM from its weights for squared error; in the package.

    python -m experiments.train --config experiments/configs/compact_ms_ssim.py --init clic-compact \
        --data folder:PHOTOS --valid folder:HELD_OUT --out runs/compact_ms_ssim --set train.optimizer=soap \
        --set train.crop=384 --set train.batch=2 --set train.steps=2180 --set train.warmup=150 --set train.ema=0.998

Variable rate: one model for every lmbda from 0.8 to 107 of lmbda * (1 - MS-SSIM) + bpp. The gains start where those of
the same places in the other range are. Expected on Kodak, in real files, of the weights in the package:

    quality           1       20       40       60       80      100
    bpp           0.065    0.143    0.245    0.380    0.546    0.721
    MS-SSIM, dB    9.60    12.47    14.72    16.73    18.30    19.31
    PSNR, dB      25.12    27.07    28.38    29.33    30.00    30.36

40.8 % fewer bits than AVIF 4:4:4 at equal MS-SSIM over 0.1 to 0.9 bpp, and 77.5 % more at equal PSNR.
"""

import dataclasses

from clic_jax.config import COMPACT, Config


def get_config() -> Config:
    """The preset with the other distortion."""
    return dataclasses.replace(
        COMPACT,
        name="compact-ms-ssim",
        model=dataclasses.replace(COMPACT.model, lmbdas=(0.8, 2.40, 4.58, 8.73, 16.64, 31.73, 60.50, 107.0)),
        train=dataclasses.replace(COMPACT.train, metric="ms-ssim", crop=384, batch=2),
    )
