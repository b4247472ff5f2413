r"""The paper's rate-distortion curve for mean squared error: its full model, trained once for each of six lmbdas.

    for lmbda in 0.0018 0.0035 0.0067 0.0130 0.0250 0.0483; do
        python -m experiments.train --config experiments/configs/clic_mse.py --data folder:PHOTOS \
            --out runs/mse_$lmbda --set model.lmbdas=$lmbda \
            --set train.dtype=bfloat16 --set train.steps_per_call=50
    done

Repeated with --resume, the same command goes on with a run that was cut off. Expected on Kodak, as published:

    lmbda      0.0018   0.0035   0.0067   0.0130   0.0250   0.0483
    bpp         0.128    0.200    0.303    0.446    0.634    0.873
    PSNR, dB    29.25    30.90    32.58    34.32    36.14    37.94

As in the authors' script: Adam at 1e-4, 16 random crops of 256x256, gradient norm at most 1. Deviates: the learning
rate falls along a cosine over 2 M steps instead of halving on a plateau, averaged parameters are evaluated, GuidedPQF
corrects y_hat (the script corrects y, which a decoder lacks), and the prior of z needs no second optimiser.

Time for one lmbda, estimated: no accelerator has run this yet. A step has 2.17 M multiply-accumulates a pixel (counted
in its graph, backward pass included) and 2 M steps see 2.1e12 pixels, so

    pixels/s = peak FLOP/s * MFU / (2 * 2.17e6)         device-hours = 2.1e12 / (pixels/s) / 3600

With the data sheets' dense bfloat16 peaks and an assumed MFU of 20 % to 5 %: H100 (989 TFLOP/s) 13 to 51 hours, A100
(312) 41 to 162, TPU v5e (197) 64 to 257; six times that for the curve. Measured: two busy CPU cores (AMD EPYC, float32)
at an MFU of 22 % make 5,200 pixels/s, so 13 years. Where there is an accelerator, this measures both:

    python -m experiments.benchmark --train --preset paper --batches 16 --dtypes bfloat16 --json OUT.json
"""

from clic_jax.config import PAPER, Config


def get_config() -> Config:
    """The preset as it is."""
    return PAPER
