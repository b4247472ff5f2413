"""The order in which y is coded (paper Sec. 3.4): slice by slice, each in two checkerboard steps.

`code_slices` is the only place that knows it. Training, the encoder and the decoder differ in the function they hand
it, which turns (mean, scale) of one half of one slice into that half's y_hat: by rounding the true y, or by reading a
file. The networks are `context.ContextModel`, or `fixedpoint.FixedContext` in integers, of NumPy or JAX arrays.
"""

import functools

import numpy as np

from clic_jax.config import ModelConfig
from clic_jax.model.checkerboard import merge, split


def slices(y, groups):
    """y [..., M] cut into its coding slices, [..., g] each."""
    return y.__array_namespace__().split(y, np.cumsum(groups)[:-1].tolist(), axis=-1)


def code_slices(context, features, code, steps=None):
    """Runs the schedule: slice by slice anchors from (hyper, channel) context, then non-anchors from anchors as well.

    Args:
      context: the networks (or anything with its config and three methods).
      features: [B, h, w, C] hyper features, from z_hat alone.
      code: function (slice, colour, mean, raw_scale) -> y_hat of that half, [B, h, w/2, g]; colour 0 is the anchors.
      steps: compiled forms of `anchor_step` and `other_step` with the context filled in, and of `merge`, where not
        inside a jit.
    Returns: y_hat as a list of slices [B, h, w, g].
    """
    first, second, join = steps or (*(functools.partial(s, context) for s in (anchor_step, other_step)), merge)
    decoded = []
    for k in range(len(context.config.groups)):
        mean, scale, support = first(k, decoded, features)
        anchors = code(k, 0, mean, scale)
        others = code(k, 1, *second(k, anchors, support))
        decoded.append(join(anchors, others))
    return decoded


def seen_slices(config: ModelConfig, decoded: list) -> list:
    """Those of the slices decoded so far, one or more, that the next one's channel context sees."""
    return decoded if config.channel_support == "all" or len(decoded) == 1 else [decoded[0], decoded[-1]]


def anchor_step(context, k: int, decoded: list, features):
    """(mean, raw scale) of slice k's anchors, and what its non-anchors will see besides them."""
    here, there = split(context.support(k, decoded, features))
    return *context.distribution(k, None, here), there


def other_step(context, k: int, anchors, support):
    """(mean, raw scale) of slice k's non-anchors."""
    return context.distribution(k, context.neighbours(k, anchors), support)
