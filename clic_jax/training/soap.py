"""SOAP for optax: Adam in the slowly turning basis of Shampoo's preconditioner (Vyas et al. 2024, arXiv 2409.11321).

Zhang et al. 2026 (arXiv 2601.20769), by CLIC's first author, report that learned codecs train in far fewer steps with
it. No maintained optax version exists, hence this one. Convolution kernels [k, k, in, out] are k * k matrices [in, out]
that share the two bases (deviates: SOAP joins k * k * in into one side), which keeps the matrices small and their
upkeep cheap on a CPU. Sides of one length are stacked, so that a step has one factorisation for each length, not two
for each layer.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class SoapState(NamedTuple):
    """Moments of every leaf; covariances and bases of the sides of its matrices, stacked by length."""

    count: jax.Array
    momentum: Any  # like params, in the eigenbasis
    second: Any  # like params, in the eigenbasis
    covariances: dict[str, jax.Array]  # side length n -> [K, n, n], the K sides of that length in the order of leaves
    bases: dict[str, jax.Array]  # the same shapes, orthogonal


def scale_by_soap(
    b1: float = 0.95,
    b2: float = 0.95,
    *,
    every: int = 10,
    observe: int = 2,
    longest: int = 600,
    eps: float = 1e-8,
):
    """The direction of SOAP, to be scaled by a learning rate.

    Args:
      b1, b2: decay of the momentum; of second moments and covariances.
      every: steps between refreshes of the bases (one step of orthogonal iteration each).
      observe: steps between updates of the covariances, a divisor of `every`; more than 1 saves a third of the upkeep.
      longest: sides above this keep the identity for a basis.
      eps: added to the root of the second moment.
    The momentum lives in the eigenbasis and is carried over when that turns (deviates: SOAP rotates it at each step).
    """

    def init(params):
        counts = _sides(jax.tree.leaves(params), longest)[1]
        zeros = jax.tree.map(jnp.zeros_like, params)
        return SoapState(
            jnp.int32(0),
            zeros,
            jax.tree.map(jnp.copy, zeros),
            {n: jnp.zeros((k, int(n), int(n))) for n, k in counts.items()},
            {n: jnp.tile(jnp.eye(int(n)), (k, 1, 1)) for n, k in counts.items()},
        )

    def update(grads, state, params=None):
        leaves, tree = jax.tree.flatten(grads)
        sides = _sides(leaves, longest)[0]
        momenta, seconds = tree.flatten_up_to(state.momentum), tree.flatten_up_to(state.second)
        count = state.count + 1

        def watch(covariances):
            return {n: b2 * c + (1 - b2) * _products(leaves, sides, n) for n, c in covariances.items()}

        def turn(covariances, bases, momenta, seconds):
            turned = {n: _iterate(covariances[n], bases[n]) for n in bases}
            new, orders = ({n: pair[i] for n, pair in turned.items()} for i in (0, 1))
            plain = [_rotate(m, _of(bases, s), back=True) for m, s in zip(momenta, sides)]
            momenta = [_rotate(m, _of(new, s)) for m, s in zip(plain, sides)]
            return new, momenta, [_reorder(v, _of(orders, s)) for v, s in zip(seconds, sides)]

        def stay(covariances, *rest):
            return rest

        first = count == 1
        covariances = jax.lax.cond(first | (count % observe == 0), watch, lambda c: c, state.covariances)
        bases, momenta, seconds = jax.lax.cond(
            first | (count % every == 0), turn, stay, covariances, state.bases, momenta, seconds
        )
        leaves = [_rotate(g, _of(bases, s)) for g, s in zip(leaves, sides)]
        momenta = [b1 * m + (1 - b1) * g for m, g in zip(momenta, leaves)]
        seconds = [b2 * v + (1 - b2) * jnp.square(g) for v, g in zip(seconds, leaves)]
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        scaled = [m / (jnp.sqrt(v) + eps) * correction for m, v in zip(momenta, seconds)]
        updates = [_rotate(u, _of(bases, s), back=True) for u, s in zip(scaled, sides)]
        return tree.unflatten(updates), SoapState(
            count, tree.unflatten(momenta), tree.unflatten(seconds), covariances, bases
        )

    return optax.GradientTransformation(init, update)


def soap(learning_rate, **kwargs) -> optax.GradientTransformation:
    """SOAP with a learning rate or a schedule of it; see `scale_by_soap`."""
    return optax.chain(scale_by_soap(**kwargs), optax.scale_by_learning_rate(learning_rate))


def _sides(leaves, longest):
    """(for each leaf its (left, right) places in the stacks, a place being (n, index) or None; n -> stack height)."""
    heights, places = {}, []
    for leaf in leaves:
        pair = []
        for n in leaf.shape[-2:] if leaf.ndim >= 2 else (0, 0):
            kept = 1 < n <= longest
            pair.append((str(n), heights.get(str(n), 0)) if kept else None)
            if kept:
                heights[str(n)] = heights.get(str(n), 0) + 1
        places.append(tuple(pair))
    return places, heights


def _of(stacks, pair):
    """The entries of a leaf's two sides in the stacks, None for a side without."""
    return [None if place is None else stacks[place[0]][place[1]] for place in pair]


def _products(leaves, sides, n):
    """G G^T or G^T G, summed over leading axes, for every side of length n: [K, n, n]."""
    spelled = ("...in,...jn->ij", "...mi,...mj->ij")
    found = {
        place[1]: jnp.einsum(spelling, g, g)
        for g, pair in zip(leaves, sides)
        for spelling, place in zip(spelled, pair)
        if place is not None and place[0] == n
    }
    return jnp.stack([found[i] for i in range(len(found))])


def _rotate(g, bases, back=False):
    """g [..., m, n] into the eigenbasis (Ql^T g Qr), or back (Ql g Qr^T)."""
    left, right = bases
    if left is not None:
        g = jnp.einsum("mi,...mn->...in" if not back else "im,...mn->...in", left, g)
    if right is not None:
        g = jnp.einsum("...mn,nj->...mj" if not back else "...mn,jn->...mj", g, right)
    return g


def _iterate(covariances, bases):
    """One step of orthogonal iteration of [K, n, n]: (bases, order [K, n] of the old columns by falling strength)."""
    strength = jnp.einsum("kij,kil,klj->kj", bases, covariances, bases)
    order = jnp.argsort(-strength, axis=-1)
    bases = jnp.take_along_axis(bases, order[:, None], axis=-1)
    turned = covariances @ bases + 1e-30 * bases
    # all at once where that is quick; a batched qr can hang on a CPU
    one_by_one = functools.partial(jax.lax.map, jnp.linalg.qr)
    return jax.lax.platform_dependent(turned, cpu=one_by_one, default=jnp.linalg.qr)[0], order


def _reorder(second, orders):
    """Second moments [..., m, n] follow the columns of their bases."""
    for axis, order in zip((-2, -1), orders):
        if order is not None:
            second = jnp.take(second, order, axis=axis)
    return second
