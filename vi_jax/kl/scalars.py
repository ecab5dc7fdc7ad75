"""Closed forms of KL(q || p) by kind of distribution; elementwise, nats, of the broadcast batch
shape.

Gamma, beta and Dirichlet (and whatever is a bijection of them) are sums of terms that are small
where q is near p, not differences of log Gamma functions, which in float32 have lost every digit of
the answer at a concentration of 1e6.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax import linalg
from vi_jax.arguments import describe
from vi_jax.distributions import LogDirichlet, LogGamma
from vi_jax.distributions.special import (
    base_divergence,
    bessel_ratio_complement,
    excess,
    gammaln_divergence,
    gammaln_gap,
    log_i0e,
    log_ratio,
)

Array = jax.Array


def kl_standard_normal(loc: Array, log_scale: Array) -> Array:
    """KL(N(mu, sigma^2) || N(0, 1)) of each dimension, the term of Kingma & Welling (2013),
    appendix B and eq. 10.

        KL_j = -1/2 (1 + log sigma_j^2 - mu_j^2 - sigma_j^2);      KL(q || p) = sum_j KL_j

    Args:
      loc: mu, any shape [..., D].
      log_scale: log sigma (not log sigma^2), the same shape.

    Returns:
      Nats, [..., D]: one per dimension; sum over the last axis at the edge. Near sigma = 1 no
      digits cancel: sigma^2 - 1 - log sigma^2 is taken as expm1(2 log sigma) - 2 log sigma.
    """
    for name, value in (("loc", loc), ("log_scale", log_scale)):
        if not hasattr(value, "dtype") and not isinstance(value, int | float):
            raise TypeError(
                f"kl_standard_normal expects {name} to be an array; got {describe(value)}."
            )
    try:
        jnp.broadcast_shapes(jnp.shape(loc), jnp.shape(log_scale))
    except ValueError:
        raise ValueError(
            f"kl_standard_normal expects loc and log_scale of one shape; got {jnp.shape(loc)} and "
            f"{jnp.shape(log_scale)}."
        ) from None
    return 0.5 * (loc**2 + jnp.expm1(2.0 * log_scale) - 2.0 * log_scale)


def _normal(q: Any, p: Any) -> Array:
    """log(sp / sq) + (sq^2 + (mq - mp)^2) / (2 sp^2) - 1/2, without cancellation near equality."""
    return kl_standard_normal((q.loc - p.loc) / p.scale, jnp.log(q.scale) - jnp.log(p.scale))


def _half_normal(q: Any, p: Any) -> Array:
    """log(sp / sq) + sq^2 / (2 sp^2) - 1/2."""
    log_scale = jnp.log(q.scale) - jnp.log(p.scale)
    return kl_standard_normal(jnp.zeros_like(log_scale), log_scale)


def _laplace(q: Any, p: Any) -> Array:
    """log(bp / bq) + |d| / bp + (bq / bp) e^(-|d| / bq) - 1 with d = mq - mp."""
    gap = jnp.abs(q.loc - p.loc)
    ratio = q.scale / p.scale
    return -jnp.log(ratio) + gap / p.scale + ratio * jnp.exp(-gap / q.scale) - 1.0


def _exponential(q: Any, p: Any) -> Array:
    """log(lq / lp) + lp / lq - 1 for rates l."""
    return excess(*_arrays(p.rate, q.rate))


def _poisson(q: Any, p: Any) -> Array:
    """lq log(lq / lp) - lq + lp for rates l; lp where lq is 0."""
    x, y = _arrays(q.rate, p.rate)
    some = x > 0
    x = jnp.where(some, x, 1.0)
    return jnp.where(some, base_divergence(x, y), y)


def _gamma(q: Any, p: Any) -> Array:
    """ap (s - 1 - log s) + `gammaln_gap`(ap, aq), with s = (bp / ap) / (bq / aq) the ratio of the
    means.

    a are concentrations, b rates. The gap is all that depends on more than s.
    """
    a, b, c, d = _arrays(q.concentration, q.rate, p.concentration, p.rate)
    log_s = log_ratio(d, b) - log_ratio(c, a)
    return c * (jnp.expm1(log_s) - log_s) + gammaln_gap(c, a)


def _dirichlet_by_concentration(a: Array, c: Array) -> Array:
    """C sum_i n_i log(n_i / m_i) + sum_i `gammaln_gap`(ci, ai) - `gammaln_gap`(C, A) over the last
    axis.

    a are q's concentrations and c p's, A and C their sums, m = a / A and n = c / C their means.
    """
    total_a = a.sum(-1, keepdims=True)
    total_c = c.sum(-1, keepdims=True)
    log_t = log_ratio(c, a) - log_ratio(total_c, total_a)  # log n_i / m_i
    # sum of expm1 terms is 0: each term is >= 0
    means = (c * log_t - total_c * (a / total_a) * jnp.expm1(log_t)).sum(-1)
    gaps = gammaln_gap(jnp.concatenate([c, total_c], -1), jnp.concatenate([a, total_a], -1))
    return means + gaps[..., :-1].sum(-1) - gaps[..., -1]


def _dirichlet(q: Any, p: Any) -> Array:
    return _dirichlet_by_concentration(*_arrays(q.concentration, p.concentration))


def _beta(q: Any, p: Any) -> Array:
    """A Dirichlet of two classes."""
    a, b, c, d = _arrays(q.concentration1, q.concentration0, p.concentration1, p.concentration0)
    return _dirichlet_by_concentration(jnp.stack([a, b], -1), jnp.stack([c, d], -1))


def kumaraswamy_to_power(q: Any, p: Any) -> Array:
    """At a beta of concentration0 = 1, where E_q[log(1 - z)], which has no closed form, is not
    needed.

    (c / a - 1) (gamma + digamma(b) + 1 / b) + log(a b) - log c + 1 / b - 1 (Nalisnick & Smyth 2017,
    eq. 12).
    """
    a = q.concentration1
    b = q.concentration0
    c = p.concentration1
    harmonic = jnp.euler_gamma + jax.scipy.special.digamma(b) + 1.0 / b
    return (c / a - 1.0) * harmonic + jnp.log(a * b) - jnp.log(c) + 1.0 / b - 1.0


def _weibull_to_gamma(q: Any, p: Any) -> Array:
    """log k + log Gamma(a) + a (gamma / k - log(l b)) + l b Gamma(1 / k + 1) - gamma - 1 (Bauckhage
    2014, eq. 28).

    k and l are the Weibull's shape and scale, a and b the gamma's concentration and rate.
    """
    k = q.concentration
    l = q.scale
    a = p.concentration
    b = p.rate
    gammaln = jax.scipy.special.gammaln
    moments = a * (jnp.euler_gamma / k - jnp.log(l * b)) + l * b * jnp.exp(gammaln(1.0 / k + 1.0))
    return jnp.log(k) + gammaln(a) + moments - jnp.euler_gamma - 1.0


def _von_mises(q: Any, p: Any) -> Array:
    """log I0(kp) / I0(kq) + A (kq - kp cos(mq - mp)), A = I1 / I0 at kq; by e^-k I(k) and 1 - A,
    which stay exact at large k.
    """
    k, l = _arrays(q.concentration, p.concentration)
    complement = bessel_ratio_complement(k)
    turn = 2.0 * jnp.sin(0.5 * (q.loc - p.loc)) ** 2  # 1 - cos
    return log_i0e(l) - log_i0e(k) + (l - k) * complement + l * (1.0 - complement) * turn


def _wishart(q: Any, p: Any) -> Array:
    """tr(Vp^-1 Vq) is the square norm of Lp^-1 Lq, for scales V = L L'."""
    return _wishart_by_ratio(q, p, below=p.scale_tril, above=q.scale_tril)


