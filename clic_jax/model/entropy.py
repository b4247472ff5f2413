"""Two probability models: a learned factorized prior of z; for y a density, Gaussian or heavier-tailed, over unit bins.

Everything here is float32 whatever the compute type of the transforms, and counts bits, not nats or likelihoods.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from clic_jax.model.initial import uniform
from clic_jax.model.quantize import lower_bound, round_ste
from clic_jax.scales import LIKELIHOOD_MIN, SCALE_MIN


def bits(likelihood):
    """-log2 of a probability, floored at LIKELIHOOD_MIN (with the gradient rule of `lower_bound`)."""
    return -jnp.log2(lower_bound(likelihood, LIKELIHOOD_MIN))


def gaussian_likelihood(y, mean, scale):
    """P(y - 0.5 < Y < y + 0.5) for Y ~ N(mean, scale), elementwise; y, mean, scale in quantisation steps, scale > 0.

    Source: Balle et al. 2018, Eq. 6; computed from the tail on the side of the mean, so that it keeps its precision.
    """
    distance = jnp.abs(y - mean)
    upper = lax.erfc((distance - 0.5) / scale * 2**-0.5)
    lower = lax.erfc((distance + 0.5) / scale * 2**-0.5)
    return 0.5 * (upper - lower)


def laplace_likelihood(y, mean, scale):
    """P(y - 0.5 < Y < y + 0.5) for a Laplace Y of that mean and standard deviation, elementwise; scale > 0."""
    distance, rate = jnp.abs(y - mean), 2**0.5 / scale
    near, far = jnp.exp(-jnp.abs(distance - 0.5) * rate), jnp.exp(-(distance + 0.5) * rate)
    return jnp.where(distance >= 0.5, 0.5 * (near - far), 1 - 0.5 * (near + far))


def y_likelihood(density: str, y, mean, scale):
    """P(y - 0.5 < Y < y + 0.5), elementwise.

    density: "gaussian", the paper's, or "mixed": half Gaussian, half Laplace of the same mean and standard deviation
        (deviates: trained models leave more outliers, and more symbols at the mean, than their Gaussians predict).
    """
    gaussian = gaussian_likelihood(y, mean, scale)
    return gaussian if density == "gaussian" else 0.5 * (gaussian + laplace_likelihood(y, mean, scale))


def y_bits(density: str, y, mean, scale):
    """Bits of y in its unit bin, elementwise. Scales below SCALE_MIN count as SCALE_MIN."""
    return bits(y_likelihood(density, y, mean, lower_bound(scale, SCALE_MIN)))


def noisy_bits(density: str, noisy, mean, scale, q=None):
    """Bits of y with uniform noise, elementwise: the differentiable stand-in for those of the rounded y.

    q: whole steps that a file would hold. With them the value is their bits, and the scale learns from them, because
        rounding to what is cheaper leaves more zeros than noise does; y and the mean still learn from the noise.
    """
    if q is None:
        return y_bits(density, noisy, mean, scale)
    real = y_bits(density, lax.stop_gradient(q), 0.0, scale)
    proxy = y_bits(density, noisy, mean, lax.stop_gradient(scale))
    return real + proxy - lax.stop_gradient(proxy)


def nearest_or_cheaper(density: str, residual, scale, energy: float):
    """Whole steps for the residual y - mean, elementwise: the nearest, or the next one towards 0 where that pays.

    energy: bits that one squared step of error is worth; 0 for the nearest throughout, as the paper has it.
    Source: rate-distortion optimised quantisation, as in video encoders (deviates from the paper).
    """
    q = jnp.round(residual)
    if not energy:
        return q
    closer = q - jnp.sign(q)
    saved = y_bits(density, q, 0.0, scale) - y_bits(density, closer, 0.0, scale)
    lost = energy * ((residual - closer) ** 2 - (residual - q) ** 2)
    return jnp.where(saved > lost, closer, q)


class FactorizedPrior(nn.Module):
    """A learned cumulative for each channel of z, independent of place (Balle et al. 2018, appendix 6.1).

    The cumulative's logit is a monotone network 1-3-3-3-3-1 a channel. `median` [N] is the offset of the rounding grid;
    it is read from the authors' weights and stays 0 in ours (deviates: no auxiliary loss; the bias of h_a's last layer
    moves z).
    """

    filters: tuple[int, ...] = (3, 3, 3, 3)
    init_scale: float = 10.0

    @nn.compact
    def __call__(self, z):
        """z [B, h, w, N] -> (z_hat rounded straight-through, logit function v [..., N] -> logits [..., N])."""
        n = z.shape[-1]
        sizes = (1, *self.filters, 1)
        spread = self.init_scale ** (1 / (len(sizes) - 1))
        layers = []
        for i, (fan_in, fan_out) in enumerate(zip(sizes[:-1], sizes[1:])):
            start = jnp.log(jnp.expm1(1 / spread / fan_out))
            matrix = self.param(f"matrix{i}", nn.initializers.constant(start), (n, fan_out, fan_in))
            bias = self.param(f"bias{i}", uniform(0.5), (n, fan_out))
            factor = self.param(f"factor{i}", nn.initializers.zeros, (n, fan_out)) if i + 2 < len(sizes) else None
            layers.append((matrix, bias, factor))
        median = self.param("median", nn.initializers.zeros, (n,))

        def logits(v):
            t = v[..., None]
            for matrix, bias, factor in layers:
                exact = lax.Precision.HIGHEST
                t = jnp.einsum("...ni,noi->...no", t, jax.nn.softplus(matrix), precision=exact) + bias
                if factor is not None:
                    t = t + jnp.tanh(factor) * jnp.tanh(t)
            return t[..., 0]

        return round_ste(z - median) + median, logits


def logit_likelihood(logits, v):
    """P(v - 0.5 < Z < v + 0.5) from a cumulative's logit function, on the side of the smaller tail, for precision."""
    lower, upper = logits(v - 0.5), logits(v + 0.5)
    sign = -lax.stop_gradient(jnp.sign(lower + upper))
    return jnp.abs(jax.nn.sigmoid(sign * upper) - jax.nn.sigmoid(sign * lower))
