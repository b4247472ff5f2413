"""Parameters and multiply-accumulates a pixel, by part and by direction, counted in the traced graph.

    python -m experiments.complexity --preset tiny --size 512x768 --json

MACs are those of convolutions and matrix products in the jaxpr of the coding path: norms, activations, gates and
pooling are left out. "as_published" counts the 1x1 parameter network twice a position, as the authors' code runs it.
Encoding needs g_a, h_a, the mean and scale decoders, the context model and GuidedPQF; decoding needs all hyper
decoders, the context model, GuidedPQF and g_s.
"""

import argparse
import json
import math

import jax
import jax.numpy as jnp

from clic_jax import config, settings
from clic_jax.model import pqf
from clic_jax.model.clic import CLIC
from clic_jax.model.schedule import slices
from experiments import cli, experiment


def macs(function, *args) -> int:
    """Multiply-accumulates of the convolutions and matrix products of function(*args), traced only."""
    return count(jax.make_jaxpr(function)(*args).jaxpr)


def count(jaxpr) -> int:
    """The same for a jaxpr and its inner ones: loops times their length where known, of branches the largest.

    Of `lax.platform_dependent` the default, whatever the platform: others are the same product in another form.
    """
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[d] for d in contract)
        elif eqn.params.get("name") == "depthwise3x3":
            total += 9 * math.prod(eqn.outvars[0].aval.shape)
        elif eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval.shape
            features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
            dense = math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // features
            total += dense // math.prod(eqn.params["lhs_dilation"])  # inserted zeros are not multiplied
        values = [v for value in eqn.params.values() for v in (value if isinstance(value, (tuple, list)) else (value,))]
        inner = [count(getattr(v, "jaxpr", v)) for v in values if hasattr(v, "jaxpr") or hasattr(v, "eqns")]
        if eqn.primitive.name == "cond":
            total += inner[-1] if eqn.params.get("branches_platforms") else max(inner)
        else:
            total += sum(inner) * eqn.params.get("length", 1)
    return total


def parts(cfg: config.ModelConfig, height: int, width: int) -> dict[str, float]:
    """kMAC per image pixel of each part for one image of that size."""
    model = CLIC(cfg)
    x = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    lmbda = jnp.full((1,), cfg.lmbdas[0])
    params = jax.eval_shape(model.init, jax.random.key(0), x, lmbda)
    out = jax.eval_shape(model.apply, params, x, lmbda)
    y, z = out.tensors["y"], out.tensors["z"]

    def traced(method, *args):
        return macs(lambda p, *a: model.apply(p, *a, method=method), params, *args) / (height * width) / 1000

    result = {"g_a": traced(lambda m, x: m.g_a(x), x), "h_a": traced(lambda m, y: m.h_a(y), y)}
    names = (
        ("h_s",)
        if cfg.shared_hyper_decoder
        else ("h_mean_s", "h_scale_s", *(("h_latent_s",) if cfg.feature_channels else ()))
    )
    result |= {name: traced(lambda m, z, name=name: getattr(m, name)(z), z) for name in names}

    def channel(m, y, features):
        return [m.context.support(k, slices(y, cfg.groups)[:k], features) for k in range(len(cfg.groups))]

    def spatial(m, y):
        return [m.context.neighbours(k, value[:, :, ::2]) for k, value in enumerate(slices(y, cfg.groups))]

    result |= {"channel_context": traced(channel, y, out.tensors["features"]), "spatial_context": traced(spatial, y)}
    result["parameters"] = (
        sum(_dense(params["params"]["context"][f"parameters_{k}"]) for k in range(len(cfg.groups))) / 256 / 1000
    )
    if cfg.pqf != "none":

        def correct(m, y):
            for basis, value in zip(m.basis, slices(y, cfg.groups)):
                pqf.orthonormal(basis(value))

        result["pqf"] = traced(correct, y)
    feature = () if out.tensors["feature"] is None else (out.tensors["feature"],)
    result["g_s"] = traced(lambda m, *a: m.g_s(jnp.concatenate(a, -1)), y, *feature)
    return result


def _dense(tree) -> int:
    """MACs a position of a stack of 1x1 layers: the sizes of their kernels."""
    return sum(layer["kernel"].size for layer in tree.values())


def activation_mib(cfg: config.ModelConfig, height: int, width: int) -> float:
    """MiB of temporary memory of the compiled whole forward pass (XLA's own accounting), parameters not counted."""
    x, lmbda = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32), jnp.full((1,), cfg.lmbdas[0])
    params = jax.eval_shape(CLIC(cfg).init, jax.random.key(0), x, lmbda)
    forward = jax.jit(lambda p, x: CLIC(cfg).apply(p, x, lmbda)[:3])
    return forward.lower(params, x).compile().memory_analysis().temp_size_in_bytes / 2**20


def report(cfg: config.Config, height: int, width: int, memory: bool = True) -> dict:
    """The whole account of one preset."""
    by_part = parts(cfg.model, height, width)
    shapes = jax.eval_shape(CLIC(cfg.model).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)), jnp.ones(1))["params"]
    sizes = {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in shapes.items()}
    encode = sum(value for name, value in by_part.items() if name not in ("g_s", "h_latent_s"))
    decode = sum(value for name, value in by_part.items() if name not in ("g_a", "h_a"))
    return {
        "preset": cfg.name,
        "size": [height, width],
        "parameters": sum(sizes.values()),
        "parameters_by_part": sizes,
        "kmac_per_pixel": {
            "encode": encode,
            "decode": decode,
            "parts": by_part,
            "as_published": {"encode": encode + by_part["parameters"], "decode": decode + by_part["parameters"]},
        },
        "peak_activation_mib": activation_mib(cfg.model, height, width) if memory else None,
    }


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.complexity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="tiny", help=f"{', '.join(config.PRESETS)}, or an experiment file (.py)")
    parser.add_argument("--size", default="256x256", help="height x width in pixels, multiples of 64")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the preset"
    )
    parser.add_argument("--json", action="store_true", help="JSON on standard output instead of a table")
    args = parser.parse_args(argv)
    try:
        height, width = (int(n) for n in args.size.split("x"))
    except ValueError:
        parser.error(f"--size wants HEIGHTxWIDTH, not {args.size}")
    if min(height, width) < 64 or height % 64 or width % 64:
        parser.error("--size wants positive multiples of 64")
    result = report(settings.override(experiment.named(args.preset), args.set), height, width)
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    memory, cost = result["peak_activation_mib"], result["kmac_per_pixel"]
    print(
        f"{result['preset']} at {height}x{width}: {result['parameters']:,} parameters, {memory:.0f} MiB of activations"
    )
    for name, value in (cost["parts"] | {"encode": cost["encode"], "decode": cost["decode"]}).items():
        print(f"  {name:16s} {value:9.2f} kMAC/pixel")
    return 0


if __name__ == "__main__":
    cli.run(main)
