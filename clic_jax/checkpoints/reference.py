"""Weights of the authors' PyTorch model (1chizhang/CLIC) in our parameter tree, for its users and for parity tests.

Only names and layouts change: convolutions (out, in, kh, kw) -> [kh, kw, in, out], the transposed one is flipped, the
two 1x1 convolutions that open a Grouper become one. Of the bottleneck's three quantiles only the median is used.
"""

import re

import numpy as np


def from_reference(state: dict, config) -> dict:
    """Parameters for `CLIC(config)` from the authors' state_dict (name -> array).

    Raises: ValueError for a tensor that has no place in our model or is missing from theirs.
    """
    c = config
    state = {
        name: np.asarray(value, np.float32)
        for name, value in state.items()
        if not re.search(r"_offset$|_cdf|mask$|target$|bound", name)
    }
    stages = len(c.widths)
    g_a = {"stem": {"conv": conv(state, "g_a.0")}}
    g_s = {"leave": deconv(state, f"g_s.{2 * stages - 1}")}
    for i in range(stages):
        g_a[f"stage{i}"] = stage(state, f"g_a.{2 * i + 1}", c.depths[i])
        g_s[f"stage{i}"] = stage(state, f"g_s.{2 * (stages - 1 - i)}", c.depths[i])
        if i:
            g_a[f"merge{i - 1}"] = merging_proj(state, f"g_a.{2 * i}")
            g_s[f"split{i - 1}"] = {"expand": conv(state, f"g_s.{2 * (stages - i) - 1}.UP.0")}
    params = {
        "g_a": g_a,
        "g_s": g_s,
        "h_a": {f"conv{i}": conv(state, f"h_a.{2 * i}") for i in range(len(c.hyper_layers))},
        "prior": bottleneck(state, "entropy_bottleneck."),
        "context": context(state, c),
    }
    for name in ("h_mean_s", "h_scale_s", "h_latent_s"):
        params[name] = {
            f"conv{i}": {"expand": conv(state, f"{name}.{2 * i}.0")} if stride == 2 else conv(state, f"{name}.{2 * i}")
            for i, (_, stride) in enumerate(c.hyper_decoder_layers)
        }
    for k in range(c.pqf_slices):
        params[f"basis_{k}"] = {"net": conv_stack(state, f"Guided.{k}.", len(c.pqf_ratios) + 1)}
    if state:
        raise ValueError(
            f"tensors of the reference without a place here: {', '.join(sorted(state)[:5])} ({len(state)} in all)"
        )
    return params


def take(state, name):
    """Removes and returns a tensor, so that what is left over at the end is what had no place."""
    if name not in state:
        raise ValueError(f"the reference weights lack {name}")
    return state.pop(name)


def conv(state, name, bias=True):
    """A convolution or linear layer as our `Conv`: 1x1 kernels as matrices."""
    weight = take(state, f"{name}.weight")
    weight = weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0)
    kernel = weight[0, 0] if weight.ndim == 4 and weight.shape[:2] == (1, 1) else weight
    return {"kernel": kernel} | ({"bias": take(state, f"{name}.bias")} if bias else {})


def deconv(state, name):
    """A transposed convolution as our `Deconv`: flipped, in and out swapped."""
    return {
        "kernel": take(state, f"{name}.weight").transpose(2, 3, 0, 1)[::-1, ::-1].copy(),
        "bias": take(state, f"{name}.bias"),
    }


def conv_stack(state, prefix, count):
    """`count` convolutions of a Sequential with activations between them."""
    return {f"conv{i}": conv(state, f"{prefix}{2 * i}") for i in range(count)}


def norm(state, name):
    """A channel norm."""
    return {"scale": take(state, f"{name}.weight"), "bias": take(state, f"{name}.bias")}


def mlp(state, name):
    """A TokenMLP or the MLP of the centre offsets."""
    return {"fc1": conv(state, f"{name}.fc1"), "fc2": conv(state, f"{name}.fc2")}


