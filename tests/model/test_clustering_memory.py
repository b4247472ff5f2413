"""Clustering makes no array of centres x points x channels, forward or backward."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax import config
from clic_jax.model import clic, clustering
from clic_jax.model.clustering import ClusterMixer, cluster
from clic_jax.training import steps


def test_nothing_of_size_centres_x_points_x_channels():
    """Forward and backward of the whole mixer: the largest array is features and values, [B, N, 2 E D]."""
    b, h, w, c, e, d, centres = 2, 16, 8, 4, 3, 16, 4
    mixer = ClusterMixer(e, d)
    x = jnp.zeros((b, h, w, c))
    params = jax.eval_shape(mixer.init, jax.random.key(0), x)
    jaxpr = jax.make_jaxpr(jax.grad(lambda p, x: jnp.square(mixer.apply(p, x)).sum(), (0, 1)))(params, x)
    largest = max(v.aval.size for eqn in equations(jaxpr.jaxpr) for v in eqn.outvars if hasattr(v.aval, "size"))
    assert b * h * w * 2 * e * d <= largest < b * h * w * e * d * centres


def largest_of_a_step(cfg, batch):
    """Entries of the largest array that one training step computes, optimiser included."""
    params = jax.eval_shape(functools.partial(clic.init_params, cfg.model))
    state = jax.eval_shape(functools.partial(steps.new_state, cfg), params)
    crops = jax.ShapeDtypeStruct((batch, cfg.train.crop, cfg.train.crop, 3), jnp.uint8)
    jaxpr = jax.make_jaxpr(functools.partial(steps.train_step, cfg))(state, crops)
    return max(v.aval.size for eqn in equations(jaxpr.jaxpr) for v in eqn.outvars if hasattr(v.aval, "size"))


def broadcast_cluster(features, values, centers, center_values, alpha, beta, *paper):
    """`cluster` as one would write it first, over [B, E, M, N, D]."""
    sim, best = clustering.assign(features, centers, alpha, beta)
    member = (best == jnp.arange(sim.shape[2])[:, None]).astype(sim.dtype)
    kept = (sim * member)[..., None]
    total = (kept * values.swapaxes(1, 2)[:, :, None]).sum(3) + center_values.swapaxes(1, 2)
    aggregate = total / (1 + member.sum(-1, keepdims=True))
    return (kept * aggregate[:, :, :, None]).sum(2).swapaxes(1, 2)


def test_nothing_of_that_size_in_a_training_step(monkeypatch):
    """The widths of `paper`, whose first stage needs the largest array: features and values, twice [B, N, E, D].

    One over [B, E, M, N, D] would be twice as large, and the broadcast form does make one.
    """
    c = dataclasses.replace(config.PAPER.model, depths=(2, 1, 1, 1), groups=(64, 256))  # quicker to trace
    cfg, batch = dataclasses.replace(config.PAPER, model=c), 2
    needed = batch * (cfg.train.crop // c.stem_stride) ** 2 * 2 * c.heads[0] * c.head_dim
    assert largest_of_a_step(cfg, batch) == needed
    rng = np.random.default_rng(0)
    arrays = [jnp.float32(rng.normal(size=s)) for s in [(2, 30, 3, 5)] * 2 + [(2, 4, 3, 5)] * 2]
    np.testing.assert_allclose(cluster(*arrays, 1.5, 0.2), broadcast_cluster(*arrays, 1.5, 0.2), atol=1e-5)
    monkeypatch.setattr(clustering, "cluster", broadcast_cluster)
    assert largest_of_a_step(cfg, batch) == 2 * needed


def equations(jaxpr):
    """Every equation of a jaxpr and of the jaxprs inside it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(value):
                yield from equations(getattr(value, "jaxpr", value))


def is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")
