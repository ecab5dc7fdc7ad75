"""Draws that are not independent, for less noise: wrap any guide, hand it to any estimator that
does not need independence.

    value = vi.estimators.stl(key, vi.bounds.elbo, log_joint, vi.draws.antithetic(q), num_samples=8)

Each draw alone has the guide's distribution, so that means stay right. Leave-one-out baselines and
DReG's squared weights need draws that are independent of each other; those estimators refuse these
guides.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import ndtri

from vi_jax.types import Array

_SYMMETRIC = (
    dist.Normal,
    dist.StudentT,
    dist.Laplace,
    dist.Cauchy,
    dist.Logistic,
    dist.MultivariateNormal,
)
_SYMMETRIC_TOO = (dist.LowRankMultivariateNormal, dist.MultivariateStudentT)


class Antithetic(NamedTuple):
    """A guide whose draws come in pairs, mirrored in its centre; see `antithetic`."""

    base: Any

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """[*sample_shape, *event_shape]; the first axis is even: its second half mirrors the
        first.
        """
        if not sample_shape or sample_shape[0] % 2:
            raise ValueError(
                "antithetic draws come in pairs: the number of draws wants to be even; got "
                f"{sample_shape}."
            )
        half = self.base.sample(key, (sample_shape[0] // 2, *sample_shape[1:]))
        return jnp.concatenate([half, 2.0 * _centre(self.base) - half])

    def log_prob(self, value: Array) -> Array:
        """That of the guide: the marginal density of one draw."""
        return self.base.log_prob(value)

    @property
    def mean(self) -> Array:
        """That of the guide."""
        return self.base.mean

    @property
    def independent_draws(self) -> bool:
        """Whether draws do not depend on each other: no."""
        return False


class Quasi(NamedTuple):
    """A Gaussian guide whose draws fill space evenly; see `quasi`."""

    base: Any

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """[*sample_shape, D]: points of one randomly shifted sequence along all of sample_shape."""
        num = 1
        for size in sample_shape:
            num *= size
        loc = _centre(self.base)
        u = kronecker(key, num, loc.shape[-1], loc.dtype)
        return _from_normal(self.base, ndtri(u)).reshape(*sample_shape, *loc.shape)

    def log_prob(self, value: Array) -> Array:
        """That of the guide: the marginal density of one draw."""
        return self.base.log_prob(value)

    @property
    def mean(self) -> Array:
        """That of the guide."""
        return self.base.mean

    @property
    def independent_draws(self) -> bool:
        """Whether draws do not depend on each other: no."""
        return False


def antithetic(q: Any) -> Antithetic:
    """q with draws in mirrored pairs (Hammersley & Morton 1956): for what is near-linear in z, most
    of the noise cancels.

    Raises:
      ValueError: q is not one of the distributions known to be symmetric about a point.
    """
    bare = q.base_dist if isinstance(q, dist.Independent) else q
    if not isinstance(bare, _SYMMETRIC + _SYMMETRIC_TOO):
        raise ValueError(
            "antithetic draws want a guide that is symmetric about a point; got "
            f"{type(bare).__name__}."
        )
    return Antithetic(q)


def quasi(q: Any) -> Quasi:
    """A Gaussian q, diagonal or full, with randomised quasi-Monte-Carlo draws (Buchholz et al.
    2018).

    Raises:
      ValueError: q is not a diagonal or full Gaussian over a vector.
    """
    diagonal = (
        isinstance(q, dist.Independent)
        and isinstance(q.base_dist, dist.Normal)
        and q.reinterpreted_batch_ndims == 1
    )
    if not diagonal and not isinstance(q, dist.MultivariateNormal):
        raise ValueError(
            "quasi-Monte-Carlo draws want a Gaussian guide, diagonal or full, over a vector; "
            f"got {type(q).__name__}."
        )
    return Quasi(q)


def kronecker(key: Array, num: int, num_dims: int, dtype: Any = jnp.float32) -> Array:
    """[num, num_dims] points of the additive recurrence frac(shift + k alpha), one uniform shift
    for all: each point alone is uniform on (0, 1), all together are even. alpha_j = g^-(j + 1), g
    the root of g^(D + 1) = g + 1 (Roberts 2018).
    """
    g = 2.0
    for _ in range(40):
        g = (1.0 + g) ** (1.0 / (num_dims + 1))
    # k alpha is reduced modulo 1 in double precision here, so that float32 loses nothing at large k
    steps = np.arange(num)[:, None] * g ** -np.arange(1.0, num_dims + 1) % 1.0
    shift = jax.random.uniform(key, (1, num_dims), dtype)
    u = (jnp.asarray(steps, dtype) + shift) % 1.0
    edge = jnp.finfo(dtype).eps
    return jnp.clip(u, edge, 1.0 - edge)


class Controlled(NamedTuple):
    """A mean with control variates, its standard error, and how much variance they took away."""

    value: Array
    stderr: Array
    variance_ratio: Array  # with controls / without; below 1 where they help


def controlled_mean(values: Array, controls: Array) -> Controlled:
    """The mean of `values` [K] less its regression on `controls` [K, M] whose mean is 0,
    coefficients learned from the other half of the draws, so that the mean stays right (Owen 2013,
    sec. 8.9, cross-fitted).

    Args:
      values: one number a draw, e.g. a coordinate of a gradient; vmap over coordinates.
      controls: numbers of mean 0 on the same draws, e.g. the guide's score.

    Raises:
      ValueError: fewer than 4 (M + 1) draws, or shapes that do not match.
    """
    num = values.shape[0]
    if controls.ndim != 2 or controls.shape[0] != num or num < 4 * (controls.shape[1] + 1):
        raise ValueError(
            "controlled_mean wants values [K], controls [K, M], K >= 4 (M + 1); got "
            f"{values.shape}, {controls.shape}."
        )
    first = jnp.arange(num) < num // 2

    def residual(fitted_on: Array, used_on: Array) -> Array:
        weight = fitted_on.astype(values.dtype)[:, None]
        centred = controls - (weight * controls).sum(0, keepdims=True) / weight.sum()
        gap = values - (weight[:, 0] * values).sum() / weight.sum()
        scale = (
            jnp.finfo(values.dtype).eps * (weight * centred**2).sum() + jnp.finfo(values.dtype).tiny
        )
        gram = (weight * centred).T @ centred + scale * jnp.eye(
            controls.shape[1], dtype=values.dtype
        )
        coefficients = jnp.linalg.solve(gram, (weight * centred).T @ gap)
        return jnp.where(used_on, values - controls @ coefficients, 0.0)

    left = residual(first, ~first) + residual(~first, first)
    return Controlled(left.mean(), left.std(ddof=1) / num**0.5, left.var() / values.var())


def _centre(q: Any) -> Array:
    if isinstance(q, dist.Independent):
        return jnp.broadcast_to(q.base_dist.loc, q.base_dist.batch_shape)
    return jnp.broadcast_to(q.loc, (*q.batch_shape, *q.event_shape))


def _from_normal(q: Any, eps: Array) -> Array:
    if isinstance(q, dist.Independent):
        return _centre(q) + q.base_dist.scale * eps
    return q.loc + eps @ q.scale_tril.T
