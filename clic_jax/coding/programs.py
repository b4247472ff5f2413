"""What a codec computes with: the functions of one model that coding a picture consists of.

`clic_jax.coding.compiled` has them in JAX, `clic_jax.light.programs` in onnxruntime and NumPy. What decides a symbol or
a table takes and gives integers (`clic_jax.coding.fixedpoint`), the same in both; y and the picture are float32.
"""

import dataclasses
from collections.abc import Callable

from clic_jax.coding.fixedpoint import FixedContext


@dataclasses.dataclass(frozen=True)
class Programs:
    """Functions with one model's parameters filled in; arrays are of a batch of one, [1, h, w, C].

    A caller may replace any of them by its own, to watch or to time it (`dataclasses.replace`).
    """

    # float32: the transforms
    analyse: Callable  # x uint8 [1, H, W, 3], a picture or a tile of it; lmbda [1] -> y in quantisation steps
    hyper: Callable  # y, z or None for h_a's -> (halves of y, a list of pairs [1, h, w/2, g]; z int32)
    feature: Callable  # z int32 -> the latent feature for g_s, or None
    synthesise: Callable  # y_hat (of a tile), feature, lmbda -> [1, H, W, 3] in [0, 255], not rounded
    maps: Callable  # y_hat -> GuidedPQF's orthonormal basis maps [1, h, w, C, A]
    fitted: Callable  # maps, halves of y, y_hat -> the filter's exact coefficients [1, C, A]
    corrected: Callable  # y_hat, maps, coefficients -> y_hat with its first channels corrected
    log_inverse_gain: Callable  # lmbda -> [1, 1, 1, M], or 0.0 for a fixed-rate model
    searched: Callable  # as `search.search`, without its first two arguments

    # integers: what decides a symbol or a table
    context: FixedContext  # the networks, for `model.schedule.code_slices`
    steps: tuple[Callable, Callable, Callable]  # its two steps and `merge`, compiled, for the same
    features: Callable  # z int32 -> hyper features int32
    quantise: Callable  # half of y, mean, raw scale, gain -> (symbols, table index uint8, y_hat in 1/64)
    table_index: Callable  # raw scale, gain -> the scale table of each symbol, uint8
    dequantise: Callable  # symbols, mean -> y_hat in 1/64
    joined: Callable  # slices in 1/64 -> y_hat float32 [1, h, w, M] in quantisation steps

    put: Callable  # a NumPy array -> one of the kind that the others take
    get: Callable  # arrays in lists and tuples -> NumPy arrays in the same, all of them ready
    computing: Callable  # () -> a context manager, around all use of the others
    about: Callable  # () -> what computes, in words, for a file that cannot be read
    compile_picture: Callable  # shape of z, h, w -> compiles `feature` and `synthesise` for y_hat [1, h, w, M], once
