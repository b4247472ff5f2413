"""An experiment's whole config, and the presets."""

import dataclasses

from clic_jax.config.model import ConfigError, ModelConfig
from clic_jax.config.train import TrainConfig

PAPER_LMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483)  # the paper's six mean-squared-error operating points


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment: a named model and how to train it."""

    name: str = "paper"
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()


PAPER = Config()

# The small presets keep the structure (clustering, local attention, checkerboard context, GuidedPQF) and differ where
# an experiment at equal CPU time said so: dense 3x3 blocks at strides 4 and 8, cluster blocks at stride 16, a linear
# path through g_a and g_s that starts as a principal-component transform, logarithmic scales, one model for all rates.
TINY = Config(
    name="tiny",
    model=ModelConfig(
        stem_kernel=4,
        stem_stride=4,
        widths=(48, 96, 192),
        depths=(1, 2, 2),
        heads=(4, 4, 4),
        blocks=("conv", "conv", "cluster"),
        synthesis_width=192,
        mlp_ratio=1.5,
        checkerboard_blocks=False,
        linear_path=True,
        hyper_layers=((64, 2), (48, 2)),
        hyper_decoder_layers=((64, 2), (0, 2)),
        hyper_channels=40,
        feature_channels=36,
        shared_hyper_decoder=True,
        groups=(32, 64, 96),
        channel_layers=((64, 3), (64, 1)),
        channel_support="all",
        spatial_ratios=(0.5,),
        parameter_widths=(128,),
        density="mixed",
        rdoq=30.0,
        log_scale=True,
        pqf="auxiliary",
        pqf_slices=1,
        pqf_ratios=(1.0,),
        lmbdas=PAPER_LMBDAS,
    ),
    train=TrainConfig(
        steps=400_000,
        batch=4,
        crop=128,
        lmbda_power=0.5,
        learning_rate=1e-3,
        warmup=200,
        pca_start=True,
        schedule="hold",
        ema=0.9995,
        save_every=1000,
        eval_every=5000,
    ),
)

# `tiny` grown where trained weights could not follow their data any more (`clic_jax.training.growth` carries them
# over), for a wider range of rates.
COMPACT = dataclasses.replace(
    TINY,
    name="compact",
    model=dataclasses.replace(
        TINY.model,
        depths=(2, 3, 2),
        channel_layers=((128, 3), (64, 1)),
        spatial_ratios=(1.0,),
        parameter_widths=(256,),
        lmbdas=(0.0006, *PAPER_LMBDAS, 0.085),
    ),
)

SMALL = dataclasses.replace(
    TINY,
    name="small",
    model=dataclasses.replace(
        TINY.model,
        widths=(96, 160, 256),
        depths=(2, 3, 4),
        heads=(4, 6, 8),
        synthesis_width=256,
        mlp_ratio=2.0,
        hyper_layers=((112, 2), (96, 2)),
        hyper_decoder_layers=((112, 2), (0, 2)),
        hyper_channels=96,
        feature_channels=64,
        groups=(16, 32, 64, 144),
        channel_layers=((128, 3), (96, 1)),
        parameter_widths=(256, 192),
        pqf_slices=2,
    ),
    # made for half an hour of one GPU: photographs in its memory, many steps a call, bfloat16 transforms
    train=dataclasses.replace(
        TINY.train,
        steps=60_000,
        batch=32,
        crop=256,
        warmup=500,
        dtype="bfloat16",
        steps_per_call=50,
    ),
)

# `small` with half as much g_s, as pictures are decoded more often than encoded, finer slices at first, wider context
# networks, and the rates of `compact`.
MEDIUM = dataclasses.replace(
    SMALL,
    name="medium",
    model=dataclasses.replace(
        SMALL.model,
        widths=(64, 128, 256),
        depths=(3, 5, 4),
        synthesis_depths=(1, 3, 4),
        heads=(4, 6, 6),
        hyper_layers=((128, 2), (96, 2)),
        hyper_decoder_layers=((128, 2), (0, 2)),
        groups=(16, 16, 32, 64, 128),
        channel_layers=((192, 3), (128, 1)),
        parameter_widths=(384, 192),
        lmbdas=COMPACT.model.lmbdas,
    ),
)

# The published graph from stride 4 on, with a quarter of its channels: what ablations are measured on where there is no
# accelerator (experiments.ablation). Of `tiny` it has what makes one short training give a whole, useful curve: one
# model for all rates, logarithmic scales, and a linear path that starts from principal components.
MINI = Config(
    name="mini",
    model=ModelConfig(
        stem_kernel=4,
        stem_stride=4,
        widths=(48, 72, 80),
        depths=(2, 2, 2),
        heads=(8, 10, 12),
        blocks=("cluster",) * 3,
        synthesis_width=160,
        head_dim=8,
        gate_reduction=4,
        linear_path=True,
        hyper_layers=((80, 1), (64, 2), (48, 2)),
        hyper_decoder_layers=((48, 2), (64, 2), (0, 1)),
        hyper_channels=80,
        feature_channels=80,
        groups=(4, 4, 8, 16, 48),
        channel_layers=((56, 5), (32, 3), (0, 3)),
        parameter_widths=(160, 128),
        log_scale=True,
        lmbdas=PAPER_LMBDAS,
    ),
    train=dataclasses.replace(TINY.train, steps=4000, batch=2, warmup=50, schedule="cosine", ema=0.99),
)

PRESETS = {config.name: config for config in (PAPER, MEDIUM, SMALL, COMPACT, TINY, MINI)}


def preset(name: str) -> Config:
    """The preset of that name. Raises: ConfigError naming the presets that exist."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
