"""Weights of the authors' PyTorch model (1chizhang/CLIC) in our parameter tree: for its users, and for parity tests.

Only names and layouts change: convolutions (out, in, kh, kw) -> [kh, kw, in, out], the transposed one is flipped, the
two 1x1 convolutions that open a Grouper become one. Of the bottleneck's three quantiles only the median is used.

The functions below make trees of `Leaf`s, one for each of our arrays; `filled` puts a state dict into one.
"""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from clic_jax.checkpoints.explained import CheckpointError

BOTTLENECK = 5  # layers of the cumulative
TOLD = 5  # of what is wrong, so many are named
_TABLES = r"_offset$|_cdf|mask$|target$|bound|scale_table$"  # made of the weights, and not used here


class OtherModel(CheckpointError):
    """Tensors that are not those of the model; the message lists them."""


class Leaf(NamedTuple):
    """How one of our arrays comes from tensors of theirs."""

    make: Callable[..., np.ndarray]
    names: tuple[str, ...]


def from_reference(state: dict, config, shapes: Callable[[], dict] = dict) -> dict:
    """Parameters for `CLIC(config)` from the authors' state_dict (name -> array).

    shapes: gives those of our arrays, by path such as `g_a/stem/conv/kernel`, to compare with; by default none.
    Raises: OtherModel for tensors that have no place in our model, are missing, or have other shapes: the first few of
    each by name, and how many.
    """
    state = {name: value for name, value in state.items() if not re.search(_TABLES, name)}
    tree = layout(config)
    wanted = {name: None for leaf in leaves(tree).values() for name in leaf.names}
    wrong = [
        told("lacks", [name for name in wanted if name not in state]),
        told("has what that has not,", sorted(state.keys() - wanted.keys())),
    ]
    if not any(wrong):
        wrong.append(told("has in other shapes", list(_misshapen(state, leaves(tree), shapes()))))
    if any(wrong):
        raise OtherModel(f"it {'; it '.join(filter(None, wrong))}")
    return filled(tree, state)


def told(what: str, found: list[str]) -> str:
    """Some of what was found, and how many, as a part of a sentence; empty for none."""
    more = f", ... ({len(found)} in all)" if len(found) > TOLD else ""
    return f"{what} {', '.join(name[:80] for name in found[:TOLD])}{more}" if found else ""


def _misshapen(state, tree: dict[str, Leaf], shapes: dict):
    for path, shape in shapes.items():
        try:
            found = filled(tree[path], state).shape
        except (ValueError, IndexError):  # of too few or too many axes
            found = None
        if found != shape:
            theirs = " and ".join(f"{name} {list(np.shape(state[name]))}" for name in tree[path].names)
            yield f"{theirs} (our {path} is {list(shape)})"


def filled(tree, state: dict):
    """The tree with arrays in the place of its `Leaf`s. Raises: KeyError for a tensor that is not in `state`."""
    if isinstance(tree, Leaf):
        return tree.make(*(np.asarray(state[name], np.float32) for name in tree.names))
    return {name: filled(part, state) for name, part in tree.items()}


def leaves(tree, path: str = "") -> dict[str, Leaf]:
    """By path."""
    if isinstance(tree, Leaf):
        return {path: tree}
    return {k: v for name, part in tree.items() for k, v in leaves(part, f"{path}/{name}" if path else name).items()}


def layout(config) -> dict[str, Any]:
    """The parameters of `CLIC(config)`, each as a `Leaf`."""
    c = config
    stages = len(c.widths)
    g_a = {"stem": {"conv": conv("g_a.0")}}
    g_s = {"leave": deconv(f"g_s.{2 * stages - 1}")}
    for i in range(stages):
        g_a[f"stage{i}"] = stage(f"g_a.{2 * i + 1}", c.depths[i])
        g_s[f"stage{i}"] = stage(f"g_s.{2 * (stages - 1 - i)}", c.depths_of_g_s[i])
        if i:
            g_a[f"merge{i - 1}"] = merging_proj(f"g_a.{2 * i}")
            g_s[f"split{i - 1}"] = {"expand": conv(f"g_s.{2 * (stages - i) - 1}.UP.0")}
    params = {
        "g_a": g_a,
        "g_s": g_s,
        "h_a": {f"conv{i}": conv(f"h_a.{2 * i}") for i in range(len(c.hyper_layers))},
        "prior": bottleneck("entropy_bottleneck."),
        "context": context(c),
    }
    for name in ("h_mean_s", "h_scale_s", *(("h_latent_s",) if c.feature_channels else ())):
        params[name] = {
            f"conv{i}": {"expand": conv(f"{name}.{2 * i}.0")} if stride == 2 else conv(f"{name}.{2 * i}")
            for i, (_, stride) in enumerate(c.hyper_decoder_layers)
        }
    for k in range(c.pqf_slices if c.pqf != "none" else 0):
        params[f"basis_{k}"] = {"net": conv_stack(f"Guided.{k}.", len(c.pqf_ratios) + 1)}
    return params


def take(name: str, make: Callable = np.asarray) -> Leaf:
    """One tensor, as it is or as `make` arranges it."""
    return Leaf(make, (name,))


