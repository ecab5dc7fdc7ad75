"""Kullback-Leibler divergences KL(q || p) = E_q[log q(z) - log p(z)] in nats: closed forms, and Monte Carlo where there is none."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.distributions.distribution import ExpandedDistribution
from numpyro.distributions.kl import kl_divergence as numpyro_kl_divergence

Array = jax.Array


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error, of the same shape and unit."""

    value: Array
    stderr: Array


def kl_standard_normal(loc: Array, log_scale: Array) -> Array:
    """KL(N(mu, sigma^2) || N(0, 1)) of each dimension, the term of Kingma & Welling (2013), appendix B and eq. 10.

        KL_j = -1/2 (1 + log sigma_j^2 - mu_j^2 - sigma_j^2);      KL(q || p) = sum_j KL_j

    Args:
      loc: mu, any shape [..., D].
      log_scale: log sigma (not log sigma^2), the same shape.

    Returns:
      Nats, [..., D]: one per dimension; sum over the last axis at the edge. Near sigma = 1 no digits cancel:
      sigma^2 - 1 - log sigma^2 is taken as expm1(2 log sigma) - 2 log sigma.
    """
    return 0.5 * (loc**2 + jnp.expm1(2.0 * log_scale) - 2.0 * log_scale)


def kl_divergence(q: Any, p: Any) -> Array:
    """KL(q || p) in closed form, or an error: never an estimate in its place.

    Covers every pair of numpyro's registry, and Gaussians of any two forms (diagonal, full, low-rank plus diagonal),
    Bernoulli, categorical, Poisson, Laplace, LogNormal and exponentials, with logits or with probabilities.

    Args:
      q, p: numpyro distributions over the same space, with event shapes alike and batch shapes that broadcast.

    Returns:
      Nats, of the broadcast batch shape.

    Raises:
      ValueError: the event shapes differ.
      NotImplementedError: no closed form is known; names `vi_jax.kl_monte_carlo`.
    """
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"kl_divergence wants q and p over one space; got event shapes {q.event_shape} and {p.event_shape} "
            f"({type(q).__name__}, {type(p).__name__}). Use .to_event(n) to say which axes are one event."
        )
    rule = _find_rule(q, p)
    if rule is not None:
        return rule(q, p)
    try:
        return numpyro_kl_divergence(q, p)
    except NotImplementedError:
        raise NotImplementedError(
            f"no closed form is known for KL({_describe(q)} || {_describe(p)}); "
            "estimate it: vi_jax.kl_monte_carlo(key, q, p, num_samples=...) returns a value and its standard error."
        ) from None


def kl_per_dimension(q: Any, p: Any) -> Array:
    """The terms of KL(q || p) = sum_j KL(q_j || p_j) where both q and p factorise over one event axis: nats, [..., D].

    Raises:
      ValueError: q or p is not an `Independent` of one event axis, so that its KL has no terms per dimension.
    """
    q, p = _strip(q), _strip(p)
    if not all(isinstance(d, dist.Independent) and d.reinterpreted_batch_ndims == 1 for d in (q, p)):
        raise ValueError(
            f"the KL splits by dimension only where q and p factorise; got {_describe(q)} and {_describe(p)}. "
            "Take kl_divergence(q, p) for the whole."
        )
    return kl_divergence(q.base_dist, p.base_dist)


def kl_monte_carlo(key: Array, q: Any, p: Any, *, num_samples: int) -> Estimate:
    """KL(q || p) as the mean of log q(z_k) - log p(z_k) over z_k ~ q; unbiased, may be negative.

    Args:
      q, p: any guides.
      num_samples: at least 2, so that there is a standard error.

    Returns:
      Estimate(value, stderr), nats, of the broadcast batch shape.
    """
    return _mean_and_stderr(_log_ratio(key, q, p, num_samples))


