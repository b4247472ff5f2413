"""A model small enough to compile in seconds, with every part of `tiny`; its text form is an experiment file."""

import dataclasses

from clic_jax.config import TINY

MICRO = dataclasses.replace(
    TINY,
    name="micro",
    model=dataclasses.replace(
        TINY.model,
        stem_kernel=8,
        stem_stride=8,
        widths=(16, 24),
        depths=(1, 1),
        heads=(2, 2),
        blocks=("conv", "cluster"),
        head_dim=8,
        synthesis_width=24,
        hyper_layers=((16, 2), (8, 2)),
        hyper_decoder_layers=((16, 2), (0, 2)),
        hyper_channels=8,
        feature_channels=8,
        groups=(8, 16),
        channel_layers=((8, 3),),
        spatial_ratios=(1.0,),
        parameter_widths=(16,),
        pqf_slices=1,
    ),
    train=dataclasses.replace(
        TINY.train, steps=1000, batch=8, crop=64, warmup=10, log_every=2, save_every=2, eval_every=1000
    ),
)

# the paper's choices where `tiny` differs, at micro's widths: nothing in it is a logarithm, shared, linear or variable
MICRO_PAPER = dataclasses.replace(
    MICRO,
    name="micro-paper",
    model=dataclasses.replace(
        MICRO.model,
        blocks=("cluster", "cluster"),
        synthesis_width=32,
        checkerboard_blocks=True,
        linear_path=False,
        shared_hyper_decoder=False,
        groups=(4, 4, 16),
        channel_support="first_and_previous",
        spatial_ratios=(1.5, 1.5, 2.0),
        density="gaussian",
        rdoq=0.0,
        log_scale=False,
        pqf="joint",
        pqf_slices=3,
        pqf_ratios=(3.0, 3.0, 2.4),
        lmbdas=(0.0130,),
    ),
    train=dataclasses.replace(MICRO.train, pca_start=False),
)

EXPERIMENT = """from tests.micro import MICRO


def get_config():
    return MICRO
"""
