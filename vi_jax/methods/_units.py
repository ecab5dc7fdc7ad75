"""Preconditioning: coordinates in which the posterior is about a standard normal, by pathfinder."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax import linalg
from vi_jax.families.low_rank import LowRankNormal
from vi_jax.kl.gaussians import is_diagonal
from vi_jax.methods._placed import Placed
from vi_jax.methods.dadvi import log_scales_of
from vi_jax.methods.pathfinder import begin, pathfinder
from vi_jax.types import Array, LogDensity

_MEMORY = 32  # pairs of L-BFGS
DENSE_UP_TO = 500  # latents up to which the start has a covariance; a diagonal beyond
_NUM_COMPARED = 20  # samples by which two starts are compared


class Units(NamedTuple):
    """u = loc + T e: coordinates e in which the posterior is about a standard normal."""

    loc: Array  # [D]
    root: Array  # T: [D, D], lower triangular, or its diagonal [D]

    def outward(self, e: Array) -> Array:
        """u [D] of e [D]."""
        return self.loc + (self.root * e if self.root.ndim == 1 else self.root @ e)

    def density(self, log_density: LogDensity) -> LogDensity:
        """That of e."""
        diagonal = self.root if self.root.ndim == 1 else jnp.diag(self.root)
        log_det = jnp.log(diagonal).sum()
        return lambda e: log_density(self.outward(e)) + log_det

    def guide(self, q: Any) -> Any:
        """A guide over e as one over u; Gaussians stay in the form they have where they can."""
        if isinstance(q, dist.MultivariateNormal):
            tril = (
                self.root[:, None] * q.scale_tril
                if self.root.ndim == 1
                else self.root @ q.scale_tril
            )
            return dist.MultivariateNormal(
                self.outward(q.loc), scale_tril=tril, validate_args=False
            )
        if self.root.ndim == 1 and is_diagonal(q):
            return dist.Normal(
                self.outward(q.base_dist.loc), self.root * q.base_dist.scale
            ).to_event(1)
        if self.root.ndim == 1 and isinstance(q, LowRankNormal):
            return LowRankNormal(
                self.outward(q.loc), self.root[:, None] * q.cov_factor, self.root**2 * q.cov_diag
            )
        return Placed(q, self.loc, self.root)


def ascend(
    key: Array, log_density: LogDensity, start: Array, *, max_steps: int, full: bool
) -> tuple[Units, Array]:
    """Units by the Gaussian of highest ELBO on the way to a mode, or by the curvature there if that
    is better; with the number of gradients that this took (a column of the curvature counts 2).

    Args:
      full: whether the root is a matrix; up to 500 latents. Its diagonal is else that of the
        nearest mean-field Gaussian.
    """
    ascent = pathfinder(memory=_MEMORY)
    key_path, key_tries = jax.random.split(key)

    def going(carry: tuple[Any, Array, Array]) -> Array:
        return (carry[1] < max_steps) & ~carry[2]

    def advance(carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        state, number, _ = carry
        state, info = ascent.step(jax.random.fold_in(key_path, number), log_density, state)
        return state, info.evaluations, info.done

    begun = (begin(start, memory=_MEMORY), jnp.int32(0), jnp.bool_(False))
    state, evaluations, _ = jax.lax.while_loop(going, advance, begun)
    best = ascent.guide(state)
    size = start.size
    if size > DENSE_UP_TO:
        return Units(best.loc, jnp.exp(log_scales_of(best))), evaluations

    slope = jax.grad(log_density)
    # column by column: a likelihood over a million rows must fit once
    curvature = -jax.lax.map(
        lambda e: jax.jvp(slope, (best.loc,), (e,))[1], jnp.eye(size, dtype=start.dtype)
    )
    if full:
        roots = jnp.stack(
            [_root(best.covariance_matrix), _root(_inverse(0.5 * (curvature + curvature.T)))]
        )
    else:
        roots = jnp.stack([jnp.exp(log_scales_of(best)), jnp.diag(curvature) ** -0.5])
    eps = jax.random.normal(key_tries, (_NUM_COMPARED, size), start.dtype)

    def elbo_of(root: Array) -> Array:
        value = jnp.mean(jax.lax.map(Units(best.loc, root).density(log_density), eps))
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    return Units(best.loc, roots[jnp.argmax(jax.lax.map(elbo_of, roots))]), evaluations + 2 * size


def _root(covariance: Array) -> Array:
    """Its triangular root, nan if it has none; of the correlations first, whatever the units."""
    scale = jnp.sqrt(jnp.diag(covariance))
    return scale[:, None] * linalg.cholesky(covariance / jnp.outer(scale, scale))


def _inverse(precision: Array) -> Array:
    scale = jnp.sqrt(jnp.diag(precision))
    return linalg.inv(precision / jnp.outer(scale, scale)) / jnp.outer(scale, scale)
