"""Imports the authors' code from a checkout, and builds their model at reduced widths; used by compute.py only."""

import collections
import re

import torch

from experiments.benchmark import authors_checkout

# (pattern of a name, centre, spread) of drawn weights, the first that fits. Scales are mostly positive, as in use.
RULES = (
    (r"ParamAggregation\.\d\.4\.bias", 0.8, 0.25),
    (r"sim_alpha", 1.5, 0.5),
    (r"sim_beta", 0.0, 0.5),
    (r"gap_scaler", 0.0, 0.8),
    (r"(^|norm\w*\.)weight$", 1.0, 0.5),
    (r"_matrix4", -0.1, 0.6),
    (r"_matrix", -1.4, 0.6),
    (r"_factor", 0.0, 0.8),
    (r"_bias", 0.0, 0.5),
    (r"quantiles", 0.0, 2.0),
    (r"bias$", 0.0, 0.25),
)
# Other weights keep the variance of their input, also where a GELU has just taken more than half of it.
GELU_NETS = r"^(h_|cc_|context_|ParamAgg)"


def load(checkout):
    """`authors_checkout.load`, with parameters of float64."""
    torch.set_default_dtype(torch.float64)
    return authors_checkout.load(checkout)


def fill(module, fixture, prefix="param/"):
    """Draws every parameter of a module and returns the module."""
    for name, parameter in module.named_parameters():
        rules = [(centre, spread) for pattern, centre, spread in RULES if re.search(pattern, name)]
        gain = 7 if re.search(GELU_NETS, name) else 3
        centre, spread = rules[0] if rules else (0.0, round((gain / parameter[0].numel()) ** 0.5, 3))
        drawn = fixture.draw(prefix + name, parameter.shape, centre, spread)
        parameter.data = torch.from_numpy(drawn).double()
    return module.eval()


def small_model(file, widths, groups):
    """Their CLIC with each width that its constructor spells out replaced by the one in `widths`; N 32, M 40.

    Args:
      file: the module that defines CLIC; its names are put back afterwards.
      widths: reduced width of each width in the constructor; also of 640 plus channels of the context.
      groups: channels of the slices.
    """

    def narrow(width):
        return widths[640] + width - 640 if width > 640 else widths.get(width, width)

    def narrowed(build):
        return lambda inputs, outputs, *args, **options: build(narrow(inputs), narrow(outputs), *args, **options)

    def stage(dim, depth, heads, head_dim, **options):
        return originals["CoCs_BasicLayer"](dim, depth, heads=-(-heads // 4), head_dim=head_dim // 4, **options)

    class Small(file.CLIC):
        """The groups are set in the constructor, so they are made a property that cannot be set."""

        groups = property(lambda self: [0, *groups], lambda self, value: None)

    names = ("conv", "conv3x3", "conv1x1", "subpel_conv3x3")
    originals = {name: getattr(file, name) for name in (*names, "CoCs_BasicLayer")}
    try:
        vars(file).update({name: narrowed(originals[name]) for name in names}, CoCs_BasicLayer=stage)
        model = Small(32, 40, len(groups))
    finally:
        vars(file).update(originals)
    model.M = sum(groups)
    # Tables are asked for, but the transparent coder does not read them.
    for entropy_model in (model.entropy_bottleneck, model.gaussian_conditional):
        entropy_model._quantized_cdf = torch.zeros(32, 2, dtype=torch.int32)
        entropy_model._cdf_length = entropy_model._offset = torch.zeros(32, dtype=torch.int32)
    model.gaussian_conditional.scale_table = torch.ones(2)
    return model


def code(model, x):
    """What passes between the networks while their model compresses `x` and decompresses it, by name.

    `means` and `scales` are merged over the two passes of the checkerboard and `x_hat` is not clamped; `maps` are the
    basis maps [B, C, A, h, w] of the filter and `A` its coefficients [B, C, A].
    """
    calls = collections.defaultdict(list)
    slices = range(len(model.Guided))
    names = ["g_a", "h_a", "h_mean_s", "h_scale_s", "h_latent_s", "g_s"]
    names += [f"{part}.{k}" for part in ("ParamAggregation", "Guided") for k in slices]

    def watch(name):
        # Copies, as the picture is clamped in place.
        return lambda module, args, output: calls[name].append((args[0].clone(), output.clone()))

    hooks = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    with torch.no_grad():
        sent = model.compress(x)
        model.decompress(sent["strings"], sent["shape"], sent["A"])
    for hook in hooks:
        hook.remove()

    first = {name: calls[name][0] for name in names}
    y, corrected = first["g_a"][1], first["g_s"][0]
    batch, channels, height, width = y.shape
    anchor = (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0
    passes = [[output for _, output in calls[f"ParamAggregation.{k}"][:2]] for k in slices]
    merged = [torch.where(anchor, *pair).chunk(2, 1) for pair in passes]
    return {
        "y": y,
        "z": first["h_a"][1],
        "z_hat": first["h_mean_s"][0],
        "latent_means": first["h_mean_s"][1],
        "latent_scales": first["h_scale_s"][1],
        "latent_feature": first["h_latent_s"][1],
        "means": torch.cat([means for means, _ in merged], 1),
        "scales": torch.cat([scales for _, scales in merged], 1),
        "y_hat": torch.cat([first[f"Guided.{k}"][0] for k in slices], 1),
        "y_hat_corrected": corrected[:, :channels],
        "x_hat": first["g_s"][1],
        "maps": torch.cat([first[f"Guided.{k}"][1].unflatten(1, (-1, model.A)) for k in slices], 1),
        "A": torch.cat([a.reshape(batch, -1, model.A) for a in sent["A"]], 1),
    }
