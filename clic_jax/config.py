"""Every number that changes a result, in frozen dataclasses: the model, its training, and the four presets.

An experiment is a file in `experiments/configs/` whose `get_config()` returns a `Config` made from a preset with
`dataclasses.replace`. Dataclasses are hashable, so a config may be a static argument of `jax.jit`; a misspelt field is
a `TypeError`, and on the command line (`--set train.batch=8`) a `ConfigError` that lists the names that exist.
"""

import dataclasses
import math

from clic_jax.errors import UserError

STEP_AT_UNIT_LMBDA = 0.02  # in an orthonormal transform of [0, 1] pixels, dR = -dD gives a step of 0.02 / sqrt(lmbda)
PAPER_LMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483)  # the paper's six mean-squared-error operating points


class ConfigError(UserError):
    """A configuration that cannot be: an unknown key, a value of the wrong type, or numbers in contradiction."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The CLIC graph. Defaults are the published model; every tuple runs from the image towards the latent."""

    # g_a and g_s: a strided stem, then stages separated by 2x2 patch merges (g_a) or splits (g_s, reversed order)
    stem_kernel: int = 5  # side of the first convolution of g_a and the last of g_s, in pixels
    stem_stride: int = 2  # stem_stride * 2 ** (stages - 1) must be 16, the stride of y
    widths: tuple[int, ...] = (96, 192, 288, 320)  # channels of each stage of g_a; the last is M, the channels of y
    depths: tuple[int, ...] = (2, 2, 3, 3)  # blocks of each stage, the same in g_s
    heads: tuple[int, ...] = (6, 8, 10, 12)  # clustering heads of each stage, the same in g_s
    blocks: tuple[str, ...] = ("cluster",) * 4  # block of each stage: "cluster" (the paper's) or "conv" (residual 3x3)
    synthesis_width: int = 640  # channels of the first stage of g_s; the paper's is M + feature_channels
    head_dim: int = 32  # channels of one clustering head
    mlp_ratio: float = 2.66  # hidden width of the per-pixel MLP
    offset_ratio: float = 1.66  # hidden width of the MLP that moves the cluster centres
    gate_reduction: int = 16  # squeeze of the channel attention
    checkerboard_blocks: bool = True  # odd cluster blocks run two parameter sets on the two checkerboard colours
    linear_path: bool = False  # patch merges and splits stay linear, so that a PCA of photographs can start them
    activation: str = "gelu"  # "gelu" (exact, the paper's) or "leaky_relu" (cheaper)

    # h_a, h_mean_s, h_scale_s, h_latent_s: (channels, stride) of each 3x3 convolution
    hyper_layers: tuple[tuple[int, int], ...] = ((320, 1), (288, 1), (256, 2), (224, 1), (192, 2))  # h_a; the last is z
    # the last is as wide as what it gives, which 0 stands for
    hyper_decoder_layers: tuple[tuple[int, int], ...] = ((192, 1), (224, 2), (256, 1), (288, 2), (0, 1))
    hyper_channels: int = 320  # channels of each of the mean and scale features
    feature_channels: int = 320  # channels of the latent feature that joins y_hat in g_s; 0: none (as CLIC_base)
    shared_hyper_decoder: bool = False  # one decoder with three outputs instead of three decoders

    # context: slices of y coded one after the other, each in two checkerboard steps
    groups: tuple[int, ...] = (16, 16, 32, 64, 192)  # channels of each slice, summing to M
    # (width, kernel) of each convolution of the channel context; 0: twice the channels of the slice
    channel_layers: tuple[tuple[int, int], ...] = ((224, 5), (176, 3), (128, 3), (64, 3), (0, 3))
    channel_support: str = "first_and_previous"  # slices that a slice sees: "first_and_previous" (the code's) or "all"
    spatial_ratios: tuple[float, ...] = (1.5, 1.5, 2.0)  # widths of the masked 5x5 convolutions, in multiples of g
    parameter_widths: tuple[int, ...] = (640, 512)  # hidden widths of the 1x1 network that ends in (mean, scale)
    density: str = "gaussian"  # of y given both: "gaussian" (the paper's) or "mixed" (half Laplace: heavier tails)
    rdoq: float = 0.0  # bits that an error of one squared step counts when y is rounded to what is cheaper; 0: nearest
    log_scale: bool = False  # that network's scale is a logarithm, offset by the gain, instead of the scale itself

    # GuidedPQF: per channel of y_hat, a correction spanned by pqf_basis maps whose coefficients are sent
    pqf: str = "joint"  # "joint" (in the training graph, the paper's), "auxiliary" (trained beside it), "none"
    pqf_basis: int = 2  # basis maps a channel
    pqf_slices: int = 5  # the filter serves the first slices of y, which hold most of its energy
    pqf_ratios: tuple[float, ...] = (3.0, 3.0, 2.4)  # hidden widths of the basis network, in multiples of g

    # rate: one value is a fixed-rate model; more are the anchors between which per-channel gains are interpolated
    lmbdas: tuple[float, ...] = (0.0130,)

    @property
    def latent_channels(self) -> int:
        """M, the channels of y."""
        return self.widths[-1]

    @property
    def variable_rate(self) -> bool:
        """True when one model serves every lmbda between the smallest and the largest of `lmbdas`."""
        return len(self.lmbdas) > 1

    @property
    def reference_lmbda(self) -> float:
        """The lmbda at which the gains start at 1: the geometric middle of the range."""
        return math.sqrt(self.lmbdas[0] * self.lmbdas[-1])

    def __post_init__(self):
        stages = len(self.widths)
        for name in ("depths", "heads", "blocks"):
            if len(getattr(self, name)) != stages:
                raise ConfigError(
                    f"model.{name} has {len(getattr(self, name))} entries, model.widths has {stages}: one a stage"
                )
        if self.stem_stride * 2 ** (stages - 1) != 16:
            raise ConfigError(f"model.stem_stride {self.stem_stride} with {stages} stages does not give a stride of 16")
        if sum(self.groups) != self.latent_channels:
            raise ConfigError(
                f"model.groups sum to {sum(self.groups)}, but y has {self.latent_channels} channels (model.widths)"
            )
        if list(self.lmbdas) != sorted(set(self.lmbdas)) or min(self.lmbdas, default=0) <= 0:
            raise ConfigError(f"model.lmbdas must be positive and rising, not {self.lmbdas}")
        if self.stem_kernel != self.stem_stride and self.stem_kernel % 2 == 0:
            raise ConfigError(f"model.stem_kernel must be odd, or equal to model.stem_stride, not {self.stem_kernel}")
        if len(self.spatial_ratios) % 2 == 0:  # each masked layer flips the parity: an even number sees nothing
            raise ConfigError(f"model.spatial_ratios must have an odd number of entries: {self.spatial_ratios}")
        if self.pqf != "none" and self.pqf_slices < 1:
            raise ConfigError("model.pqf_slices must be at least 1; model.pqf=none switches the filter off")
        for name in ("hyper_layers", "hyper_decoder_layers"):
            if math.prod(stride for _, stride in getattr(self, name)) != 4:
                raise ConfigError(f"model.{name}: the strides must multiply to 4, that of z over that of y")
        if self.rdoq < 0:
            raise ConfigError(f"model.rdoq must be 0 (nearest) or positive, not {self.rdoq:g}")
        allowed = {
            "activation": ("gelu", "leaky_relu"),
            "pqf": ("joint", "auxiliary", "none"),
            "channel_support": ("first_and_previous", "all"),
            "density": ("gaussian", "mixed"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"model.{name} must be one of {', '.join(values)}, not {getattr(self, name)!r}")
        if set(self.blocks) - {"cluster", "conv"}:
            raise ConfigError(f"model.blocks must hold 'cluster' and 'conv' only, not {self.blocks}")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the model is trained. One step uses `batch` crops of `crop` x `crop` pixels over all devices."""

    steps: int = 2_000_000  # optimiser steps of the whole schedule
    batch: int = 16  # crops a step, over all devices
    crop: int = 256  # side of a crop in pixels, a multiple of 64
    metric: str = "mse"  # distortion: "mse" (lmbda * 255^2 * MSE) or "ms-ssim" (lmbda * (1 - MS-SSIM))
    lmbda_power: float = 0.0  # weight of a sample's loss is lmbda ** -power: 0.5 keeps high rates from dominating
    # "adam"; "soap", Adam in the eigenbases of each kernel's gradients: slower steps, which gain more; or "muon",
    # orthogonalised momentum for matrices and Adam for all else: it learns, but no long run has used it
    optimizer: str = "adam"
    learning_rate: float = 1e-4  # peak
    warmup: int = 1000  # steps of linear warm-up
    schedule: str = "cosine"  # after the warm-up: "cosine" to `final_rate`, or "hold" with a linear fall at the end
    cooldown: float = 0.2  # share of the steps in which "hold" falls to `final_rate`
    final_rate: float = 0.0  # last learning rate, as a share of the peak
    grad_clip: float = 1.0  # largest global norm of a gradient
    ema: float = 0.999  # decay of the averaged parameters that are evaluated and published
    pca_start: bool = False  # start g_a and g_s as a transform codec (needs model.linear_path)
    # compute type of g_a, g_s, h_a: "float32", with all its digits on every device; "tensorfloat32", float32 whose
    # products are an accelerator's quick ones (10 bits on NVIDIA's, 7 on TPUs); or "bfloat16". A CPU computes the first
    # two alike. Entropy models, loss and optimiser, and the codec throughout, are float32 with all its digits.
    dtype: str = "float32"
    accumulate: int = 1  # parts of the batch computed one after another, for less memory; the mean gradient is applied
    # XLA's temporaries for a step of four 256x256 crops on a CPU: 578 MiB without remat, 186 with it (small); 12,690,
    # 2,046, and 957 with accumulate=4 as well (paper). Neither is measured on an accelerator yet.
    remat: bool = False  # for less memory, keep the inputs of the blocks of g_a and g_s and compute the rest anew
    steps_per_call: int = 1  # steps inside one compiled call: more for accelerators
    seed: int = 0
    log_every: int = 50  # steps between rows of metrics.jsonl
    save_every: int = 1000  # steps between checkpoints
    eval_every: int = 5000  # steps between evaluations on the held-out photographs

    def __post_init__(self):
        if self.crop % 64 or self.crop <= 0:
            raise ConfigError(f"train.crop must be a positive multiple of 64, not {self.crop}")
        if self.metric not in ("mse", "ms-ssim"):
            raise ConfigError(f"train.metric must be 'mse' or 'ms-ssim', not {self.metric!r}")
        if self.metric == "ms-ssim" and self.crop < 192:
            raise ConfigError(
                f"train.metric=ms-ssim compares five scales: train.crop must be 192 or more, not {self.crop}"
            )
        if self.schedule not in ("cosine", "hold"):
            raise ConfigError(f"train.schedule must be 'cosine' or 'hold', not {self.schedule!r}")
        if self.dtype not in ("float32", "tensorfloat32", "bfloat16"):
            raise ConfigError(f"train.dtype must be 'float32', 'tensorfloat32' or 'bfloat16', not {self.dtype!r}")
        for name, fits, what in (
            ("learning_rate", self.learning_rate > 0, "positive"),
            ("grad_clip", self.grad_clip > 0, "positive"),
            ("ema", 0 <= self.ema < 1, "from 0 to below 1"),
            ("warmup", self.warmup >= 0, "0 or more"),
            ("cooldown", 0 <= self.cooldown <= 1, "from 0 to 1"),
            ("final_rate", 0 <= self.final_rate <= 1, "from 0 to 1"),
        ):
            if not fits:  # NaN fits nothing
                raise ConfigError(f"train.{name} must be {what}, not {getattr(self, name)}")
        for name in ("steps", "batch", "accumulate", "steps_per_call", "log_every", "save_every", "eval_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 1, not {getattr(self, name)}")


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

PRESETS = {config.name: config for config in (PAPER, SMALL, COMPACT, TINY)}


def preset(name: str) -> Config:
    """The preset of that name. Raises: ConfigError naming the presets that exist."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
