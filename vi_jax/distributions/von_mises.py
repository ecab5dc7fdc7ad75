"""The von Mises distribution with reparameterised samples, in both parameters and at any
concentration.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import i0e

from vi_jax.distributions.special import bessel_ratio_complement

Array = jax.Array
_Carry = tuple[Array, Array, Array, Array]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_TRIES = 200  # a try is accepted with probability 0.66 or more at any concentration


class VonMises(dist.VonMises):
    """Numpyro's von Mises, whose samples have a gradient in the concentration k too (Figurnov et
    al. 2018, eq. 5 and section 4).

        f(x) = e^(k cos(x - m)) / (2 pi I_0(k));      dx/dk = -(dF/dk)(x) / f(x),

    with dF/dk = integral of f(t) (cos t - I_1 / I_0) by Gauss-Legendre quadrature, where the paper
    differentiates a series. Parts from numpyro also in its samples: those of float32 lose their
    resolution from k = 1e4 on (181 values at 1e6, nan at 1e8); here 1 - cos x is drawn, which has
    its digits where cos x has none.

    Args:
      loc: m, an angle in radians.
      concentration: k, positive; about 1 / variance where it is large.
    """

    reparametrized_params = ["loc", "concentration"]  # noqa: RUF012

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Angles in [-pi, pi), [*sample_shape, *batch_shape]."""
        concentration = jnp.broadcast_to(self.concentration, (*sample_shape, *self.batch_shape))
        centred = sample_centred(
            key, jnp.asarray(concentration, jnp.result_type(float, concentration))
        )
        turned = centred + self.loc
        return turned - 2.0 * jnp.pi * jnp.floor((turned + jnp.pi) / (2.0 * jnp.pi))

    @property
    def variance(self) -> Array:
        """The circular variance 1 - I_1(k) / I_0(k)."""
        return jnp.broadcast_to(
            bessel_ratio_complement(jnp.asarray(self.concentration)), self.batch_shape
        )

    def entropy(self) -> Array:
        """log(2 pi I_0(k)) - k I_1(k) / I_0(k), nats."""
        k = jnp.asarray(self.concentration)
        return jnp.broadcast_to(
            jnp.log(2.0 * jnp.pi * i0e(k)) + k * bessel_ratio_complement(k), self.batch_shape
        )


@jax.custom_jvp
def sample_centred(key: Array, concentration: Array) -> Array:
    """One angle around 0 for each concentration, by rejection from a wrapped Cauchy (Best & Fisher
    1979).

    Their s = (1 + sqrt(1 + 4 k^2)) / (2 k) and cos x = (1 + s c) / (s + c), c = cos(pi u), are kept
    as s - 1 and 1 - cos x.
    """
    k = concentration
    over = (1.0 + 1.0 / (jnp.hypot(1.0, 2.0 * k) + 2.0 * k)) / (2.0 * k)  # s - 1

    def propose(carry: _Carry) -> _Carry:
        tries, key, done, versine = carry
        key, key_angle, key_accept = jax.random.split(key, 3)
        half = 0.5 * jnp.pi * jax.random.uniform(key_angle, k.shape, k.dtype)
        proposed = over * 2.0 * jnp.sin(half) ** 2 / (2.0 * jnp.cos(half) ** 2 + over)  # 1 - cos x
        y = k * (over + proposed)
        log_accept = -jax.random.exponential(key_accept, k.shape, k.dtype)
        accepted = log_accept <= jnp.log(y) + 1.0 - y
        return tries + 1, key, done | accepted, jnp.where(done, versine, proposed)

    def unfinished(carry: _Carry) -> Array:
        return (carry[0] < _TRIES) & ~carry[2].all()

    key_sign, key_loop = jax.random.split(key)
    start = (jnp.int32(0), key_loop, jnp.zeros(k.shape, bool), jnp.zeros_like(k))
    versine = jax.lax.while_loop(unfinished, propose, start)[-1]
    return (
        jax.random.rademacher(key_sign, k.shape, k.dtype)
        * 2.0
        * jnp.arcsin(jnp.sqrt(jnp.clip(0.5 * versine, 0.0, 1.0)))
    )


@sample_centred.defjvp
def _sample_centred_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    angle = sample_centred(*primals)
    return angle, slope_in_concentration(angle, primals[1]) * tangents[1]


def slope_in_concentration(angle: Array, concentration: Array) -> Array:
    """dx/dk at a fixed F(x; k), elementwise, for x in [-pi, pi]: odd in x, and about -x / (2 k)
    where k is large.

    For x >= 0 and w(t) = e^(k (cos t - cos x)) it is -int_0^x w(t) (cos t - A) dt = int_x^pi w(t)
    (cos t - A) dt, A = I_1 / I_0. The second is taken past one standard deviation, where w <= 1
    only falls; it is cut where w is e^-40.
    """
    k = concentration[..., None]
    x = jnp.abs(angle)[..., None]
    half_sine = jnp.sin(0.5 * x) ** 2
    inner = 2.0 * k * half_sine < 0.5
    cut = half_sine + 20.0 / k
    end = jnp.where(cut < 1.0, 2.0 * jnp.arcsin(jnp.sqrt(jnp.where(cut < 1.0, cut, 0.5))), jnp.pi)
    low = jnp.where(inner, 0.0, x)
    high = jnp.where(inner, x, end)
    nodes, weights = (
        jnp.asarray(side, x.dtype).reshape(*[1] * angle.ndim, -1) for side in (_NODES, _WEIGHTS)
    )
    t = low + 0.5 * (high - low) * (1.0 + nodes)
    # k (cos t - cos x), without their difference
    log_w = -2.0 * k * jnp.sin(0.5 * (t - x)) * jnp.sin(0.5 * (t + x))
    terms = jnp.exp(log_w) * (bessel_ratio_complement(k) - 2.0 * jnp.sin(0.5 * t) ** 2)
    area = 0.5 * (high - low)[..., 0] * (weights * terms).sum(-1)
    return jnp.sign(angle) * jnp.where(inner[..., 0], -area, area)