def kl_monte_carlo_controlled(key: Array, q: Any, p: Any, *, num_samples: int) -> Estimate:
    """KL(q || p) as the mean of r_k - 1 - log r_k with r = p(z) / q(z); unbiased, never negative.

    The control variate r - 1 has mean 0 under q where q covers p; its coefficient -1 makes every term non-negative (the
    Bregman divergence of -log). Better than `kl_monte_carlo` where q is near p; where p has mass that q misses, r has heavy
    tails: compare the standard errors. Arguments and result as there.
    """
    log_r = -_log_ratio(key, q, p, num_samples)
    return _mean_and_stderr(jnp.expm1(log_r) - log_r)


def _log_ratio(key: Array, q: Any, p: Any, num_samples: int) -> Array:
    if num_samples < 2:
        raise ValueError(f"a standard error wants num_samples of at least 2; got {num_samples}.")
    z = q.sample(key, (num_samples,))
    return q.log_prob(z) - p.log_prob(z)  # [K, ...]


def _mean_and_stderr(terms: Array) -> Estimate:
    return Estimate(terms.mean(0), terms.std(0, ddof=1) / terms.shape[0] ** 0.5)


def _describe(d: Any) -> str:
    name = type(d).__name__
    return f"{name} of {_describe(d.base_dist)}" if isinstance(d, dist.Independent | ExpandedDistribution) else name


def _strip(d: Any) -> Any:
    """The distribution without `expand` around it, where its batch shape is spelled out by broadcasting instead."""
    if isinstance(d, ExpandedDistribution):
        return _broadcast_leaves(_strip(d.base_dist), d.batch_shape)
    if isinstance(d, dist.Independent) and d.reinterpreted_batch_ndims == 0:
        return _strip(d.base_dist)
    if isinstance(d, dist.Independent) and isinstance(d.base_dist, dist.Independent):
        inner = d.base_dist
        return _strip(dist.Independent(inner.base_dist, inner.reinterpreted_batch_ndims + d.reinterpreted_batch_ndims))
    if isinstance(d, dist.Independent) and isinstance(d.base_dist, ExpandedDistribution):
        return dist.Independent(_strip(d.base_dist), d.reinterpreted_batch_ndims)
    return d


def _broadcast_leaves(d: Any, batch_shape: tuple[int, ...]) -> Any:
    if batch_shape == d.batch_shape or not hasattr(d, "expand") or isinstance(d, dist.Independent):
        return d if batch_shape == d.batch_shape else ExpandedDistribution(d, batch_shape)
    kind = type(d)
    if kind in (dist.Normal, dist.Laplace, dist.LogNormal):
        return kind(jnp.broadcast_to(d.loc, batch_shape), jnp.broadcast_to(d.scale, batch_shape))
    return ExpandedDistribution(d, batch_shape)


def _find_rule(q: Any, p: Any) -> Callable[[Any, Any], Array] | None:
    if isinstance(q, dist.Delta):
        return None  # numpyro's own: -log p at the atom
    q_bare, p_bare = _strip(q), _strip(p)
    if isinstance(q_bare, dist.Independent) and isinstance(p_bare, dist.Independent):
        return lambda q, p: _kl_independent(_strip(q), _strip(p))
    if _is_gaussian_vector(q_bare) and _is_gaussian_vector(p_bare):
        return lambda q, p: _kl_gaussian_vectors(_strip(q), _strip(p))
    if isinstance(q_bare, ExpandedDistribution) or isinstance(p_bare, ExpandedDistribution):
        return lambda q, p: _kl_expanded(_strip(q), _strip(p))
    for kinds_q, kinds_p, rule in _RULES:
        if isinstance(q_bare, kinds_q) and isinstance(p_bare, kinds_p):
            return lambda q, p, rule=rule: rule(_strip(q), _strip(p))  # type: ignore[misc]
    return None


def _kl_expanded(q: Any, p: Any) -> Array:
    bare = [d.base_dist if isinstance(d, ExpandedDistribution) else d for d in (q, p)]
    return jnp.broadcast_to(kl_divergence(*bare), jnp.broadcast_shapes(q.batch_shape, p.batch_shape))


