"""The codec's functions as jax.export stores them: StableHLO with the parameters inside, for every platform and size.

Who reads them needs jax alone, neither Flax nor this package. Sides are symbols: h and w are those of z, so a picture
has 64 h x 64 w pixels and y is 4 h x 4 w. The integer networks are what decides symbols and tables (`fixedpoint`).

g_a        x uint8 [1, 64h, 64w, 3], lmbda float32 [1] -> y in quantisation steps [1, 4h, 4w, M]
h_a        y -> z int32 [1, h, w, N], rounded about the medians
h_s        z -> mean and scale features, int32 [1, 4h, 4w, 2C]
anchors_K  features and the slices before slice K in 1/64 -> (mean, raw scale, support) of its anchors
others_K   y_hat of the anchors in 1/64 [1, 4h, 2w, g], support -> (mean, raw scale) of the others
feature    z -> latent feature of g_s, where the model has one
maps       y_hat -> basis maps of GuidedPQF, where the model has it
g_s        y_hat, feature (where there is one), lmbda -> pixels [1, 64h, 64w, 3] in [0, 255]
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import export

from clic_jax import runtime
from clic_jax.coding.fixedpoint import FixedContext
from clic_jax.coding.tables import VALUE_MAX, VALUE_MIN
from clic_jax.config import ModelConfig
from clic_jax.light.export import transforms
from clic_jax.model.clic import CLIC
from clic_jax.model.schedule import anchor_step, other_step

SUFFIX = ".stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def functions(config: ModelConfig, params, exponents: dict) -> Iterator[tuple[str, export.Exported]]:
    """The functions above, one after the other. `exponents`: of `measured.measure`'s coding data."""
    with runtime.computing():
        for name, (function, arguments) in _traced(config, params, exponents).items():
            yield name, export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)


def _traced(config: ModelConfig, params, exponents) -> dict[str, tuple[Callable, tuple]]:
    """{name: (function, shapes of its arguments)}."""
    made, context = transforms(config, params), FixedContext(config, params, exponents)
    parts = {name: function for name, (function, *_) in made.items()}
    h, w = export.symbolic_shape("h, w")

    def shape(scale, channels, kind=jnp.int32, columns=1):
        return jax.ShapeDtypeStruct((1, scale * h, scale // columns * w, channels), kind)

    def log_gains(lmbda):
        return CLIC(config).apply({"params": params}, lmbda, method=CLIC.gains)

    def g_a(x, lmbda):
        return parts["g_a"](x.astype(jnp.float32), _positions(*x.shape[1:3])) * jnp.exp(log_gains(lmbda)[0])

    def h_a(y):
        return jnp.clip(jnp.round(parts["h_a"](y)), VALUE_MIN, VALUE_MAX).astype(jnp.int32)

    def g_s(y_hat, *feature_and_lmbda):
        *feature, lmbda = feature_and_lmbda
        y_hat = y_hat * jnp.exp(log_gains(lmbda)[1])
        return jnp.clip(parts["g_s"](jnp.concatenate([y_hat, *feature], -1)), 0, 255)

    lmbda = jax.ShapeDtypeStruct((1,), jnp.float32)
    y, z = shape(4, config.latent_channels, jnp.float32), shape(1, config.hyper_layers[-1][0])
    features = shape(4, 2 * config.hyper_channels)
    found = {
        "g_a": (g_a, (shape(64, 3, jnp.uint8), lmbda)),
        "h_a": (h_a, (y,)),
        "h_s": (context.features, (z,)),
    }
    for k, g in enumerate(config.groups):

        def anchors(features, *decoded, k=k):
            return anchor_step(context, k, list(decoded), features)

        before = [shape(4, width) for width in config.groups[:k]]
        found[f"anchors_{k}"] = anchors, (features, *before)
        support = jax.eval_shape(anchors, features, *before)[2]
        found[f"others_{k}"] = functools.partial(other_step, context, k), (shape(4, g, columns=2), support)
    feature = []
    if "feature" in parts:
        found["feature"] = (lambda z: parts["feature"](z.astype(jnp.float32))), (z,)
        feature = [shape(4, config.feature_channels, jnp.float32)]
    if "maps" in parts:
        found["maps"] = parts["maps"], (y,)
    found["g_s"] = g_s, (y, *feature, lmbda)
    return found


def _positions(h, w):
    """`model.arrange.positions` of sides that are symbols, as [1, H, W, 2]."""
    rows, columns = (jnp.arange(n, dtype=jnp.float32) / (n - 1) - 0.5 for n in (h, w))
    return jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), -1)[None]
