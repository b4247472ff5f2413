"""The model that a state dict of the authors' is of, told by the names and shapes of its tensors."""

import re

from clic_jax.config import ConfigError, ModelConfig

PAPER = ModelConfig()
BASE_SPATIAL = (2.0,)  # of CLIC_base: one masked convolution


def inferred(shapes: dict[str, tuple[int, ...]], lmbda: float) -> ModelConfig:
    """The config of the authors' CLIC or CLIC_base, of any widths, from the shapes of its state dict.

    What no shape tells is as in the paper: strides of h_a, activations, the kind of density. Where the names are not
    theirs it is the paper's model, for `reference.from_reference` to say what is missing.
    """
    try:
        return _inferred(shapes, lmbda)
    except (LookupError, ValueError, ArithmeticError, StopIteration, ConfigError):
        return ModelConfig(lmbdas=(lmbda,))


def _inferred(shapes, lmbda: float) -> ModelConfig:
    def out(name):
        return shapes[f"{name}.weight"][0]

    def into(name):
        return shapes[f"{name}.weight"][1]

    def numbers(prefix):
        found = (re.match(rf"{re.escape(prefix)}(\d{{1,4}})\.", name) for name in shapes)
        return sorted({int(match[1]) for match in found if match})

    stages = [f"g_a.{k}.blocks" for k in numbers("g_a.") if f"g_a.{k}.blocks.0.norm1.weight" in shapes]
    mixer = f"{stages[0]}.0.token_mixer"
    head_dim = into(f"{mixer}.centers_offset.fc1")
    mlps = [f"{stage}.0.mlp.fc1" for stage in stages]
    gates = [(into(name), out(name)) for name in (f"{stage}.0.ca.fc.0" for stage in stages)]
    reductions = (PAPER.gate_reduction, *range(1, max(gates)[0] + 1))
    decoder, channel, hidden = numbers("h_mean_s."), numbers("cc_transforms.0."), numbers("ParamAggregation.0.")
    spatial, slices = numbers("context_prediction.0."), numbers("context_prediction.")
    groups = tuple(into(f"context_prediction.{k}.0") for k in slices)
    hyper = [out(f"h_a.{k}") for k in numbers("h_a.")]
    usual = PAPER.spatial_ratios if len(spatial) == len(PAPER.spatial_ratios) else BASE_SPATIAL
    changed = {}
    if filters := numbers("Guided."):
        layers = numbers("Guided.0.")
        changed = {
            "pqf_basis": out(f"Guided.0.{layers[-1]}") // groups[0],
            "pqf_slices": len(filters),
            "pqf_ratios": tuple(
                _ratio(ratio, [(groups[k], out(f"Guided.{k}.{i}")) for k in filters])
                for ratio, i in zip(PAPER.pqf_ratios, layers[:-1], strict=True)
            ),
        }
    previous = len(groups) < 4 or into("cc_transforms.2.0") == groups[0] + groups[2]
    return ModelConfig(
        stem_kernel=shapes["g_a.0.weight"][2],
        stem_stride=16 // 2 ** (len(stages) - 1),
        widths=tuple(out(f"{stage}.0.norm1") for stage in stages),
        depths=tuple(len(numbers(f"{stage}.")) for stage in stages),
        heads=tuple(out(f"{stage}.0.token_mixer.fc1") // head_dim for stage in stages),
        blocks=("cluster",) * len(stages),
        synthesis_width=out("g_s.0.blocks.0.norm1"),
        head_dim=head_dim,
        mlp_ratio=_ratio(PAPER.mlp_ratio, [(into(name), out(name)) for name in mlps]),
        offset_ratio=_ratio(PAPER.offset_ratio, [(head_dim, out(f"{mixer}.centers_offset.fc1"))]),
        gate_reduction=next(r for r in reductions if all(width // r == squeezed for width, squeezed in gates)),
        hyper_layers=tuple((width, s) for width, (_, s) in zip(hyper, PAPER.hyper_layers, strict=True)),
        hyper_decoder_layers=tuple(
            (0 if k == decoder[-1] else width, stride)
            for k in decoder
            for width, stride in [_upsampling(shapes, f"h_mean_s.{k}")]
        ),
        hyper_channels=_upsampling(shapes, f"h_mean_s.{decoder[-1]}")[0],
        feature_channels=_upsampling(shapes, f"h_latent_s.{decoder[-1]}")[0] if numbers("h_latent_s.") else 0,
        groups=groups,
        channel_layers=tuple(
            (0 if i == channel[-1] else out(name), shapes[f"{name}.weight"][2])
            for i in channel
            for name in [f"cc_transforms.0.{i}"]
        ),
        channel_support="first_and_previous" if previous else "all",
        spatial_ratios=tuple(
            _ratio(ratio, [(groups[k], out(f"context_prediction.{k}.{i}")) for k in slices])
            for ratio, i in zip(usual, spatial, strict=True)
        ),
        parameter_widths=tuple(out(f"ParamAggregation.0.{i}") for i in hidden[:-1]),
        pqf="joint" if filters else "none",
        lmbdas=(lmbda,),
        **changed,
    )


def _upsampling(shapes, name: str) -> tuple[int, int]:
    """(channels, factor) of a layer of a hyper decoder; one that doubles the resolution is a Sequential of its own."""
    if f"{name}.0.weight" in shapes:
        return shapes[f"{name}.0.weight"][0] // 4, 2
    return shapes[f"{name}.weight"][0], 1


def _ratio(usual: float, pairs: list[tuple[int, int]]) -> float:
    """A ratio of which int(width * ratio) is the other of each pair, the usual one where that is so."""
    if all(int(width * usual) == other for width, other in pairs):
        return usual
    width, other = max(pairs)
    return (other + 0.5) / width