def _inverse_wishart(q: Any, p: Any) -> Array:
    """The Wishart's, of the inverse matrices: their scales are the inverse scales."""
    return _wishart_by_ratio(q, p, below=q.scale_tril, above=p.scale_tril)


def _wishart_by_ratio(q: Any, p: Any, *, below: Array, above: Array) -> Array:
    """1/2 nq (|M|^2 - D) - np log det M + sum_i `gammaln_divergence`((np - i) / 2, (nq - i) / 2), i
    = 0..D - 1.

    M = below^-1 above is D x D, and n are the degrees of freedom.
    """
    size = q.event_shape[-1]
    batch = jnp.broadcast_shapes(q.batch_shape, p.batch_shape)
    below, above = (jnp.broadcast_to(tril, (*batch, size, size)) for tril in (below, above))
    n, m = (jnp.broadcast_to(d.concentration, batch) for d in (q, p))
    ratio = linalg.solve_triangular(below, above, lower=True)
    log_det = jnp.log(jnp.diagonal(ratio, axis1=-2, axis2=-1)).sum(-1)
    halves = 0.5 * jnp.arange(size).reshape(*[1] * len(batch), size)
    a = 0.5 * n[..., None] - halves
    c = 0.5 * m[..., None] - halves
    gaps = gammaln_divergence(c, a).sum(-1)
    return 0.5 * n * ((ratio**2).sum((-2, -1)) - size) - m * log_det + gaps


def _arrays(*numbers: Any) -> list[Array]:
    """The numbers as floating arrays of one shape."""
    return list(jnp.broadcast_arrays(*(jnp.asarray(x, jnp.result_type(float, x)) for x in numbers)))


RULES: list[tuple[Any, Any, Callable[[Any, Any], Array]]] = [
    (dist.Normal, dist.Normal, _normal),
    (dist.LogNormal, dist.LogNormal, _normal),  # KL is invariant under the common bijection exp
    (dist.HalfNormal, dist.HalfNormal, _half_normal),
    (dist.Laplace, dist.Laplace, _laplace),
    (dist.Exponential, dist.Exponential, _exponential),
    (dist.Poisson, dist.Poisson, _poisson),
    (dist.Gamma, dist.Gamma, _gamma),
    (LogGamma, LogGamma, _gamma),  # invariance under log
    (dist.InverseGamma, dist.InverseGamma, _gamma),  # and under 1 / x
    (dist.Weibull, dist.Gamma, _weibull_to_gamma),
    (dist.Beta, dist.Beta, _beta),
    (dist.Dirichlet, dist.Dirichlet, _dirichlet),
    (LogDirichlet, LogDirichlet, _dirichlet),
    (dist.VonMises, dist.VonMises, _von_mises),
    (dist.Wishart, dist.Wishart, _wishart),
    (dist.WishartCholesky, dist.WishartCholesky, _wishart),
    (dist.InverseWishart, dist.InverseWishart, _inverse_wishart),
    (dist.InverseWishartCholesky, dist.InverseWishartCholesky, _inverse_wishart),
]
