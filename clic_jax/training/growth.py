"""Carries trained parameters into a larger model, which computes the same at first, or into a smaller, to train on.

New hidden units are drawn as at the start of training but nobody listens to them yet, new residual blocks end in zeros,
and gains for further operating points continue the old ones. (Net2Net, Chen et al. 2016; not in the paper.) A smaller
model loses what growing adds, the last blocks and hidden units: it computes another thing, and training mends it.
"""

import dataclasses

import jax
import numpy as np

from clic_jax.config import ConfigError, ModelConfig
from clic_jax.model.clic import init_params

FREE = ("lmbdas", "density", "rdoq", "assignment")  # change no shape but that of the gains; training mends the rest
GROWING = ("depths", "synthesis_depths", "parameter_widths", "spatial_ratios")  # each entry may be larger
HIDDEN = ("hyper_layers", "hyper_decoder_layers", "channel_layers")  # (width, ...) each; all but the last may be wider
LAST_OF_BRANCH = ("conv2", "pointwise")  # the layers that end the residual branches of the blocks of g_a and g_s


def check_grows(old: ModelConfig, new: ModelConfig) -> None:
    """Raises: ConfigError naming the first setting by which `new` is not `old` with more of the same."""
    old, new = _spelt_out(old), _spelt_out(new)
    for field in dataclasses.fields(ModelConfig):
        a, b = getattr(old, field.name), getattr(new, field.name)
        if field.name in GROWING:
            fits = len(a) == len(b) and all(x <= y for x, y in zip(a, b))
        elif field.name == "groups":
            fits = a == b[: len(a)]
        elif field.name == "detail_channels":
            fits = a <= b
        elif field.name in HIDDEN:
            fits = len(a) == len(b) and a[-1] == b[-1]
            fits = fits and all(x[0] <= y[0] and x[1:] == y[1:] for x, y in zip(a, b))
        else:
            fits = field.name in FREE or a == b
        if not fits:
            raise ConfigError(f"model.{field.name} = {a!r} cannot become {b!r} in training that goes on: keep it")
    if old.variable_rate != new.variable_rate:
        raise ConfigError(
            f"training cannot go on from model.lmbdas = {old.lmbdas} to {new.lmbdas}: one rate or several"
        )


def grown(old: ModelConfig, params, new: ModelConfig, seed: int = 0):
    """`params` of an `old` model as parameters of a `new` one, which has the same outputs at the old lmbdas.

    Args:
      params: parameter tree of `CLIC(old)`.
      new: the same model with deeper stages, wider hidden layers, other lmbdas, or none of these.
      seed: of what is drawn.
    lmbdas wholly above or below the old ones are of another distortion (MS-SSIM for squared error): the gains then stay
    where they were, from the lowest rate to the highest.
    Returns: a tree of NumPy arrays.
    Raises: ConfigError where `new` is not such a model.
    """
    check_grows(old, new)
    if old.lmbdas != new.lmbdas and old.variable_rate:
        at, anchors = np.log(new.lmbdas), np.log(old.lmbdas)
        if at[0] > anchors[-1] or at[-1] < anchors[0]:  # those of another distortion: by their places in the range
            at, anchors = (np.linspace(0, 1, len(lmbdas)) for lmbdas in (at, anchors))
        gains = {name: _at(at, anchors, params[name]) for name in ("log_gain", "log_inverse_gain") if name in params}
        params = params | gains
    if dataclasses.replace(old, **{name: getattr(new, name) for name in FREE}) == new:
        return jax.tree.map(np.asarray, params)
    known = {_names(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def place(path, drawn):
        names = _names(path)
        if names in known:
            return _placed(np.asarray(known[names]), np.array(drawn), _moved(names, old, new))
        silent = names[-2] in LAST_OF_BRANCH or names[:2] == ("g_s", "detail")
        return np.zeros_like(drawn) if silent else np.asarray(drawn)

    return jax.tree_util.tree_map_with_path(place, init_params(new, seed))


def shrunk(old: ModelConfig, params, new: ModelConfig):
    """`params` of an `old` model without the blocks and hidden units that `new` has not: the last of each.

    Args: params: parameter tree of `CLIC(old)`.
    Returns: (config, parameters): `old` with the smaller of both models' depths and hidden widths and all else as it
    was, which `grown` then takes to `new` or refuses; a tree of NumPy arrays.
    """
    left = {name: _smaller(name, _spelt_out(old), _spelt_out(new)) for name in GROWING + HIDDEN}
    if not old.synthesis_depths and left["synthesis_depths"] == left["depths"]:
        del left["synthesis_depths"]  # unsaid as before
    config = dataclasses.replace(old, **left)
    known = {_names(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def taken(path, left):
        names = _names(path)
        leaf = known[names]
        if leaf.shape == left.shape:
            return leaf
        if leaf.ndim < 2:
            return leaf[: left.shape[0]]
        first, shift = _moved(names, config, old)
        rows = np.arange(left.shape[-2])
        rows[first:] += shift
        return leaf[..., rows, : left.shape[-1]]

    return config, jax.tree_util.tree_map_with_path(taken, jax.eval_shape(lambda: init_params(config)))


def _spelt_out(model: ModelConfig) -> ModelConfig:
    """The same model, whose g_s has its own depths also where they are those of g_a."""
    return dataclasses.replace(model, synthesis_depths=model.depths_of_g_s)


def _smaller(name: str, old: ModelConfig, new: ModelConfig) -> tuple:
    """The smaller entries of both models in a setting that may grow; the old ones where the two do not match."""
    a, b = getattr(old, name), getattr(new, name)
    if len(a) != len(b):
        return a
    if name in GROWING:
        return tuple(map(min, a, b))
    # a width of 0 stands for one that the rest of the model decides
    return (*((min(x[0], y[0]) or x[0], *x[1:]) for x, y in zip(a[:-1], b[:-1])), a[-1])


def _names(path):
    return tuple(part.key for part in path)


def _placed(old, new, moved):
    """`new` with `old` in it: kernels [..., in, out], the first `moved[0]` inputs first and the rest at the end.

    What is new among the inputs does not reach the old outputs.
    """
    if old.shape == new.shape:
        return old
    if old.ndim < 2:
        new[..., : old.shape[-1]] = old
        return new
    inputs, outputs = old.shape[-2:]
    first, shift = moved
    rows = np.arange(inputs)
    rows[first:] += shift
    new[..., :outputs] = 0
    new[..., rows, :outputs] = old
    return new


def _moved(names, old, new):
    """(first, shift): the inputs of this kernel from `first` on lie `shift` further on in the new one."""
    if names[:1] == ("context",) and names[1].startswith("parameters_") and names[2] == "conv0":
        group = old.groups[int(names[1].removeprefix("parameters_"))]  # it sees the neighbours first
        before, after = (int(c.spatial_ratios[-1] * group) for c in (old, new))
        return before, after - before
    if names[:2] == ("g_s", "enter"):  # it sees y_hat first, then the latent feature
        return old.latent_channels, new.latent_channels - old.latent_channels
    return 0, 0


def _at(places, anchors, table):
    """Rows of `table` [anchors, C] at other places on the anchors' scale: linear, also beyond the ends."""
    table, rows = np.asarray(table), []
    for place in places:
        i = int(np.clip(np.searchsorted(anchors, place) - 1, 0, len(anchors) - 2))
        share = (place - anchors[i]) / (anchors[i + 1] - anchors[i])
        rows.append((1 - share) * table[i] + share * table[i + 1])
    return np.float32(rows)
