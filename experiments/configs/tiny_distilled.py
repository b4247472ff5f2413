r"""`tiny` in minutes, from the weights of `clic-compact`, a larger model of the same latents (docs/training.md).

    python -m experiments.train --config experiments/configs/tiny_distilled.py --init clic-compact \
        --data folder:PHOTOS --valid folder:HELD_OUT --out runs/tiny_distilled

It starts from the larger model's first blocks and hidden units. 800 steps of four 128x128 crops, 52 Mpx: 21 minutes of
two cores that much other work shared (0.4 to 1 steps a second; the run without --init, in 14 minutes, 0.7 to 2.5).
Expected on 25 held-out photographs, in estimated bits, against the same command without --init, which starts from
principal components:

    lmbda                            0.0018   0.0067    0.025
    distilled       bpp               0.132    0.283    0.526
                    PSNR, dB          30.73    33.77    36.47
    from scratch    bpp               0.203    0.408    0.755
                    PSNR, dB          29.81    32.96    35.95

That is 42.5 % fewer bits at equal PSNR, in equal time: both are the same program; and 1.5 % more than the shipped
`clic-tiny` 44ee9ce2. What `clic-compact` c74d81c1 took to train, 8.3e9 pixels, is not counted.
"""

import dataclasses

from clic_jax.config import TINY, Config


def get_config() -> Config:
    """The preset for a short training: the rate falls along a cosine, and the average remembers a hundred steps."""
    train = dataclasses.replace(TINY.train, steps=800, warmup=50, schedule="cosine", ema=0.99)
    return dataclasses.replace(TINY, name="tiny-distilled", train=train)
