"""Pathfinder: the best Gaussian along a quasi-Newton optimisation path."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.gaussian import VectorGuide, log_standard_normal
from vi_jax.optimise import lbfgs
from vi_jax.types import Array, LogDensity, Method, MethodInfo, select


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FactoredNormal(VectorGuide):
    """N(loc, S (I + Q (L L' - I) Q') S), S diagonal, Q [D, R] with orthonormal columns: a few
    directions on top of a diagonal.
    """

    loc: Array
    scale: Array  # [D], diagonal of S
    basis: Array  # Q [D, R]
    factor: Array  # L [R, R], lower triangular

    @property
    def mean(self) -> Array:
        return self.loc

    @property
    def covariance_matrix(self) -> Array:
        """[D, D]."""
        root = self.scale[:, None] * self.basis
        return (
            jnp.diag(self.scale**2)
            + root @ (self.factor @ self.factor.T - jnp.eye(self.factor.shape[0])) @ root.T
        )

    def transport(self, eps: Array) -> Array:
        inside = self.basis.T @ eps
        return self.loc + self.scale * (eps + self.basis @ (self.factor @ inside - inside))

    def log_density(self, z: Array) -> Array:
        x = (z - self.loc) / self.scale
        inside = self.basis.T @ x
        eps = (
            x
            - self.basis @ inside
            + self.basis @ linalg.solve_triangular(self.factor, inside, lower=True)
        )
        return (
            log_standard_normal(eps)
            - jnp.log(self.scale).sum()
            - jnp.log(jnp.diagonal(self.factor)).sum()
        )


class State(NamedTuple):
    """The L-BFGS search, and the best Gaussian along its path."""

    search: lbfgs.State
    best: FactoredNormal
    best_elbo: Array


def pathfinder(
    *, num_elbo_draws: int = 10, memory: int = 6, tolerance: float = 1e-4, num_steps: int = 500
) -> Method:
    """At each iterate of L-BFGS towards the mode, N(u + H grad, H) with H the inverse Hessian
    learnt so far; the one of highest ELBO is the answer (Zhang et al. 2022, alg. 1). It need not be
    at the end of the path: a mode can lie far from the mass.

    Args:
      num_elbo_draws: samples of each ELBO; values of the log density, without gradients.
      memory: J, pairs that L-BFGS keeps: the covariance is a diagonal and 2 J directions.
      tolerance: stop when a step expects to gain less than this, nats.
      num_steps: evaluations of the gradient, at most.

    Returns:
      A Method; its `value` is the best ELBO so far. Memory does not grow with the number of steps.
    """

    def init(key: Array, log_density: LogDensity, start: Array) -> State:
        # the first step evaluates the start; until then the Gaussian knows nothing
        del key, log_density
        return begin(start, memory=memory)

    def step(key: Array, log_density: LogDensity, state: State) -> tuple[State, MethodInfo]:
        eps = jax.random.normal(key, (num_elbo_draws, state.search.u.size), state.search.u.dtype)
        return advance(eps, log_density, state, tolerance=tolerance)

    return Method("pathfinder", init, step, lambda state: state.best, num_steps)


def begin(start: Array, *, memory: int) -> State:
    """Before the first evaluation."""
    rank = min(start.size, 2 * memory)
    place = FactoredNormal(
        start,
        jnp.ones_like(start),
        jnp.zeros((start.size, rank), start.dtype),
        jnp.eye(rank, dtype=start.dtype),
    )
    return State(lbfgs.start(start, memory=memory), place, jnp.full((), -jnp.inf, start.dtype))


def advance(
    eps: Array, log_density: LogDensity, state: State, *, tolerance: float
) -> tuple[State, MethodInfo]:
    """A trial of the search, and where it is accepted the ELBO of the Gaussian there, by the
    standard normals eps [K, D].
    """
    search, hessian = lbfgs.advance(log_density, state.search)
    q = gaussian_at(search, hessian)
    z = jax.vmap(q.transport)(eps)

    def measure() -> Array:
        # one sample at a time: a likelihood over a million rows must fit once
        elbo = jnp.mean(jax.lax.map(lambda z: log_density(z) - q.log_density(z), z))
        # -inf: never the best
        return jnp.where(jnp.isfinite(elbo), elbo, -jnp.inf).astype(state.best_elbo.dtype)

    elbo = jax.lax.cond(search.moved, measure, lambda: jnp.full_like(state.best_elbo, -jnp.inf))
    better = elbo > state.best_elbo
    best: Any = select(better, q, state.best)
    best_elbo = jnp.maximum(elbo, state.best_elbo)
    done = (search.gain < tolerance) | search.stuck
    return State(search, best, best_elbo), MethodInfo(best_elbo, search.evaluations, done)


def gaussian_at(search: lbfgs.State, hessian: lbfgs.InverseHessian) -> FactoredNormal:
    """N(u + H grad log p, H) at an iterate (Zhang et al. 2022, alg. 4)."""
    scale = jnp.sqrt(hessian.diagonal)
    basis, r = linalg.qr((hessian.rows / scale).T)  # [D, R], [R, 2J]
    factor = linalg.cholesky(jnp.eye(r.shape[0], dtype=scale.dtype) + r @ hessian.middle @ r.T)
    return FactoredNormal(search.u + search.direction, scale, basis, factor)
