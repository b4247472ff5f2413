r"""`mini`: the published graph with a quarter of its channels, on which ablations are measured without an accelerator.

    python -m experiments.train --config experiments/configs/mini.py --data folder:PHOTOS --valid folder:HELD_OUT \
        --out runs/mini

Every stage from stride 4 on clusters, odd blocks are checkerboard blocks, GuidedPQF is in the graph, there are five
slices and three hyper decoders; 16.1 kMAC a pixel to encode and 18.0 to decode, where `paper` has 414 and 423. One
model for every lmbda from 0.0018 to 0.0483. Expected of 600 steps of two 128x128 crops, five minutes of one core, in
real files of seven held-out photographs: 0.229 bpp 31.13 dB, 0.351 32.94, 0.507 34.38, 0.700 35.33. It is not for
coding photographs: `tiny` is cheaper and better. Its ablations, one change each, are in `ablations/`, and `python -m
experiments.ablation` trains and compares them (docs/ablations.md).
"""

from clic_jax.config import MINI, Config


def get_config() -> Config:
    """The preset as it is."""
    return MINI