def _kl_independent(q: dist.Independent, p: dist.Independent) -> Array:
    """KL adds over independent coordinates: peel the event axes that both reinterpret, then sum over them."""
    shared = min(q.reinterpreted_batch_ndims, p.reinterpreted_batch_ndims)
    inner = [
        d.base_dist if d.reinterpreted_batch_ndims == shared else d.base_dist.to_event(d.reinterpreted_batch_ndims - shared)
        for d in (q, p)
    ]
    kl = kl_divergence(*inner)
    shape = jnp.broadcast_shapes(inner[0].batch_shape, inner[1].batch_shape)
    return jnp.broadcast_to(kl, shape).sum(tuple(range(-shared, 0)))


# Gaussians over a vector, in any two of three forms.


def _is_diagonal(d: Any) -> bool:
    return isinstance(d, dist.Independent) and isinstance(d.base_dist, dist.Normal) and d.reinterpreted_batch_ndims == 1


def _is_gaussian_vector(d: Any) -> bool:
    return _is_diagonal(d) or isinstance(d, dist.MultivariateNormal | dist.LowRankMultivariateNormal)


def _variances_and_half_log_det(d: Any) -> tuple[Array, Array]:
    """diag(Sigma) [..., D] and 1/2 log det Sigma [...]."""
    if _is_diagonal(d):
        scale = jnp.broadcast_to(d.base_dist.scale, d.base_dist.batch_shape)
        return scale**2, jnp.log(scale).sum(-1)
    if isinstance(d, dist.LowRankMultivariateNormal):
        # det(D + W W') = det(D) det(I + W' D^-1 W), the matrix determinant lemma
        scaled = d.cov_factor / d.cov_diag[..., None]
        capacity = jnp.eye(d.cov_factor.shape[-1]) + jnp.swapaxes(scaled, -1, -2) @ d.cov_factor
        half_log_det = 0.5 * jnp.log(d.cov_diag).sum(-1) + _half_log_det(jnp.linalg.cholesky(capacity))
        return d.cov_diag + (d.cov_factor**2).sum(-1), half_log_det
    return (d.scale_tril**2).sum(-1), _half_log_det(d.scale_tril)


def _half_log_det(tril: Array) -> Array:
    return jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1)).sum(-1)


def _location(d: Any) -> Array:
    return jnp.broadcast_to(d.base_dist.loc, d.base_dist.batch_shape) if _is_diagonal(d) else d.loc


def _scale_tril(d: Any) -> Array:
    if _is_diagonal(d):
        scale = jnp.broadcast_to(d.base_dist.scale, d.base_dist.batch_shape)
        return scale[..., None] * jnp.eye(scale.shape[-1], dtype=scale.dtype)
    if isinstance(d, dist.LowRankMultivariateNormal):
        return jnp.linalg.cholesky(d.covariance_matrix)
    return d.scale_tril


def _kl_gaussian_vectors(q: Any, p: Any) -> Array:
    """1/2 [tr(Sp^-1 Sq) + (mp - mq)' Sp^-1 (mp - mq) - D + log det Sp - log det Sq], with Sp = Lp Lp'."""
    variance_q, half_log_det_q = _variances_and_half_log_det(q)
    _, half_log_det_p = _variances_and_half_log_det(p)
    gap = _location(p) - _location(q)
    if _is_diagonal(p):  # only diag(Sq) is needed: no matrix is solved
        precision = jnp.broadcast_to(p.base_dist.scale, p.base_dist.batch_shape) ** -2
        trace, distance = (variance_q * precision).sum(-1), (gap**2 * precision).sum(-1)
    else:
        scale_tril_q, scale_tril_p = _scale_tril(q), _scale_tril(p)
        batch = jnp.broadcast_shapes(scale_tril_q.shape[:-2], scale_tril_p.shape[:-2], gap.shape[:-1])
        wide = jnp.concatenate(
            [
                jnp.broadcast_to(scale_tril_q, (*batch, *scale_tril_q.shape[-2:])),
                jnp.broadcast_to(gap, (*batch, gap.shape[-1]))[..., None],
            ],
            axis=-1,
        )
        tril = jnp.broadcast_to(scale_tril_p, (*batch, *scale_tril_p.shape[-2:]))
        solved = solve_triangular(tril, wide, lower=True)  # Lp^-1 [Lq, mp - mq]
        trace, distance = (solved[..., :-1] ** 2).sum((-2, -1)), (solved[..., -1] ** 2).sum(-1)
    return 0.5 * (trace + distance - gap.shape[-1]) + half_log_det_p - half_log_det_q