def separable(state, name):
    """Depthwise and pointwise convolution of a gate."""
    depthwise = take(state, f"{name}.0.weight")[:, 0].transpose(1, 2, 0)
    return {
        "depthwise": {"kernel": depthwise, "bias": take(state, f"{name}.0.bias")},
        "pointwise": conv(state, f"{name}.1"),
    }


def grouper(state, name):
    """A Grouper as our `ClusterMixer`; features come before values in the joined layer."""
    features, values = conv(state, f"{name}.fc1"), conv(state, f"{name}.fc_v")
    return {
        "gap_scale": take(state, f"{name}.gap_scaler").reshape(-1),
        "alpha": take(state, f"{name}.sim_alpha").reshape(()),
        "beta": take(state, f"{name}.sim_beta").reshape(()),
        "offset": mlp(state, f"{name}.centers_offset"),
        "fc": {part: np.concatenate([features[part], values[part]], -1) for part in ("kernel", "bias")},
        "proj": conv(state, f"{name}.fc2"),
    }


def spatial_gate(state, name):
    """A SpatialGate."""
    return separable(state, f"{name}.sep") | {"gate": conv(state, f"{name}.spatial.0")}


def channel_gate(state, name):
    """An SEAttention as our `ChannelGate`."""
    squeeze = {"squeeze": conv(state, f"{name}.fc.0", bias=False), "excite": conv(state, f"{name}.fc.2", bias=False)}
    return separable(state, f"{name}.sep") | squeeze


def cluster_block(state, prefix, suffix=""):
    """A ClusterBlock, or with a suffix one branch of an odd block."""
    return {
        "norm1": norm(state, f"{prefix}norm1{suffix}"),
        "norm2": norm(state, f"{prefix}norm2{suffix}"),
        "mixer": grouper(state, f"{prefix}token_mixer{suffix}"),
        "mlp": mlp(state, f"{prefix}mlp{suffix}"),
        "spatial_gate": spatial_gate(state, f"{prefix}sp{suffix}"),
        "channel_gate": channel_gate(state, f"{prefix}ca{suffix}"),
    }


def checkerboard_block(state, prefix):
    """An odd block: two branches."""
    return {"anchor": cluster_block(state, prefix, "_an"), "non_anchor": cluster_block(state, prefix, "_nonan")}


def stage(state, name, depth):
    """A CoCs_BasicLayer."""
    return {
        f"block{i}": (checkerboard_block if i % 2 else cluster_block)(state, f"{name}.blocks.{i}.")
        for i in range(depth)
    }


def merging_proj(state, name):
    """A MergingProj as our `PatchMerge`."""
    return {
        "mlp": mlp(state, f"{name}.mlp"),
        "norm": norm(state, f"{name}.norm"),
        "reduction": conv(state, f"{name}.reduction"),
    }


def bottleneck(state, prefix):
    """An EntropyBottleneck as our `FactorizedPrior`; the outer quantiles, which only sized its tables, are dropped."""
    layers = len([name for name in state if name.startswith(f"{prefix}_matrix")])
    params = {"median": take(state, f"{prefix}quantiles")[:, 0, 1]}
    for i in range(layers):
        params |= {
            f"matrix{i}": take(state, f"{prefix}_matrix{i}"),
            f"bias{i}": take(state, f"{prefix}_bias{i}")[..., 0],
        }
        if i + 1 < layers:
            params[f"factor{i}"] = take(state, f"{prefix}_factor{i}")[..., 0]
    return params


def context(state, c):
    """cc_transforms, context_prediction and ParamAggregation as our `ContextModel`."""
    params = {}
    for k in range(len(c.groups)):
        params[f"spatial_{k}"] = conv_stack(state, f"context_prediction.{k}.", len(c.spatial_ratios))
        params[f"parameters_{k}"] = conv_stack(state, f"ParamAggregation.{k}.", len(c.parameter_widths) + 1)
        if k:
            params[f"channel_{k - 1}"] = conv_stack(state, f"cc_transforms.{k - 1}.", len(c.channel_layers))
    return params
