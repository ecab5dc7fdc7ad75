"""Expectation propagation for generalised linear models."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import linalg
from vi_jax.conjugate import factors
from vi_jax.conjugate.linear_regression import as_regression
from vi_jax.gaussian import HALF_LOG_TWO_PI
from vi_jax.types import Array, Params

LogLik = Callable[[Array, Array], Array]  # (a, y) -> log p(y | a = x'w) of one example, nats

_MIN_SHARE = 1e-6  # of a marginal's precision, which its cavity keeps


def logistic(a: Array, y: Array) -> Array:
    """log Bernoulli(y | sigma(a))."""
    return jax.nn.log_sigmoid(jnp.where(y > 0.5, a, -a))


def probit(a: Array, y: Array) -> Array:
    """log Bernoulli(y | Phi(a))."""
    return jax.scipy.special.log_ndtr(jnp.where(y > 0.5, a, -a))


class State(NamedTuple):
    """Sites exp(shift_n a - precision_n a^2 / 2) in place of p(y_n | a = x_n'w), and what they
    say.
    """

    shift: Array  # [N]
    precision: Array  # [N]
    natural: Params  # of q(w), as of `factors.vector_normal`
    log_evidence: Array  # nats, an estimate of log p(y); neither an upper nor a lower bound
    change: Array  # the largest move of a site in the last sweep, in standard deviations of its a
    num_sweeps: Array  # int32
    # int32, of the last sweep: sites whose precision would have been negative, and is 0
    sites_clipped: Array
    # int32, of the last sweep: cavities that rounding left without precision, at 1e-6 of the
    # marginal's
    cavities_clipped: Array


def init(x: Array, *, precision: float = 1.0) -> State:
    """Sites that say nothing: q is the prior N(0, I / precision)."""
    zeros = jnp.zeros(len(x), x.dtype)
    infinite = jnp.full((), jnp.inf, x.dtype)
    return State(
        zeros,
        zeros,
        _posterior(x, zeros, zeros, precision),
        -infinite,
        infinite,
        *[jnp.int32(0)] * 3,
    )


def step(
    log_lik: LogLik,
    x: Array,
    y: Array,
    state: State,
    *,
    precision: float = 1.0,
    damping: float = 0.5,
    num_nodes: int = 48,
) -> State:
    """One sweep over all sites at once (Minka 2001, sec. 3; Rasmussen & Williams 2006, sec. 3.6,
    for sites in x_n'w).

    With N(a | m, v) the marginal of a = x_n'w under q, the cavity has precision 1/v - tau_n and
    shift m/v - nu_n; the site becomes what makes cavity times site have the mean and the variance
    of cavity times p(y_n | a), by Gauss-Hermite quadrature.

    Where log_lik is concave in a, that site has a precision of 0 or more. Where it is not (heavy
    tails, several modes), an example that its cavity did not expect can make q wider than the
    cavity: a negative precision, which is right for that site but may leave the others without a
    cavity. It is held at 0 here, so that q and all cavities stay normal, and counted in
    `sites_clipped`: such a site has its shift alone, q is too narrow there, and `change` stays
    above 0 since its moments are not matched.

    Args:
      log_lik: (a, y) -> log p(y | a), best concave in a.
      x, y: data [N, D] and [N].
      state: of the sweep before.
      precision: of the prior N(0, I / precision).
      damping: share of the new site's natural parameters; 1 can oscillate.
      num_nodes: of the quadrature.
    """
    marginal, cavity, log_z, tilted = _tilt(log_lik, x, y, state, num_nodes)
    moved = (tilted[0] / tilted[1] - cavity["shift"], 1.0 / tilted[1] - cavity["precision"])
    shift = state.shift + damping * (moved[0] - state.shift)
    wanted = state.precision + damping * (moved[1] - state.precision)
    site_precision = jnp.maximum(wanted, 0.0)
    # by more than rounding
    below = jnp.sum(wanted < -(jnp.finfo(x.dtype).eps ** 0.5) * cavity["precision"])
    held = jnp.sum(marginal["precision"] - state.precision < _MIN_SHARE * marginal["precision"])
    sd = marginal["precision"] ** -0.5
    change = jnp.max(
        jnp.abs(tilted[0] - marginal["shift"] / marginal["precision"]) / sd
        + jnp.abs(jnp.sqrt(tilted[1]) / sd - 1.0)
    )
    # log Z = A(q) - A(prior) + sum_n log Z_n + A(cavity_n) - A(q_n), of the sites that came in
    # (Minka 2001, eq. 3.33, by A)
    prior = _posterior(x, jnp.zeros_like(state.shift), jnp.zeros_like(state.shift), precision)
    log_evidence = factors.vector_normal(state.natural) - factors.vector_normal(prior)
    log_evidence += jnp.sum(log_z) + factors.normal(cavity) - factors.normal(marginal)
    natural = _posterior(x, shift, site_precision, precision)
    counts = (state.num_sweeps + 1, below.astype(jnp.int32), held.astype(jnp.int32))
    return State(shift, site_precision, natural, log_evidence, change, *counts)


def _tilt(log_lik: LogLik, x: Array, y: Array, state: State, num_nodes: int) -> Any:
    """Marginals and cavities as naturals [N], log Z_n [N], means and variances of cavity times
    likelihood.
    """
    root = linalg.cholesky(state.natural["precision"])
    mean = linalg.cho_solve((root, True), state.natural["shift"])
    v = jnp.sum(linalg.solve_triangular(root, x.T, lower=True) ** 2, 0)
    v = jnp.maximum(v, jnp.finfo(x.dtype).tiny)
    marginal = {"shift": x @ mean / v, "precision": 1.0 / v}
    left = jnp.maximum(1.0 / v - state.precision, _MIN_SHARE / v)
    cavity = {"shift": marginal["shift"] - state.shift, "precision": left}
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    # [N, nodes]
    a = cavity["shift"][:, None] / left[:, None] + left[:, None] ** -0.5 * jnp.asarray(
        nodes, x.dtype
    )
    log_weights = jnp.asarray(np.log(weights) - HALF_LOG_TWO_PI, x.dtype)
    terms = log_weights + jax.vmap(jax.vmap(log_lik, (0, None)))(a, y)
    log_z = jax.nn.logsumexp(terms, 1)
    shares = jnp.exp(terms - log_z[:, None])
    tilted_mean = jnp.sum(shares * a, 1)
    return (
        marginal,
        cavity,
        log_z,
        (tilted_mean, jnp.sum(shares * (a - tilted_mean[:, None]) ** 2, 1)),
    )


def _posterior(x: Array, shift: Array, site_precision: Array, precision: float) -> Params:
    return {
        "shift": x.T @ shift,
        "precision": precision * jnp.eye(x.shape[1], dtype=x.dtype) + (x.T * site_precision) @ x,
    }


class Fit(NamedTuple):
    """Sites that no longer move; `state.sites_clipped` and `state.cavities_clipped` are 0 where
    every site is what it should be.
    """

    state: State
    converged: Array  # bool

    @property
    def log_evidence(self) -> Array:
        """Nats, an estimate of log p(y)."""
        return self.state.log_evidence

    @property
    def posterior(self) -> Any:
        """q(w), a numpyro MultivariateNormal."""
        return factors.as_vector_normal(self.state.natural)


def fit(
    x: Any,
    y: Any,
    log_lik: LogLik = logistic,
    *,
    precision: float = 1.0,
    damping: float = 0.5,
    num_nodes: int = 48,
    num_sweeps: int = 200,
    tolerance: float = 1e-4,
) -> Fit:
    """Sweeps, compiled, until no marginal is further than `tolerance` of a standard deviation from
    its tilted one: see `step`.

    Args:
      x, y: data [N, D] and [N]; a column of ones is an intercept.
      log_lik: `logistic`, `probit`, or any (a, y) -> log p(y | a).

    Returns:
      A Fit. Where log_lik is not concave, `fit.state.sites_clipped` may count sites whose precision
      is held at 0, see `step`: q is too narrow for these, and `converged` is False unless they miss
      their moments by less than `tolerance`.
    """
    x, y = as_regression(x, y)
    return Fit(*_fit(log_lik, precision, damping, num_nodes, num_sweeps, tolerance, x, y))


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def _fit(
    log_lik: LogLik,
    precision: float,
    damping: float,
    num_nodes: int,
    num_sweeps: int,
    tolerance: float,
    x: Array,
    y: Array,
) -> tuple[State, Array]:
    def unfinished(state: State) -> Array:
        return (state.num_sweeps < num_sweeps) & ~(state.change < tolerance)

    def sweep(state: State) -> State:
        return step(log_lik, x, y, state, precision=precision, damping=damping, num_nodes=num_nodes)

    state = jax.lax.while_loop(unfinished, sweep, init(x, precision=precision))
    return state, state.change < tolerance
