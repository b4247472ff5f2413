"""Every number of a training run, in a frozen dataclass."""

import dataclasses

from clic_jax.config.model import ConfigError

DTYPES = ("float32", "tensorfloat32", "bfloat16_products", "bfloat16")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the model is trained. One step uses `batch` crops of `crop` x `crop` pixels over all devices."""

    steps: int = 2_000_000  # optimiser steps of the whole schedule
    batch: int = 16  # crops a step, over all devices
    crop: int = 256  # side of a crop in pixels, a multiple of 64
    metric: str = "mse"  # distortion: "mse" (lmbda * 255^2 * MSE) or "ms-ssim" (lmbda * (1 - MS-SSIM))
    ms_ssim_share: float = 0.0  # of the distortion of "mse", what 1280 * (1 - MS-SSIM) takes the place of
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
    # products are an accelerator's quick ones (10 bits on NVIDIA's, 7 on TPUs); "bfloat16_products", float32 whose
    # products have factors of 7 bits, for processors that are quicker at them (docs/training.md); or "bfloat16". A CPU
    # computes the first two alike. Entropy models, loss, optimiser, and all of the codec, have all digits of float32.
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
        if (self.metric == "ms-ssim" or self.ms_ssim_share) and self.crop < 192:
            raise ConfigError(f"MS-SSIM compares five scales: train.crop must be 192 or more, not {self.crop}")
        if self.metric != "mse" and self.ms_ssim_share:
            raise ConfigError("train.ms_ssim_share is a share of the distortion of train.metric=mse: leave it at 0")
        if self.schedule not in ("cosine", "hold"):
            raise ConfigError(f"train.schedule must be 'cosine' or 'hold', not {self.schedule!r}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"train.dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        for name, fits, what in (
            ("learning_rate", self.learning_rate > 0, "positive"),
            ("ms_ssim_share", 0 <= self.ms_ssim_share < 1, "from 0 to below 1"),
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
