"""SOAP: Adam in the slowly turning eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv 2409.11321), as
optax.

Zhang et al. 2026 (arXiv 2601.20769), by CLIC's first author, report that learned codecs train in far fewer steps with
it. No maintained optax version exists, hence this one. Convolution kernels [k, k, in, out] are k * k matrices [in, out]
that share the two bases (deviates: SOAP joins k * k * in into one side), which keeps the matrices small and their
upkeep cheap on a CPU.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class SoapState(NamedTuple):
    """Moments and, for matrices, covariances and bases of both sides; None where a side is too long or a leaf is a
    vector."""

    count: jax.Array
    momentum: Any  # like params, in the eigenbasis
    second: Any  # like params, in the eigenbasis
    covariances: Any  # for each leaf a pair of [m, m] and [n, n] matrices, or None
    bases: Any  # the same shapes, orthogonal


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

    def sides(p):
        return [n if p.ndim >= 2 and 1 < n <= longest else 0 for n in p.shape[-2:]] if p.ndim >= 2 else [0, 0]

    def init(params):
        def square(make):
            return jax.tree.map(lambda p: tuple(make(n) if n else None for n in sides(p)), params)

        zeros = jax.tree.map(jnp.zeros_like, params)
        return SoapState(
            jnp.int32(0),
            zeros,
            jax.tree.map(jnp.copy, zeros),
            square(lambda n: jnp.zeros((n, n))),
            square(lambda n: jnp.eye(n)),
        )

    def update(grads, state, params=None):
        leaves, tree = jax.tree.flatten(grads)
        momenta, seconds, covariances, bases = map(tree.flatten_up_to, state[1:])
        count = state.count + 1

        def watch(covariances):
            return [_covariances(g, c, b2) for g, c in zip(leaves, covariances)]

        def turn(covariances, bases, momenta, seconds):
            turned = [_turn(*each) for each in zip(covariances, bases, momenta, seconds)]
            return tuple(map(list, zip(*turned)))

        def stay(covariances, *rest):
            return rest

        first = count == 1
        covariances = jax.lax.cond(first | (count % observe == 0), watch, lambda c: c, covariances)
        bases, momenta, seconds = jax.lax.cond(
            first | (count % every == 0), turn, stay, covariances, bases, momenta, seconds
        )
        leaves = [_rotate(g, q) for g, q in zip(leaves, bases)]
        momenta = [b1 * m + (1 - b1) * g for m, g in zip(momenta, leaves)]
        seconds = [b2 * s + (1 - b2) * jnp.square(g) for s, g in zip(seconds, leaves)]
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = [
            _rotate(m / (jnp.sqrt(s) + eps), q, back=True) * correction for m, s, q in zip(momenta, seconds, bases)
        ]
        unflatten = tree.unflatten
        return unflatten(updates), SoapState(count, *map(unflatten, (momenta, seconds, covariances, bases)))

    return optax.GradientTransformation(init, update)


def soap(learning_rate, **kwargs) -> optax.GradientTransformation:
    """SOAP with a learning rate or a schedule of it; see `scale_by_soap`."""
    return optax.chain(scale_by_soap(**kwargs), optax.scale_by_learning_rate(learning_rate))


def _covariances(g, old, decay):
    """Running G G^T and G^T G of g [..., m, n], summed over its leading axes."""
    left, right = old
    if left is not None:
        left = decay * left + (1 - decay) * jnp.einsum("...in,...jn->ij", g, g)
    if right is not None:
        right = decay * right + (1 - decay) * jnp.einsum("...mi,...mj->ij", g, g)
    return left, right


def _rotate(g, bases, back=False):
    """g [..., m, n] into the eigenbasis (Ql^T g Qr), or back (Ql g Qr^T)."""
    left, right = bases
    if left is not None:
        g = jnp.einsum("mi,...mn->...in" if not back else "im,...mn->...in", left, g)
    if right is not None:
        g = jnp.einsum("...mn,nj->...mj" if not back else "...mn,jn->...mj", g, right)
    return g


def _turn(covariances, bases, momentum, second):
    """One step of orthogonal iteration of each basis: (bases, momentum in the new ones, second moment reordered)."""
    momentum, turned = _rotate(momentum, bases, back=True), []
    for axis, covariance, q in zip((-2, -1), covariances, bases):
        if q is not None:
            strength = jnp.einsum("ij,ik,kj->j", q, covariance, q)
            order = jnp.argsort(-strength)
            second = jnp.take(second, order, axis=axis)
            q = jnp.linalg.qr(covariance @ q[:, order] + 1e-30 * q[:, order])[0]
        turned.append(q)
    return tuple(turned), _rotate(momentum, turned), second
