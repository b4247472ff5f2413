r"""`mini`: the published graph with a quarter of its channels, on which ablations are measured without an accelerator.

    python -m experiments.train --config experiments/configs/mini.py --data folder:PHOTOS --valid folder:HELD_OUT \
        --out runs/mini

Every stage clusters, odd blocks are checkerboard blocks, GuidedPQF is in the graph, there are three hyper decoders;
27.4 kMAC a pixel to encode and 27.8 to decode, where `paper` has 414 and 423. One model for every lmbda from 0.0018 to
0.0483. Expected of 1,050 steps of two 128x128 crops, 13 minutes of two busy cores: 0.34 bpp at 19.0 dB on training
crops, over all lmbdas, which is far from useful still; longer runs are not measured yet. It is not for coding
photographs: `tiny` is cheaper and better. Its ablations, one change each, are in `ablations/`, and `python -m
experiments.ablation` trains and compares them (docs/ablations.md).
"""

from clic_jax.config import MINI, Config


def get_config() -> Config:
    """The preset as it is."""
    return MINI
