"""Gaussian score matching (GSM): full-rank Gaussians whose scores agree with the target's."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax import linalg
from vi_jax.optimise import lbfgs
from vi_jax.types import Array, LogDensity, Method, MethodInfo

_SEARCH_TOLERANCE = 1e-3  # nats that a step of the search may gain where matching takes over
_SCORE_TOLERANCE = 0.02  # squared length of the mean score in units of the covariance, per latent
_KL_TOLERANCE = 1e-6  # symmetrised KL of moves that have died out, nats


class State(NamedTuple):
    """The L-BFGS search for a start, then N(mean, covariance) and its average over late steps."""

    search: lbfgs.State
    searching: Array  # bool
    mean: Array  # [D]
    covariance: Array  # [D, D]
    mean_average: Array  # [D]
    covariance_average: Array  # [D, D]
    score: Array  # [D], of the mean scores, over late steps: 0 where the ELBO is highest
    step: Array  # int32, since the search
    late: Array  # int32, steps averaged
    drift: Array  # running mean of the moves' squared lengths, in units of the covariance
    evaluations: Array  # int32


class Rules(NamedTuple):
    """The numbers of `gsm`."""

    batch_size: int
    num_early_steps: int
    num_late_steps: int
    memory: int
    num_steps: int


def gsm(
    *,
    batch_size: int = 8,
    num_early_steps: int = 200,
    num_late_steps: int = 200,
    memory: int = 6,
    num_steps: int = 1000,
) -> Method:
    """Full-rank N(mu, Sigma) by matching scores (Modi et al. 2023).

    At a sample z with score g = grad log p(z) the Gaussian nearest in KL to the current one whose
    score at z is g has, with e = Sigma g - mu + z, a = (mu - z)'g and rho (1 + rho) = g'Sigma g +
    a^2,
        mu' = mu + (e - (mu - z) (g'e) / (1 + rho + a)) / (1 + rho),
        Sigma' = Sigma + (mu - z)(mu - z)' - (mu' - z)(mu' - z)';
    a step takes the average of these moves over B samples. No step size; on a Gaussian target the
    moves die out by themselves.

    Where it is not Gaussian they never do: the paper stops anywhere, here the means and covariances
    of late steps are averaged.

    Args:
      batch_size: B, gradient evaluations a step.
      num_early_steps: steps before those that are averaged; fewer where the moves have died out.
      num_late_steps: averaged.
      memory: pairs of the L-BFGS search that gives the start.
      num_steps: at most, with those of the search; where they end before all late ones are done, it
        did not converge.

    Returns:
      A Method for D of up to some hundreds, O(D^3) a step. Its `value` is log p during the search,
      then an estimate of the ELBO from the same samples; a step whose covariance is not positive
      definite is skipped, with value nan.
    """
    rules = Rules(batch_size, num_early_steps, num_late_steps, memory, num_steps)
    return Method(
        "gsm", partial(_init, rules=rules), partial(_step, rules=rules), _guide, num_steps
    )


def _init(key: Array, log_density: LogDensity, start: Array, rules: Rules) -> State:
    del key, log_density
    eye = jnp.eye(start.size, dtype=start.dtype)
    zero = jnp.int32(0)
    infinite = jnp.full((), jnp.inf, start.dtype)
    search = lbfgs.start(start, memory=rules.memory)
    return State(
        search,
        jnp.bool_(True),
        start,
        eye,
        start,
        eye,
        jnp.zeros_like(start),
        zero,
        zero,
        infinite,
        zero,
    )


def _ascend(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    del key
    search, hessian = lbfgs.advance(log_density, state.search)
    covariance = jnp.diag(hessian.diagonal) + hessian.rows.T @ hessian.middle @ hessian.rows
    good = jnp.all(jnp.isfinite(linalg.cholesky(covariance)))
    new = state._replace(
        search=search,
        searching=(search.gain > _SEARCH_TOLERANCE)
        & ~search.stuck
        & (search.evaluations < rules.num_steps // 2),
        mean=search.u,
        covariance=jnp.where(good, 0.5 * (covariance + covariance.T), state.covariance),
        evaluations=state.evaluations + 1,
    )
    return new, MethodInfo(search.value, new.evaluations, jnp.bool_(False))


def _match(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    mean = state.mean
    covariance = state.covariance
    root = linalg.cholesky(covariance)
    eps = jax.random.normal(key, (rules.batch_size, mean.size), mean.dtype)
    z = mean + eps @ root.T
    log_p, scores = jax.vmap(jax.value_and_grad(log_density))(z)
    shifts, changes = jax.vmap(lambda z, g: move(z, g, mean, covariance))(z, scores)
    shift = shifts.mean(0)
    change = changes.mean(0)
    new_covariance = covariance + 0.5 * (change + change.T)
    good = jnp.all(jnp.isfinite(linalg.cholesky(new_covariance))) & jnp.all(jnp.isfinite(shift))
    length = _squared_length(root, shift, change)
    drift = jnp.where(jnp.isfinite(state.drift), 0.9 * state.drift + 0.1 * length, length)

    counted = good & (
        (state.late > 0) | (state.step >= rules.num_early_steps) | (drift < _KL_TOLERANCE)
    )
    late = state.late + counted
    share = jnp.where(counted, 1 / jnp.maximum(late, 1), 0.0).astype(mean.dtype)
    mean = jnp.where(good, mean + shift, mean)
    covariance = jnp.where(good, new_covariance, covariance)
    mean_average = jnp.where(
        late > 0, state.mean_average + share * (mean - state.mean_average), mean
    )
    covariance_average = jnp.where(
        late > 0,
        state.covariance_average + share * (covariance - state.covariance_average),
        covariance,
    )
    score = state.score + share * (jnp.where(good, scores.mean(0), 0.0) - state.score)
    # else the late steps begin again
    near = score @ (covariance @ score) < _SCORE_TOLERANCE * mean.size
    ended = late >= rules.num_late_steps
    late = jnp.where(ended & ~near, 0, late)
    evaluations = state.evaluations + rules.batch_size
    new = State(
        state.search,
        state.searching,
        mean,
        covariance,
        mean_average,
        covariance_average,
        score,
        state.step + 1,
        late,
        jnp.where(good, drift, state.drift),
        evaluations,
    )
    value = jnp.where(good, jnp.mean(log_p - _log_q(eps, root)), jnp.nan)
    done = (ended & near) | ((late > 1) & (drift < _KL_TOLERANCE))
    return new, MethodInfo(value.astype(mean.dtype), evaluations, done)


def _squared_length(root: Array, shift: Array, change: Array) -> Array:
    """Of a move, in units of the covariance: its symmetrised KL, for small moves."""
    inside = linalg.solve_triangular(root, shift, lower=True)
    half = linalg.solve_triangular(root, change, lower=True)
    rotated = linalg.solve_triangular(root, half.T, lower=True)
    return inside @ inside + 0.5 * jnp.sum(rotated**2)


def _log_q(eps: Array, root: Array) -> Array:
    """log N(m + L eps | m, L L') [K], nats."""
    half_log_det = jnp.log(jnp.diagonal(root)).sum()
    return -0.5 * jnp.sum(eps**2, 1) - half_log_det - 0.5 * len(root) * jnp.log(2 * jnp.pi)


def _step(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    return jax.lax.cond(
        state.searching,
        lambda key, s: _ascend(key, log_density, s, rules),
        lambda key, s: _match(key, log_density, s, rules),
        key,
        state,
    )


def _guide(state: State) -> Any:
    mean = jnp.where(state.late > 0, state.mean_average, state.mean)
    covariance = jnp.where(state.late > 0, state.covariance_average, state.covariance)
    root = linalg.cholesky(covariance)
    return dist.MultivariateNormal(mean, scale_tril=root, validate_args=False)


def move(z: Array, g: Array, mean: Array, covariance: Array) -> tuple[Array, Array]:
    """mu' - mu [D] and Sigma' - Sigma [D, D] of one sample z and its score g (Modi et al. 2023)."""
    away = mean - z
    sigma_g = covariance @ g
    a = away @ g
    rho = 0.5 * jnp.sqrt(1 + 4 * (g @ sigma_g + a**2)) - 0.5
    e = sigma_g - away
    shift = (e - away * (g @ e) / (1 + rho + a)) / (1 + rho)
    return shift, jnp.outer(away, away) - jnp.outer(away + shift, away + shift)
