"""Imports the authors' code from a checkout of 1chizhang/CLIC, for `experiments.benchmark --authors` and fixtures.

PyTorch and einops, without JAX.
"""

import importlib
import sys
import types

import torch


class Transparent:
    """An entropy coder whose string is the list of symbols: the checkout's own is compiled, and is not under test."""

    def encode_with_indexes(self, symbols, *tables):
        return symbols

    def decode_with_indexes(self, string, *tables):
        return string


def load(checkout):
    """(layers, entropy models, model file) of a checkout, as modules. Their `CLIC()` is the published model.

    What they import and the forward pass does not need has a stand-in: the compiled coder, and timm, of which only the
    initialiser of weights is called.
    """
    # An old name, gone from PyTorch, that the backward pass of the channel norm asks for.
    torch.autograd.function.FunctionCtx.saved_variables = property(lambda self: self.saved_tensors)
    stand_in("compressai._CXX", pmf_to_quantized_cdf=None)
    stand_in("compressai.ans", BufferedRansEncoder=None, RansEncoder=Transparent, RansDecoder=Transparent)
    for name in ("timm", "timm.models"):
        stand_in(name)
    stand_in("timm.models.layers", DropPath=None, to_2tuple=None, trunc_normal_=torch.nn.init.trunc_normal_)
    sys.path.insert(0, str(checkout))
    names = ("layers.layers_other", "entropy_models.entropy_models", "models.clic_guided")
    return [importlib.import_module(f"compressai.{name}") for name in names]


def stand_in(name, **members):
    """Registers a module under a name that the checkout imports."""
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)
