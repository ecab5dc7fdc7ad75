"""Divergences other than Kullback-Leibler, where they are closed: Rényi's, the alpha divergence,
and Wasserstein-2 of Gaussians.

Both of the first are by the member r of an exponential family that is proportional to q^a p^(1 - a)
(van Erven & Harremoës 2014, theorem 30):

    D_a(q || p) = 1 / (a - 1) log integral q^a p^(1 - a) = a / (1 - a) KL(r || q) + KL(r || p),

so that they inherit the digits of the KL. Where r does not exist the integral diverges, and the
divergence is inf.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.distribution import ExpandedDistribution

from vi_jax import linalg
from vi_jax.distributions import LogDirichlet, LogGamma, OneHotCategorical, PrecisionNormal
from vi_jax.kl import kl_divergence
from vi_jax.kl.closed import describe, strip
from vi_jax.kl.gaussians import is_gaussian_vector, precision_matrix, square_root

Array = jax.Array


def renyi_divergence(q: Any, p: Any, *, alpha: float) -> Array:
    """D_alpha(q || p) of order alpha (Rényi 1961), never negative and never falling in alpha; KL(q
    || p) at alpha = 1.

    Args:
      q, p: of one family among normal, log-normal, Gaussian over a vector (in any two forms),
        exponential, Poisson, gamma, log-gamma, inverse gamma, beta, Dirichlet, log-Dirichlet,
        Bernoulli, categorical, one-hot; or independent axes of these.
      alpha: a number, static, above 0. Beside 1 but not at it, alpha - 1 of 1e-3 leaves about three
        digits fewer.

    Returns:
      Nats, of the broadcast batch shape; inf where the integral of q^alpha p^(1 - alpha) diverges,
      which it can for alpha > 1: for normals where alpha sp^2 + (1 - alpha) sq^2 <= 0.
    """
    if not 0.0 < alpha < math.inf:
        raise ValueError(
            f"renyi_divergence expects an alpha above 0 and below infinity; got {alpha}."
        )
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"renyi_divergence expects q and p over one space; got event shapes {q.event_shape} "
            f"and {p.event_shape}."
        )
    if alpha == 1.0:
        return kl_divergence(q, p)
    q = strip(q)
    p = strip(p)
    if _is_product(q, p):
        return _through(lambda q, p: renyi_divergence(q, p, alpha=alpha), q, p)
    for kinds, rule in _RULES:
        if isinstance(q, kinds) and isinstance(p, kinds):
            return rule(q, p, alpha)
    if is_gaussian_vector(q) and is_gaussian_vector(p):
        return _between(_gaussian_vectors, q, p, alpha)
    raise NotImplementedError(
        f"no closed Rényi divergence is known for {describe(q)} and {describe(p)}; "
        "estimate it from samples of q: 1 / (alpha - 1) log mean exp((alpha - 1) (log q - log p))."
    )


def alpha_divergence(q: Any, p: Any, *, alpha: float) -> Array:
    """(1 - integral q^alpha p^(1 - alpha)) / (alpha (1 - alpha)), Amari's in the form of Minka
    (2005).

    KL(q || p) at alpha = 1, KL(p || q) at 0, and at 1/2 four times the squared Hellinger distance 1
    - integral sqrt(q p). Arguments as `renyi_divergence`, alpha 0 or more; a pure number, at most 1
    / (alpha (1 - alpha)) for alpha < 1.
    """
    if alpha == 0.0:
        return kl_divergence(p, q)
    if alpha == 1.0:
        return kl_divergence(q, p)
    return jnp.expm1((alpha - 1.0) * renyi_divergence(q, p, alpha=alpha)) / (alpha * (alpha - 1.0))


def wasserstein2_squared(q: Any, p: Any) -> Array:
    """The squared Wasserstein-2 distance of two Gaussians (Gelbrich 1990): |mq - mp|^2 + tr(Sq + Sp
    - 2 (Sq^1/2 Sp Sq^1/2)^1/2).

    The last trace is the sum of the singular values of Fq' Fp for any square roots S = F F':
    triangular, or of low rank. Between independent normals the whole is |sq - sp|^2 by coordinate,
    exactly.

    Args:
      q, p: normals, scalar or over a vector, in any two forms.

    Returns:
      In squared units of z, of the broadcast batch shape; smooth at 0, where the distance itself is
      not.
    """
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"wasserstein2_squared expects one space; got event shapes {q.event_shape} and "
            f"{p.event_shape}."
        )
    q = strip(q)
    p = strip(p)
    if _is_product(q, p):
        return _through(wasserstein2_squared, q, p)
    if isinstance(q, dist.Normal) and isinstance(p, dist.Normal):
        return (q.loc - p.loc) ** 2 + (q.scale - p.scale) ** 2
    if is_gaussian_vector(q) and is_gaussian_vector(p):
        root_q = square_root(q)
        root_p = square_root(p)
        traces = (root_q**2).sum((-2, -1)) + (root_p**2).sum((-2, -1))
        singular = linalg.svd(jnp.swapaxes(root_q, -1, -2) @ root_p, compute_uv=False)
        return ((q.mean - p.mean) ** 2).sum(-1) + traces - 2.0 * singular.sum(-1)
    raise NotImplementedError(
        f"the Wasserstein-2 distance is closed between Gaussians only; got {describe(q)} and "
        f"{describe(p)}."
    )


def wasserstein2(q: Any, p: Any) -> Array:
    """The Wasserstein-2 distance of two Gaussians, in units of z; its gradient is taken as 0 where
    it is 0. See the square.
    """
    squared = wasserstein2_squared(q, p)
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def _is_product(q: Any, p: Any) -> bool:
    """Whether the divergence is that of their parts, by `_through`."""
    both = isinstance(q, dist.Independent) and isinstance(p, dist.Independent)
    return both or isinstance(q, ExpandedDistribution) or isinstance(p, ExpandedDistribution)


def _through(divergence: Callable[[Any, Any], Array], q: Any, p: Any) -> Array:
    """A divergence that adds over independent coordinates: summed over the event axes that both
    reinterpret, or expanded.
    """
    if isinstance(q, ExpandedDistribution) or isinstance(p, ExpandedDistribution):
        bare = [d.base_dist if isinstance(d, ExpandedDistribution) else d for d in (q, p)]
        return jnp.broadcast_to(
            divergence(*bare), jnp.broadcast_shapes(q.batch_shape, p.batch_shape)
        )
    shared = min(q.reinterpreted_batch_ndims, p.reinterpreted_batch_ndims)
    rest = [d.reinterpreted_batch_ndims - shared for d in (q, p)]
    inner = [
        d.base_dist.to_event(n) if n else d.base_dist for d, n in zip((q, p), rest, strict=True)
    ]
    shape = jnp.broadcast_shapes(inner[0].batch_shape, inner[1].batch_shape)
    return jnp.broadcast_to(divergence(*inner), shape).sum(tuple(range(-shared, 0)))


def _between(
    tilted: Callable[[Any, Any, float], tuple[Any, Array]], q: Any, p: Any, alpha: float
) -> Array:
    """a / (1 - a) KL(r || q) + KL(r || p) where r exists, else inf."""
    r, exists = tilted(q, p, alpha)
    value = alpha / (1.0 - alpha) * kl_divergence(r, q) + kl_divergence(r, p)
    return jnp.where(exists, value, jnp.inf)


def _mix(alpha: float, x: Array, y: Array) -> tuple[Array, Array]:
    """alpha x + (1 - alpha) y and whether it is positive; 1 in its place where it is not."""
    mixed = alpha * x + (1.0 - alpha) * y
    return jnp.where(mixed > 0, mixed, 1.0), mixed > 0


def _normals(q: Any, p: Any, alpha: float) -> tuple[Any, Array]:
    """Precisions mix, and so do precisions times means."""
    precision, exists = _mix(alpha, q.scale**-2.0, p.scale**-2.0)
    shift = alpha * (q.loc - p.loc) * q.scale**-2.0 / precision  # from mp
    kind = dist.LogNormal if isinstance(q, dist.LogNormal) else dist.Normal
    return kind(jnp.where(exists, p.loc + shift, 0.0), precision**-0.5), exists


def _gaussian_vectors(q: Any, p: Any, alpha: float) -> tuple[Any, Array]:
    """The same with matrices; r exists where the mixed precision has a Cholesky factor."""
    batch = jnp.broadcast_shapes(q.batch_shape, p.batch_shape)
    precision_q, precision_p = (
        jnp.broadcast_to(precision_matrix(d), (*batch, *2 * d.event_shape)) for d in (q, p)
    )
    mixed = alpha * precision_q + (1.0 - alpha) * precision_p
    exists = jnp.isfinite(linalg.cholesky(mixed)).all((-2, -1))
    tril = linalg.cholesky(
        jnp.where(exists[..., None, None], mixed, jnp.eye(mixed.shape[-1], dtype=mixed.dtype))
    )
    pull = alpha * precision_q @ (q.mean - p.mean)[..., None]
    pull = jnp.broadcast_to(pull, (*batch, *pull.shape[-2:]))
    shift = linalg.cho_solve((tril, True), pull)
    return PrecisionNormal(p.mean + shift[..., 0], tril), exists


def _exponentials(q: Any, p: Any, alpha: float) -> tuple[Any, Array]:
    rate, exists = _mix(alpha, q.rate, p.rate)
    return dist.Exponential(rate), exists


def _poissons(q: Any, p: Any, alpha: float) -> tuple[Any, Array]:
    mixed = jnp.exp(alpha * jnp.log(q.rate) + (1.0 - alpha) * jnp.log(p.rate))
    rate = jnp.where(q.rate == p.rate, q.rate, mixed)  # 0 and 0 included
    return dist.Poisson(jnp.where(jnp.isfinite(rate), rate, 1.0)), jnp.isfinite(rate)


def _gammas(q: Any, p: Any, alpha: float) -> tuple[Any, Array]:
    concentration, first = _mix(alpha, q.concentration, p.concentration)
    rate, second = _mix(alpha, q.rate, p.rate)
    kind = next(kind for kind in (LogGamma, dist.InverseGamma, dist.Gamma) if isinstance(q, kind))
    return kind(concentration, rate), first & second


def _betas(q: Any, p: Any, alpha: float) -> tuple[Any, Array]:
    ones, first = _mix(alpha, q.concentration1, p.concentration1)
    zeros, second = _mix(alpha, q.concentration0, p.concentration0)
    return dist.Beta(ones, zeros), first & second


def _dirichlets(q: Any, p: Any, alpha: float) -> tuple[Any, Array]:
    concentration, exists = _mix(alpha, q.concentration, p.concentration)
    kind = LogDirichlet if isinstance(q, LogDirichlet) else dist.Dirichlet
    return kind(concentration), exists.all(-1)


def _finite(log_q: Array, log_p: Array, alpha: float) -> Array:
    """1 / (alpha - 1) log sum_c q_c^alpha p_c^(1 - alpha), a class that q never takes adding 0."""
    log_q, log_p = jnp.broadcast_arrays(log_q, log_p)
    seen = log_q > -jnp.inf
    terms = alpha * jnp.where(seen, log_q, 0.0) + (1.0 - alpha) * jnp.where(seen, log_p, 0.0)
    return jax.nn.logsumexp(jnp.where(seen, terms, -jnp.inf), axis=-1) / (alpha - 1.0)


def _bernoullis(q: Any, p: Any, alpha: float) -> Array:
    def logs(d: Any) -> Array:
        if isinstance(d, dist.BernoulliLogits):
            return jax.nn.log_sigmoid(jnp.stack([d.logits, -d.logits], -1))
        return jnp.stack([jnp.log(d.probs), jnp.log1p(-d.probs)], -1)

    return _finite(logs(q), logs(p), alpha)


def _categoricals(q: Any, p: Any, alpha: float) -> Array:
    def logs(d: Any) -> Array:
        return (
            jnp.log(d.probs)
            if isinstance(d, dist.CategoricalProbs)
            else jax.nn.log_softmax(d.logits, axis=-1)
        )

    return _finite(logs(q), logs(p), alpha)


def _by(
    tilted: Callable[[Any, Any, float], tuple[Any, Array]],
) -> Callable[[Any, Any, float], Array]:
    return lambda q, p, alpha: _between(tilted, q, p, alpha)


_RULES: list[tuple[Any, Callable[[Any, Any, float], Array]]] = [
    (dist.Normal, _by(_normals)),
    (dist.LogNormal, _by(_normals)),
    (dist.Exponential, _by(_exponentials)),
    (dist.Poisson, _by(_poissons)),
    (dist.Gamma, _by(_gammas)),
    (LogGamma, _by(_gammas)),
    (dist.InverseGamma, _by(_gammas)),
    (dist.Beta, _by(_betas)),
    (dist.Dirichlet, _by(_dirichlets)),
    (LogDirichlet, _by(_dirichlets)),
    ((dist.BernoulliLogits, dist.BernoulliProbs), _bernoullis),
    ((dist.CategoricalLogits, dist.CategoricalProbs), _categoricals),
    (OneHotCategorical, _categoricals),
]
