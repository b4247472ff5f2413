"""Every number of the graph of the model, in a frozen dataclass."""

import dataclasses
import math

from clic_jax.errors import UserError


class ConfigError(UserError):
    """A configuration that cannot be: an unknown key, a value of the wrong type, or numbers in contradiction."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The CLIC graph. Defaults are the published model; every tuple runs from the image towards the latent."""

    # g_a and g_s: a strided stem, then stages separated by 2x2 patch merges (g_a) or splits (g_s, reversed order)
    stem_kernel: int = 5  # side of the first convolution of g_a and the last of g_s, in pixels
    stem_stride: int = 2  # stem_stride * 2 ** (stages - 1) must be 16, the stride of y
    widths: tuple[int, ...] = (96, 192, 288, 320)  # channels of each stage of g_a; the last are those of y
    # further channels of y, not the paper's: linear in each 16x16 pixels and back, past all blocks, which see them too.
    # They hold texture that a narrow last stage has no room for, and pay at high rates
    detail_channels: int = 0
    depths: tuple[int, ...] = (2, 2, 3, 3)  # blocks of each stage of g_a
    synthesis_depths: tuple[int, ...] = ()  # blocks of each stage of g_s, in the same order; none: as many as in g_a
    heads: tuple[int, ...] = (6, 8, 10, 12)  # clustering heads of each stage, the same in g_s
    blocks: tuple[str, ...] = ("cluster",) * 4  # block of each stage: "cluster" (the paper's) or "conv" (residual 3x3)
    synthesis_width: int = 640  # channels of the first stage of g_s; the paper's is M + feature_channels
    head_dim: int = 32  # channels of one clustering head
    mlp_ratio: float = 2.66  # hidden width of the per-pixel MLP
    offset_ratio: float = 1.66  # hidden width of the MLP that moves the cluster centres
    gate_reduction: int = 16  # squeeze of the channel attention
    checkerboard_blocks: bool = True  # odd cluster blocks run two parameter sets on the two checkerboard colours
    positions: bool = True  # two channels of coordinates join the picture in g_a
    linear_path: bool = False  # patch merges and splits stay linear, so that a PCA of photographs can start them
    activation: str = "gelu"  # "gelu" (exact, the paper's) or "leaky_relu" (cheaper)

    # what the paper's ablations change inside a cluster block; docs/ablations.md says what is our reading of them
    mixer: str = "cluster"  # "cluster" (the paper's), "conv" (one dense 3x3) or "window_attention" (8x8 windows)
    attention: str = "gates"  # local attention: "gates" (the paper's), "conv" (their convolutions alone) or "none"
    centers: int = 4  # cluster centres of a head, in a square: 1, 4, 9 or 16
    center_windows: str = "disjoint"  # where centres are pooled from: "disjoint" (the paper's) or "overlapping"
    # how a pooled centre is moved: "mlp" (the paper's), "iterative" (three rounds of k-means) or "none"
    center_offset: str = "mlp"
    similarity_slope: float = 1.0  # what a similarity is multiplied by at the start, before its sigmoid; then learned
    similarity: str = "cosine"  # of a pixel to a centre: "cosine" (the paper's) or "euclidean" (less the distance)
    # a pixel belongs to its best centre ("hard", the paper's) or to each in proportion ("soft"); for comparison,
    # whatever it is like, to its head's largest cluster ("one") or to the centre of its place ("grid")
    assignment: str = "hard"
    normalization: str = "points"  # a centre's sum is divided by its "points" (the paper's) or their "similarity"

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
    # "joint" (in the training graph, the paper's), "auxiliary" (trained beside it), "plain" (nothing is sent: a network
    # corrects y_hat in the decoder), "none"
    pqf: str = "joint"
    pqf_basis: int = 2  # basis maps a channel
    pqf_slices: int = 5  # the filter serves the first slices of y, which hold most of its energy
    pqf_ratios: tuple[float, ...] = (3.0, 3.0, 2.4)  # hidden widths of the basis network, in multiples of g

    # rate: one value is a fixed-rate model; more are the anchors between which gains are interpolated
    lmbdas: tuple[float, ...] = (0.0130,)
    gains: str = "channel"  # of y: "channel" (a vector an anchor, another back) or "scalar" (one quantiser step each)

    @property
    def latent_channels(self) -> int:
        """M, the channels of y."""
        return self.widths[-1] + self.detail_channels

    @property
    def depths_of_g_s(self) -> tuple[int, ...]:
        """Blocks of each stage of g_s, from the image towards the latent."""
        return self.synthesis_depths or self.depths

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
        if len(self.synthesis_depths) not in (0, stages):
            raise ConfigError(
                f"model.synthesis_depths has {len(self.synthesis_depths)} entries, model.widths has {stages}: "
                f"one a stage, or () for the blocks of g_a"
            )
        if self.stem_stride * 2 ** (stages - 1) != 16:
            raise ConfigError(f"model.stem_stride {self.stem_stride} with {stages} stages does not give a stride of 16")
        if sum(self.groups) != self.latent_channels:
            raise ConfigError(
                f"model.groups sum to {sum(self.groups)}, but y has {self.latent_channels} channels (the last of "
                f"model.widths, and model.detail_channels)"
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
        if not 0 < self.similarity_slope < math.inf:
            raise ConfigError(f"model.similarity_slope must be above 0, not {self.similarity_slope:g}")
        if self.rdoq < 0:
            raise ConfigError(f"model.rdoq must be 0 (nearest) or positive, not {self.rdoq:g}")
        allowed = {
            "activation": ("gelu", "leaky_relu"),
            "pqf": ("joint", "auxiliary", "plain", "none"),
            "mixer": ("cluster", "conv", "window_attention"),
            "attention": ("gates", "conv", "none"),
            "centers": (1, 4, 9, 16),
            "center_windows": ("disjoint", "overlapping"),
            "center_offset": ("mlp", "iterative", "none"),
            "similarity": ("cosine", "euclidean"),
            "assignment": ("hard", "soft", "one", "grid"),
            "normalization": ("points", "similarity"),
            "gains": ("channel", "scalar"),
            "channel_support": ("first_and_previous", "all"),
            "density": ("gaussian", "mixed"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                there = ", ".join(map(str, values))
                raise ConfigError(f"model.{name} must be one of {there}, not {getattr(self, name)!r}")
        if set(self.blocks) - {"cluster", "conv"}:
            raise ConfigError(f"model.blocks must hold 'cluster' and 'conv' only, not {self.blocks}")
