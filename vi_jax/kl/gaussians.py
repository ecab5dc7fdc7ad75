"""KL between Gaussians over a vector, each in any of four forms, without forming a covariance that
the form avoids.

Of q only a square root of the covariance is needed, Sq = diag(v) + F F'; of p only two maps of its
precision Sp^-1:

    form                            q: v, F        p: diag Sp^-1,   x -> x' Sp^-1 x
    diagonal                        s^2, none      s^-2,            |x / s|^2
    full, S = L L'                  none, L        |L^-1 e_j|^2,    |L^-1 x|^2
    low rank, S = W W' + diag(v)    v, W           by Woodbury,     |r / sqrt(v)|^2 + |w|^2
    precision, S^-1 = P P'          none, P'^-1    |P' e_j|^2,      |P' x|^2

with w = (I + W' V^-1 W)^-1 W' V^-1 x and r = x - W w: a sum of squares, where Woodbury's difference
would cancel.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax import linalg
from vi_jax.distributions import PrecisionNormal

Array = jax.Array


class Form(NamedTuple):
    """What one Gaussian offers: all leaves have its batch shape in front."""

    loc: Array  # [..., D]
    half_log_det: Array  # 1/2 log det S, [...]
    variances: Array | None  # v, [..., D], or None for 0
    factor: Callable[[], Array | None]  # F, [..., D, R], or None for 0
    precisions: Callable[[], Array]  # diag S^-1, [..., D]
    mahalanobis: Callable[[Array], Array]  # x [..., D, M] -> the column sums x' S^-1 x, [..., M]


def is_diagonal(d: Any) -> bool:
    """Whether d is independent normals over one event axis."""
    return (
        isinstance(d, dist.Independent)
        and isinstance(d.base_dist, dist.Normal)
        and d.reinterpreted_batch_ndims == 1
    )


def is_gaussian_vector(d: Any) -> bool:
    """Whether d is a Gaussian over a vector in a form that `form` knows."""
    return is_diagonal(d) or isinstance(
        d, dist.MultivariateNormal | dist.LowRankMultivariateNormal | PrecisionNormal
    )


def form(d: Any) -> Form:
    """The form of a Gaussian over a vector, with its leaves spelled out to the batch shape."""
    if is_diagonal(d):
        loc, scale = (
            jnp.broadcast_to(x, d.base_dist.batch_shape)
            for x in (d.base_dist.loc, d.base_dist.scale)
        )
        return _diagonal(loc, scale)
    loc = jnp.broadcast_to(d.loc, (*d.batch_shape, *d.event_shape))
    if isinstance(d, PrecisionNormal):
        return _precision(loc, d)
    if isinstance(d, dist.LowRankMultivariateNormal):
        variances = jnp.broadcast_to(d.cov_diag, loc.shape)
        return _low_rank(
            loc, jnp.broadcast_to(d.cov_factor, (*loc.shape, d.cov_factor.shape[-1])), variances
        )
    return _full(loc, jnp.broadcast_to(d.scale_tril, (*loc.shape, loc.shape[-1])))


def kl_gaussian_vectors(q: Any, p: Any) -> Array:
    """1/2 [tr(Sp^-1 Sq) + (mp - mq)' Sp^-1 (mp - mq) - D + log det Sp - log det Sq]."""
    batch = jnp.broadcast_shapes(q.batch_shape, p.batch_shape)
    q = form(_spread(q, batch))
    p = form(_spread(p, batch))
    gap = (p.loc - q.loc)[..., None]
    factor = q.factor()
    columns = gap if factor is None else jnp.concatenate([factor, gap], axis=-1)
    total = p.mahalanobis(columns).sum(-1)  # tr(F' Sp^-1 F) and the distance of the means
    if q.variances is not None:
        total = total + (q.variances * p.precisions()).sum(-1)
    return 0.5 * (total - gap.shape[-2]) + p.half_log_det - q.half_log_det


def rule_of_vectors(q: Any, p: Any) -> Callable[[Any, Any], Array] | None:
    """The rule of a pair of Gaussians over a vector, or None."""
    if is_gaussian_vector(q) and is_gaussian_vector(p):
        return kl_gaussian_vectors
    return kl_by_moments if states_moments(q) and is_diagonal(p) else None


def states_moments(d: Any) -> bool:
    """Whether d is a guide over a vector, none of numpyro's, that states its mean, its variances
    and its entropy.
    """
    is_ours = not isinstance(d, dist.Distribution) and len(getattr(d, "event_shape", ())) == 1
    return is_ours and all(hasattr(type(d), name) for name in ("mean", "variance", "entropy"))


def kl_by_moments(q: Any, p: Any) -> Array:
    """-H(q) - E_q[log p] with p diagonal, whose expectation needs the mean and the variances of q
    alone: exact for any q, in O(D).
    """
    normal = p.base_dist
    second = ((q.mean - normal.loc) / normal.scale) ** 2 + q.variance / normal.scale**2
    each = jnp.log(normal.scale) + 0.5 * (second + math.log(2.0 * math.pi))
    return each.sum(-1) - q.entropy()


def square_root(d: Any) -> Array:
    """Any F with S = F F', [..., D, R]: the diagonal part is put beside the factor."""
    f = form(d)
    factor = f.factor()
    if f.variances is None:
        assert factor is not None
        return factor
    diagonal = jnp.sqrt(f.variances)[..., None] * jnp.eye(
        f.variances.shape[-1], dtype=f.variances.dtype
    )
    return diagonal if factor is None else jnp.concatenate([factor, diagonal], axis=-1)


def precision_matrix(d: Any) -> Array:
    """S^-1, [..., D, D]."""
    if is_diagonal(d):
        precisions = form(d).precisions()
        return precisions[..., None] * jnp.eye(precisions.shape[-1], dtype=precisions.dtype)
    return d.precision_matrix


def _spread(d: Any, batch: tuple[int, ...]) -> Any:
    """d with its parameters broadcast to the batch shape."""
    if d.batch_shape == batch:
        return d
    event = d.event_shape
    if is_diagonal(d):
        loc, scale = (
            jnp.broadcast_to(x, (*batch, *event)) for x in (d.base_dist.loc, d.base_dist.scale)
        )
        return dist.Normal(loc, scale).to_event(1)
    loc = jnp.broadcast_to(d.loc, (*batch, *event))
    if isinstance(d, PrecisionNormal):
        return PrecisionNormal(loc, d.precision_tril)
    if isinstance(d, dist.LowRankMultivariateNormal):
        return dist.LowRankMultivariateNormal(loc, d.cov_factor, d.cov_diag)
    return dist.MultivariateNormal(loc, scale_tril=d.scale_tril)


def _diagonal(loc: Array, scale: Array) -> Form:
    return Form(
        loc,
        jnp.log(scale).sum(-1),
        scale**2,
        lambda: None,
        lambda: scale**-2,
        lambda x: ((x / scale[..., None]) ** 2).sum(-2),
    )


def _full(loc: Array, tril: Array) -> Form:
    def whiten(x: Array) -> Array:
        return linalg.solve_triangular(tril, x, lower=True)

    eye = jnp.broadcast_to(jnp.eye(tril.shape[-1], dtype=tril.dtype), tril.shape)
    return Form(
        loc,
        _log_diagonal(tril),
        None,
        lambda: tril,
        lambda: (whiten(eye) ** 2).sum(-2),
        lambda x: (whiten(x) ** 2).sum(-2),
    )


def _precision(loc: Array, d: PrecisionNormal) -> Form:
    tril = d.precision_tril
    return Form(
        loc,
        -_log_diagonal(tril),
        None,
        lambda: d.scale_factor,
        lambda: (tril**2).sum(-1),
        lambda x: ((jnp.swapaxes(tril, -1, -2) @ x) ** 2).sum(-2),
    )


def _low_rank(loc: Array, factor: Array, variances: Array) -> Form:
    white = factor / jnp.sqrt(variances)[..., None]  # V^-1/2 W
    white_t = jnp.swapaxes(white, -1, -2)
    # det(V + W W') = det V det(I + W' V^-1 W), the matrix determinant lemma
    capacity = linalg.cholesky(jnp.eye(factor.shape[-1], dtype=factor.dtype) + white_t @ white)

    def precisions() -> Array:
        explained = linalg.solve_triangular(capacity, white_t, lower=True)  # [..., R, D]
        return (1.0 - (explained**2).sum(-2)) / variances

    def mahalanobis(x: Array) -> Array:
        x = x / jnp.sqrt(variances)[..., None]
        half = linalg.solve_triangular(capacity, white_t @ x, lower=True)
        weights = linalg.solve_triangular(capacity, half, trans=1, lower=True)
        return ((x - white @ weights) ** 2).sum(-2) + (weights**2).sum(-2)

    half_log_det = 0.5 * jnp.log(variances).sum(-1) + _log_diagonal(capacity)
    return Form(loc, half_log_det, variances, lambda: factor, precisions, mahalanobis)


def _log_diagonal(tril: Array) -> Array:
    return jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1)).sum(-1)