# Scalars that numpyro's registry lacks.


def _kl_normal(q: Any, p: Any) -> Array:
    """log(sp / sq) + (sq^2 + (mq - mp)^2) / (2 sp^2) - 1/2, without cancellation near equality."""
    log_ratio = jnp.log(q.scale) - jnp.log(p.scale)
    return kl_standard_normal((q.loc - p.loc) / p.scale, log_ratio)


def _kl_laplace(q: Any, p: Any) -> Array:
    """log(bp / bq) + |d| / bp + (bq / bp) e^(-|d| / bq) - 1 with d = mq - mp."""
    gap, ratio = jnp.abs(q.loc - p.loc), q.scale / p.scale
    return -jnp.log(ratio) + gap / p.scale + ratio * jnp.exp(-gap / q.scale) - 1.0


def _kl_exponential(q: Any, p: Any) -> Array:
    """log(lq / lp) + lp / lq - 1 for rates l."""
    log_ratio = jnp.log(p.rate) - jnp.log(q.rate)
    return jnp.expm1(log_ratio) - log_ratio


def _kl_poisson(q: Any, p: Any) -> Array:
    """lq log(lq / lp) - lq + lp for rates l."""
    return jax.scipy.special.xlogy(q.rate, q.rate) - jax.scipy.special.xlogy(q.rate, p.rate) - q.rate + p.rate


def _kl_bernoulli(q: Any, p: Any) -> Array:
    """sigmoid(a) (a - b) - softplus(a) + softplus(b) for logits a of q and b of p; probabilities of 0 and 1 are logits of +-inf."""
    if isinstance(q, dist.BernoulliLogits) and isinstance(p, dist.BernoulliLogits):
        a, b = q.logits, p.logits
        return jax.nn.sigmoid(a) * (a - b) - jax.nn.softplus(a) + jax.nn.softplus(b)
    x, y = (jax.nn.sigmoid(d.logits) if isinstance(d, dist.BernoulliLogits) else d.probs for d in (q, p))
    rel = jax.scipy.special.rel_entr
    return rel(x, y) + rel(1.0 - x, 1.0 - y)


def _log_probs(d: Any) -> Array:
    return jax.nn.log_softmax(d.logits, axis=-1) if isinstance(d, dist.CategoricalLogits) else jnp.log(d.probs)


def _kl_categorical(q: Any, p: Any) -> Array:
    """sum_c q_c (log q_c - log p_c), a class of probability 0 under q adding 0."""
    log_q, log_p = _log_probs(q), _log_probs(p)
    seen = jnp.isfinite(log_q)
    terms = jnp.where(seen, jnp.exp(log_q) * (jnp.where(seen, log_q, 0.0) - jnp.where(seen, log_p, 0.0)), 0.0)
    return terms.sum(-1)


_BERNOULLI = (dist.BernoulliLogits, dist.BernoulliProbs)
_CATEGORICAL = (dist.CategoricalLogits, dist.CategoricalProbs)
_RULES: list[tuple[Any, Any, Callable[[Any, Any], Array]]] = [
    (dist.Normal, dist.Normal, _kl_normal),
    (dist.LogNormal, dist.LogNormal, _kl_normal),  # KL is invariant under the common bijection exp
    (dist.Laplace, dist.Laplace, _kl_laplace),
    (dist.Exponential, dist.Exponential, _kl_exponential),
    (dist.Poisson, dist.Poisson, _kl_poisson),
    (_BERNOULLI, _BERNOULLI, _kl_bernoulli),
    (_CATEGORICAL, _CATEGORICAL, _kl_categorical),
]
