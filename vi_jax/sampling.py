"""Antithetic and quasi-Monte-Carlo sampling, for less noise: wrap a guide, and give it to an
estimator that does not need independent samples.

    q = vi.sampling.antithetic(q)
    value = vi.estimators.stl(key, vi.bounds.elbo, log_joint, q, num_samples=8)

Each sample alone has the guide's distribution, so that means stay right. Leave-one-out baselines
and DReG's squared weights need samples that are independent of each other; those estimators refuse
these guides.
"""

import math
from dataclasses import dataclass
from typing import Any

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


class _Coupled:
    """A guide whose samples depend on each other; each alone has the distribution of `base`."""

    base: Any
    independent_draws = False  # asked by `weights.require_independent`

    def log_prob(self, value: Array) -> Array:
        """That of the guide: the marginal density of one sample."""
        return self.base.log_prob(value)

    @property
    def mean(self) -> Array:
        """That of the guide."""
        return self.base.mean


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Antithetic(_Coupled):
    """A guide whose samples come in pairs, mirrored in its centre; see `antithetic`."""

    base: Any

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """[*sample_shape, *event_shape]; the first axis is even: its second half mirrors the
        first.
        """
        if not sample_shape or sample_shape[0] % 2:
            raise ValueError(
                "antithetic samples come in pairs: the number of samples has to be even; got "
                f"{sample_shape}."
            )
        half = self.base.sample(key, (sample_shape[0] // 2, *sample_shape[1:]))
        return jnp.concatenate([half, 2.0 * _centre(self.base) - half])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Quasi(_Coupled):
    """A Gaussian guide whose samples fill space evenly; see `quasi`."""

    base: Any

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """[*sample_shape, D]: points of one randomly shifted sequence along all of sample_shape."""
        loc = _centre(self.base)
        u = kronecker(key, math.prod(sample_shape), loc.shape[-1], loc.dtype)
        return _from_normal(self.base, ndtri(u)).reshape(*sample_shape, *loc.shape)


def antithetic(q: Any) -> Antithetic:
    """q with samples in mirrored pairs (Hammersley & Morton 1956): for what is near-linear in z,
    most of the noise cancels.

    Raises:
      ValueError: q is not one of the distributions known to be symmetric about a point.
    """
    bare = q.base_dist if isinstance(q, dist.Independent) else q
    if not isinstance(bare, _SYMMETRIC + _SYMMETRIC_TOO):
        raise ValueError(
            "antithetic samples expect a guide that is symmetric about a point; got "
            f"{type(bare).__name__}."
        )
    return Antithetic(q)


def quasi(q: Any) -> Quasi:
    """A Gaussian q, diagonal or full, with randomised quasi-Monte-Carlo samples (Buchholz et al.
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
            "quasi-Monte-Carlo samples expect a Gaussian guide, diagonal or full, over a vector; "
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


def _centre(q: Any) -> Array:
    if isinstance(q, dist.Independent):
        return jnp.broadcast_to(q.base_dist.loc, q.base_dist.batch_shape)
    return jnp.broadcast_to(q.loc, (*q.batch_shape, *q.event_shape))


def _from_normal(q: Any, eps: Array) -> Array:
    if isinstance(q, dist.Independent):
        return _centre(q) + q.base_dist.scale * eps
    return q.loc + eps @ q.scale_tril.T
