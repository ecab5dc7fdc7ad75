"""Laplace's approximation: a Gaussian at the mode."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax import linalg
from vi_jax.optimise import lbfgs
from vi_jax.types import Array, LogDensity, Method, MethodInfo

_SEARCH_TOLERANCE = 1e-3  # nats that a step of the search may gain where Newton takes over
_MAX_STEP = 3.0  # of a Newton step, in posterior standard deviations


class State(NamedTuple):
    """The L-BFGS search, then N(mean, root root') from Newton's steps."""

    search: lbfgs.State
    phase: Array  # int32: 0 the search, 1 Newton's steps, 2 the curvature is not that of a maximum
    mean: Array  # [D]
    root: Array  # [D, D]; nan where there is no Gaussian
    evaluations: Array  # int32


class Rules(NamedTuple):
    """The numbers of `laplace`."""

    memory: int
    tolerance: float


def laplace(*, memory: int = 10, tolerance: float = 1e-8, num_steps: int = 1000) -> Method:
    """N(u*, (-H)^-1), H the Hessian of the log density at its mode u* (Tierney & Kadane 1986;
    Bishop 2006, sec. 4.4).

    L-BFGS searches; Newton's steps u' = u + (-H)^-1 grad with the whole Hessian finish, where the
    estimate of the curvature by L-BFGS would be off. Where -H is not positive definite there is
    no such Gaussian, and none is made up: value and covariance are nan and `done` stays False,
    which `vi.fit` raises as an error (the density has no maximum there: a funnel, a ridge, a flat
    prior).

    Args:
      memory: pairs that L-BFGS keeps.
      tolerance: stop when a Newton step expects to gain less than this, nats; or less than the
        rounding of the log density.
      num_steps: at most, of both kinds.

    Returns:
      A Method for D of up to some hundreds. Its `value` is log p(u) during the search, then
      Laplace's estimate of the evidence, log p(u) + D/2 log 2 pi - 1/2 log det(-H). A Hessian
      counts 2 D evaluations.
    """
    rules = Rules(memory, tolerance)
    return Method(
        "laplace", partial(_init, rules=rules), partial(_step, rules=rules), _guide, num_steps
    )


def _init(key: Array, log_density: LogDensity, start: Array, rules: Rules) -> State:
    del key, log_density
    root = jnp.full((start.size, start.size), jnp.nan, start.dtype)
    return State(lbfgs.start(start, memory=rules.memory), jnp.int32(0), start, root, jnp.int32(0))


def _search(log_density: LogDensity, state: State) -> tuple[State, MethodInfo]:
    new, _ = lbfgs.advance(log_density, state.search)
    at_top = (new.gain < _SEARCH_TOLERANCE) | new.stuck
    state = state._replace(search=new, phase=jnp.where(at_top, 1, 0).astype(jnp.int32), mean=new.u)
    state = state._replace(evaluations=state.evaluations + 1)
    return state, MethodInfo(new.value, state.evaluations, jnp.bool_(False))


def _polish(log_density: LogDensity, state: State, rules: Rules) -> tuple[State, MethodInfo]:
    u = state.mean

    def slope_and_more(u: Array) -> tuple[Array, tuple[Array, Array]]:
        value, slope = jax.value_and_grad(log_density)(u)
        return slope, (value, slope)

    hessian, (value, slope) = jax.jacfwd(slope_and_more, has_aux=True)(u)
    precision = -0.5 * (hessian + hessian.T)
    factor = linalg.cholesky(precision)  # nan where it is not positive definite
    move = linalg.cho_solve((factor, True), slope)
    win = 0.5 * slope @ move
    good = jnp.isfinite(win)
    # Sigma = P^-1 = R R' with R = C'^-1, C C' = P; a triangular root of it for the density
    covariance = linalg.cho_solve((factor, True), jnp.eye(u.size, dtype=u.dtype))
    root = linalg.cholesky(0.5 * (covariance + covariance.T))
    evidence = value + 0.5 * u.size * jnp.log(2 * jnp.pi) - jnp.log(jnp.diagonal(factor)).sum()
    done = good & (win < rules.tolerance + 4 * jnp.finfo(u.dtype).eps * jnp.abs(value))
    # |move| in posterior sds
    step = jnp.minimum(1.0, _MAX_STEP / jnp.sqrt(jnp.maximum(2 * win, 1e-30)))
    new = state._replace(
        phase=jnp.where(good, 1, 2).astype(jnp.int32),
        mean=jnp.where(good, u + step * move, u),
        root=root,
        evaluations=state.evaluations + 2 * u.size,
    )
    return new, MethodInfo(
        jnp.where(good, evidence, jnp.nan).astype(u.dtype), new.evaluations, done
    )


def _rest(log_density: LogDensity, state: State) -> tuple[State, MethodInfo]:
    del log_density
    return state, MethodInfo(
        jnp.full((), jnp.nan, state.mean.dtype), state.evaluations, jnp.bool_(False)
    )


def _step(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    del key  # nothing is random
    branches = [
        lambda s: _search(log_density, s),
        lambda s: _polish(log_density, s, rules),
        lambda s: _rest(log_density, s),
    ]
    return jax.lax.switch(state.phase, branches, state)


def _guide(state: State) -> Any:
    return dist.MultivariateNormal(state.mean, scale_tril=state.root, validate_args=False)
