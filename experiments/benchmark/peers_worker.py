"""A model of CompressAI (InterDigital), or the authors' CLIC, untrained, timed on request for `experiments.benchmark`.

Runs in the peers' own environment (`make peers`), without JAX; see `stopwatch.serve` for what it is asked.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from experiments.benchmark import authors_checkout
from experiments.benchmark.stopwatch import serve

LMBDA = 0.0130


def model(name: str):
    """A model by its name there, at its authors' sizes for high rates; or that of a checkout of CLIC's authors."""
    torch.manual_seed(0)
    if Path(name).is_dir():
        return authors_checkout.load(name)[2].CLIC()
    if torch.version.cuda is None:  # PyPI's torchvision, which compressai imports, then lacks what it registers
        for op in ("nms", "qnms"):
            torch.library.define(f"torchvision::{op}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from compressai import models
    from compressai.models import sensetime

    make = {
        "Elic2022Official": lambda: sensetime.Elic2022Official(),
        "mbt2018-mean": lambda: models.MeanScaleHyperprior(192, 320),
    }
    return make[name]()


def main(name: str, image: str, threads: str):
    """Serves forward and forward_backward of crops, compress and decompress of the image; both files are arrays.

    The authors' code serves the first two: its coder is not built here.
    """
    torch.set_num_threads(int(threads))
    net, codes = model(name), not Path(name).is_dir()
    if codes:
        net.update()
    arrays = np.load(image)
    x, crops = (torch.from_numpy(arrays[key]).permute(0, 3, 1, 2).contiguous() / 255 for key in ("image", "crops"))
    coded = {}

    def forward(batch):
        net.eval()
        with torch.no_grad():
            net(crops[:batch])

    def forward_backward(batch):
        net.train()
        net.zero_grad()
        out = net(crops[:batch])
        bpp = sum(-torch.log2(p).sum() for p in out["likelihoods"].values()) / crops[:batch].numel() * 3
        (LMBDA * 255**2 * (out["x_hat"] - crops[:batch]).square().mean() + bpp).backward()

    @torch.no_grad()
    def compress():
        net.eval()
        coded.update(net.compress(x))

    @torch.no_grad()
    def decompress():
        net.decompress(**coded)

    coding = dict(compress=compress, decompress=decompress) if codes else {}
    serve(dict(forward=forward, forward_backward=forward_backward) | coding)


if __name__ == "__main__":
    main(*sys.argv[1:])