def conv(name, bias=True):
    """A convolution or linear layer as our `Conv`: 1x1 kernels as matrices."""
    return {"kernel": take(f"{name}.weight", _kernel)} | ({"bias": take(f"{name}.bias")} if bias else {})


def _kernel(weight):
    weight = weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0)
    return weight[0, 0] if weight.ndim == 4 and weight.shape[:2] == (1, 1) else weight


def deconv(name):
    """A transposed convolution as our `Deconv`: flipped, in and out swapped."""
    return {
        "kernel": take(f"{name}.weight", lambda weight: weight.transpose(2, 3, 0, 1)[::-1, ::-1].copy()),
        "bias": take(f"{name}.bias"),
    }


def conv_stack(prefix, count):
    """`count` convolutions of a Sequential with activations between them."""
    return {f"conv{i}": conv(f"{prefix}{2 * i}") for i in range(count)}


def norm(name):
    """A channel norm."""
    return {"scale": take(f"{name}.weight"), "bias": take(f"{name}.bias")}


def mlp(name):
    """A TokenMLP or the MLP of the centre offsets."""
    return {"fc1": conv(f"{name}.fc1"), "fc2": conv(f"{name}.fc2")}


def separable(name):
    """Depthwise and pointwise convolution of a gate."""
    depthwise = take(f"{name}.0.weight", lambda weight: weight[:, 0].transpose(1, 2, 0))
    return {
        "depthwise": {"kernel": depthwise, "bias": take(f"{name}.0.bias")},
        "pointwise": conv(f"{name}.1"),
    }


def grouper(name):
    """A Grouper as our `ClusterMixer`; features come before values in the joined layer."""
    flat, scalar = (functools.partial(np.reshape, shape=shape) for shape in (-1, ()))
    return {
        "gap_scale": take(f"{name}.gap_scaler", flat),
        "alpha": take(f"{name}.sim_alpha", scalar),
        "beta": take(f"{name}.sim_beta", scalar),
        "offset": mlp(f"{name}.centers_offset"),
        "fc": {
            "kernel": Leaf(_joined_kernels, (f"{name}.fc1.weight", f"{name}.fc_v.weight")),
            "bias": Leaf(lambda *biases: np.concatenate(biases), (f"{name}.fc1.bias", f"{name}.fc_v.bias")),
        },
        "proj": conv(f"{name}.fc2"),
    }


def _joined_kernels(*weights):
    return np.concatenate([_kernel(weight) for weight in weights], -1)


def spatial_gate(name):
    """A SpatialGate."""
    return separable(f"{name}.sep") | {"gate": conv(f"{name}.spatial.0")}


def channel_gate(name):
    """An SEAttention as our `ChannelGate`."""
    squeeze = {"squeeze": conv(f"{name}.fc.0", bias=False), "excite": conv(f"{name}.fc.2", bias=False)}
    return separable(f"{name}.sep") | squeeze


def cluster_block(prefix, suffix=""):
    """A ClusterBlock, or with a suffix one branch of an odd block."""
    return {
        "norm1": norm(f"{prefix}norm1{suffix}"),
        "norm2": norm(f"{prefix}norm2{suffix}"),
        "mixer": grouper(f"{prefix}token_mixer{suffix}"),
        "mlp": mlp(f"{prefix}mlp{suffix}"),
        "spatial_gate": spatial_gate(f"{prefix}sp{suffix}"),
        "channel_gate": channel_gate(f"{prefix}ca{suffix}"),
    }


def checkerboard_block(prefix):
    """An odd block: two branches."""
    return {"anchor": cluster_block(prefix, "_an"), "non_anchor": cluster_block(prefix, "_nonan")}


def stage(name, depth):
    """A CoCs_BasicLayer."""
    return {f"block{i}": (checkerboard_block if i % 2 else cluster_block)(f"{name}.blocks.{i}.") for i in range(depth)}


def merging_proj(name):
    """A MergingProj as our `PatchMerge`."""
    return {
        "mlp": mlp(f"{name}.mlp"),
        "norm": norm(f"{name}.norm"),
        "reduction": conv(f"{name}.reduction"),
    }


def bottleneck(prefix):
    """An EntropyBottleneck as our `FactorizedPrior`; the outer quantiles, which only sized its tables, are dropped."""
    params = {"median": take(f"{prefix}quantiles", lambda quantiles: quantiles[:, 0, 1])}
    for i in range(BOTTLENECK):
        params[f"matrix{i}"] = take(f"{prefix}_matrix{i}")
        params[f"bias{i}"] = take(f"{prefix}_bias{i}", _column)
        if i + 1 < BOTTLENECK:
            params[f"factor{i}"] = take(f"{prefix}_factor{i}", _column)
    return params


def _column(values):
    return values[..., 0]


def context(c):
    """cc_transforms, context_prediction and ParamAggregation as our `ContextModel`."""
    params = {}
    for k in range(len(c.groups)):
        params[f"spatial_{k}"] = conv_stack(f"context_prediction.{k}.", len(c.spatial_ratios))
        params[f"parameters_{k}"] = conv_stack(f"ParamAggregation.{k}.", len(c.parameter_widths) + 1)
        if k:
            params[f"channel_{k - 1}"] = conv_stack(f"cc_transforms.{k - 1}.", len(c.channel_layers))
    return params
