"""Switching linear dynamics: a chain of states, each with linear dynamics of its own, and the
structured mean-field posterior q(k) q(z) (Ghahramani & Hinton 2000; Zoltowski et al. 2020).

    z_1 ~ N(m, P),  z_(t+1) ~ N(A_k z_t + b_k, Q_k) with k = k_t, a Markov chain

Given q(k), the expected log density of a move is quadratic in (z_t, z_(t+1)): that of one linear
move at each step, times a site of z_t and one of z_(t+1), which are never negative in J. So q(z) is
a Gaussian chain with information sites, and each of the two factors is at its optimum given the
other in one pass.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.chains import kalman
from vi_jax.chains.expectations import Expected
from vi_jax.chains.gaussian_chain import Posterior, expected_log_prior
from vi_jax.chains.kalman import Chain, Sites, Smoothed, symmetric
from vi_jax.chains.linear_sites import (
    Emission,
    at_predictors,
    first_sites,
    frozen,
    rounding,
    sites_of,
)
from vi_jax.chains.states import StateChain, StateMoments
from vi_jax.gaussian import log_standard_normal
from vi_jax.types import Array, freeze, select

NUM_PASSES = 12


class Regimes(NamedTuple):
    """Linear dynamics of K states, and the chain of states."""

    log_start: Array  # log P(k_1), [K]
    log_transition: Array  # log P(k_(t+1) | k_t), [K, K]
    mean: Array  # of z_1, [D]
    cov: Array  # of z_1, [D, D]
    transition: Array  # A, [K, D, D]
    offset: Array  # b, [K, D]
    noise: Array  # Q, [K, D, D]


class FoundStates(NamedTuple):
    """A structured mean-field posterior; no gradient passes through it."""

    chain: Chain  # of which q(z) is the posterior, given its sites
    posterior: Posterior
    states: StateChain  # q(k)
    moments: StateMoments  # of it
    path_kl: Array  # E_q(k)[KL(q(z) || p(z | k))], nats
    elbo: Array  # after each pass, nats, [num_passes]: never lower than before, beyond rounding


class _Best(NamedTuple):
    """Sites of the likelihood, the states, and what they give."""

    sites: Sites
    target: Sites  # the fixed point's right-hand side there
    potentials: Array
    probs: Array  # of states, by these potentials
    moves: Array  # expected log densities of moves, the optimal potentials
    chain: Chain
    posterior: Posterior
    path_kl: Array  # with those probabilities, nats
    elbo: Array
    slack: Array  # its rounding, nats


def expected_moves(regimes: Regimes, of: Smoothed) -> Array:
    """E[log N(z_(t+1) | A_k z_t + b_k, Q_k)] of each step and state, nats, [T - 1, K]."""
    before = of.cov[:-1]

    def of_state(transition: Array, offset: Array, noise: Array) -> Array:
        moved = of.mean[1:] - of.mean[:-1] @ transition.T - offset
        across = jnp.einsum("ij,tjk->tik", transition, of.cross)
        within = jnp.einsum("ij,tjk,lk->til", transition, before, transition)
        second = of.cov[1:] + within - across - jnp.swapaxes(across, -1, -2)
        second = second + moved[..., None] * moved[..., None, :]
        factor = linalg.cholesky(noise)
        precision = linalg.cho_solve((factor, True), jnp.eye(len(noise), dtype=noise.dtype))
        log_det = jnp.log(jnp.diagonal(factor)).sum()
        normal = log_standard_normal(jnp.zeros(len(noise), noise.dtype)) - log_det
        return normal - 0.5 * jnp.einsum("tij,ij->t", second, precision)

    found = jax.vmap(of_state)(regimes.transition, regimes.offset, regimes.noise)
    return found.T


def expected_chain(regimes: Regimes, probs: Array) -> tuple[Chain, Sites, Array]:
    """The chain, the sites and the constant whose product is exp(E_q(k)[log p(z | k)]); of the
    constant its logarithm, nats.

    Args:
      regimes: the dynamics.
      probs: q(k_t), [T - 1, K].
    """
    size = regimes.mean.shape[-1]
    identity = jnp.eye(size, dtype=regimes.mean.dtype)
    factors = linalg.cholesky(regimes.noise)
    precision = jax.vmap(lambda factor: linalg.cho_solve((factor, True), identity))(factors)
    pulled = precision @ regimes.transition  # Q^-1 A
    within = jnp.swapaxes(regimes.transition, -1, -2) @ pulled  # A' Q^-1 A
    push = jnp.einsum("kij,kj->ki", precision, regimes.offset)
    pull = jnp.einsum("kij,ki->kj", pulled, regimes.offset)
    # 1. their means under q(k), of each step
    total = jnp.einsum("tk,kij->tij", probs, precision)
    through = jnp.einsum("tk,kij->tij", probs, pulled)
    noise = symmetric(linalg.solve(total, jnp.broadcast_to(identity, total.shape)))
    transition = noise @ through
    # 2. what is left over is a variance of A z_t over states: not negative
    rest = jnp.einsum("tk,kij->tij", probs, within)
    rest = symmetric(rest - jnp.swapaxes(through, -1, -2) @ transition)
    zero = jnp.zeros((1, size), rest.dtype)
    h = jnp.concatenate([zero, probs @ push]) - jnp.concatenate([probs @ pull, zero])
    J = jnp.concatenate([rest, jnp.zeros((1, size, size), rest.dtype)])
    # 3. what does not depend on z
    log_det = jnp.log(jnp.diagonal(factors, axis1=-2, axis2=-1)).sum(-1)
    of_state = log_det + 0.5 * jnp.einsum("ki,ki->k", push, regimes.offset)
    constant = -jnp.sum(probs @ of_state) - 0.5 * linalg.slogdet(total)[1].sum()
    return Chain(regimes.mean, regimes.cov, transition, noise), Sites(h, J), constant


def expected_start(regimes: Regimes, of: Smoothed) -> Array:
    """E[log N(z_1 | m, P)], nats."""
    alone = Smoothed(of.mean[:1], of.cov[:1], of.cross[:0], of.log_z)
    chain = Chain(regimes.mean, regimes.cov, regimes.transition[0], regimes.noise[0])
    return expected_log_prior(chain, alone)


def fit_states(
    regimes: Regimes,
    emission: Emission,
    expected: Callable[[Array, Array], Expected],
    observed: Array,
    *,
    num_passes: int = NUM_PASSES,
) -> FoundStates:
    """The structured mean-field posterior of one series, by coordinate ascent.

    A pass finds q(z) given q(k) and the sites of the likelihood, then q(k) given q(z), at its
    optimum. The step of the sites is halved, and the pass taken back, where the ELBO would fall.

    Args:
      regimes: the prior, of K states.
      emission, expected, observed: as of `cvi.fit_sites`; observed of T steps, at least 2.
      num_passes: at least 1.

    Raises:
      ValueError: num_passes is below 1, or there is one step.
    """
    num_steps = observed.shape[0]
    if num_passes < 1 or num_steps < 2:
        raise ValueError(
            f"fit_states expects at least one pass and two steps; got {num_passes} and {num_steps}."
        )
    (regimes, emission) = freeze((regimes, emission))
    expected = frozen(expected)

    def states_of(potentials: Array) -> StateChain:
        return StateChain(regimes.log_start, regimes.log_transition, potentials)

    def at(sites: Sites, potentials: Array) -> _Best:
        """q(z) given both; the ELBO is that with q(k) at its optimum after it."""
        probs = states_of(potentials).moments().probs
        chain, more, constant = expected_chain(regimes, probs)
        total = jax.tree.map(jnp.add, sites, more)
        smoothed, gains = kalman.smooth(chain, total)
        found = at_predictors(emission, expected, observed, smoothed)
        moves = expected_moves(regimes, smoothed)
        posterior = Posterior(total, smoothed, gains)
        # all but the sites of the likelihood cancels in log q(z) - E_q(k)[log p(z | k)]
        path_kl = kalman.expected_log_sites(sites, smoothed) - smoothed.log_z - constant
        kl = path_kl + jnp.sum(probs * moves) - states_of(moves).log_z  # of path and states
        log_lik = found.value.sum()
        elbo = jnp.minimum(log_lik - kl, log_lik)  # no KL is negative, whatever rounding says
        slack = rounding(log_lik, total, smoothed)
        target = sites_of(emission, found, smoothed)
        own = (potentials, probs, moves)
        return freeze(_Best(sites, target, *own, chain, posterior, path_kl, elbo, slack))

    def one(carry: tuple[_Best, Array], _: None) -> tuple[tuple[_Best, Array], Array]:
        (best, step) = carry
        sites = jax.tree.map(lambda a, b: a + step * (b - a), best.sites, best.target)
        potentials = best.potentials + step * (best.moves - best.potentials)
        new = at(sites, potentials)
        least = new.elbo - new.slack
        is_better = jnp.isfinite(least) & (least >= best.elbo - 2.0 * best.slack)
        best = select(is_better, new, best)
        return (best, jnp.where(is_better, jnp.minimum(2.0 * step, 1.0), 0.5 * step)), best.elbo

    flat = jnp.zeros((num_steps - 1, len(regimes.log_start)), regimes.mean.dtype)
    first = at(_first_sites(regimes, emission, expected, observed), flat)
    # any pass is better than one that is not finite
    first = _known(first)
    ones = jnp.ones((), regimes.mean.dtype)
    (best, _), elbos = jax.lax.scan(one, (first, ones), None, length=num_passes - 1)
    states = states_of(best.moves)
    moments = states.moments()
    path_kl = best.path_kl + jnp.sum((best.probs - moments.probs) * best.moves)
    elbos = jnp.concatenate([first.elbo[None], elbos])
    return FoundStates(best.chain, best.posterior, states, moments, path_kl, elbos)


def _known(best: _Best) -> _Best:
    """With an ELBO below all others where it is not finite."""
    is_finite = jnp.isfinite(best.elbo - best.slack)
    elbo = jnp.where(is_finite, best.elbo, -jnp.inf)
    return best._replace(elbo=elbo, slack=jnp.where(is_finite, best.slack, 0.0))


def _first_sites(
    regimes: Regimes,
    emission: Emission,
    expected: Callable[[Array, Array], Expected],
    observed: Array,
) -> Sites:
    """`first_sites` at the moments of z_1 at each step: those that dynamics give, which may not be
    stable, may grow beyond all numbers.
    """
    num_steps = observed.shape[0]
    (size,) = regimes.mean.shape
    moments = Smoothed(
        jnp.broadcast_to(regimes.mean, (num_steps, size)),
        jnp.broadcast_to(regimes.cov, (num_steps, size, size)),
        jnp.zeros((num_steps - 1, size, size), regimes.mean.dtype),
        jnp.zeros((), regimes.mean.dtype),
    )
    return first_sites(emission, expected, observed, moments)
