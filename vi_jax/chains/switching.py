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
from vi_jax.chains import kalman, passes, small
from vi_jax.chains.expectations import Expected
from vi_jax.chains.gaussian_chain import Posterior, expected_log_prior
from vi_jax.chains.kalman import Chain, Sites, Smoothed
from vi_jax.chains.linear_sites import Emission, at_predictors, frozen, rounding, sites_of
from vi_jax.chains.small import symmetric
from vi_jax.chains.states import StateChain, StateMoments
from vi_jax.gaussian import log_standard_normal
from vi_jax.types import Array, freeze

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
    elbo: Array  # nats, []
    # of the last pass that was taken, nats beyond rounding; above 0.01 it has not converged
    gain: Array


class _Naturals(NamedTuple):
    """What the posterior is given by."""

    sites: Sites  # of the likelihood
    potentials: Array  # of the states, [T - 1, K]


class _Result(NamedTuple):
    """The posterior at them."""

    chain: Chain
    posterior: Posterior
    probs: Array  # of states, by the potentials
    moves: Array  # expected log densities of moves, the optimal potentials
    path_kl: Array  # with those probabilities, nats


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
    (inverse, log_det_total) = jax.vmap(small.solve, (0, None))(total, identity)
    noise = symmetric(inverse)
    transition = small.product(noise, through)
    # 2. what is left over is a variance of A z_t over states: not negative
    rest = jnp.einsum("tk,kij->tij", probs, within)
    rest = symmetric(rest - small.product(jnp.swapaxes(through, -1, -2), transition))
    zero = jnp.zeros((1, size), rest.dtype)
    h = jnp.concatenate([zero, probs @ push]) - jnp.concatenate([probs @ pull, zero])
    J = jnp.concatenate([rest, jnp.zeros((1, size, size), rest.dtype)])
    # 3. what does not depend on z
    log_det = jnp.log(jnp.diagonal(factors, axis1=-2, axis2=-1)).sum(-1)
    of_state = log_det + 0.5 * jnp.einsum("ki,ki->k", push, regimes.offset)
    constant = -jnp.sum(probs @ of_state) - 0.5 * log_det_total.sum()
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
    optimum. Passes are taken, taken back, begun anew and gone on with as those of `cvi.fit_sites`.

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

    def try_at(naturals: _Naturals) -> passes.Tried:
        """q(z) given both; the ELBO is that with q(k) at its optimum after it."""
        (sites, potentials) = naturals
        probs = states_of(potentials).moments().probs
        chain, more, constant = expected_chain(regimes, probs)
        total = jax.tree.map(jnp.add, sites, more)
        smoothed, gains = kalman.smooth(chain, total)
        found = at_predictors(emission, expected, observed, smoothed)
        moves = expected_moves(regimes, smoothed)
        # all but the sites of the likelihood cancels in log q(z) - E_q(k)[log p(z | k)]
        path_kl = kalman.expected_log_sites(sites, smoothed) - smoothed.log_z - constant
        kl = path_kl + jnp.sum(probs * moves) - states_of(moves).log_z  # of path and states
        log_lik = found.value.sum()
        elbo = jnp.minimum(log_lik - kl, log_lik)  # no KL is negative, whatever rounding says
        target = _Naturals(sites_of(emission, found, smoothed), moves)
        result = _Result(chain, Posterior(total, smoothed, gains), probs, moves, path_kl)
        slack = rounding(log_lik, total, smoothed)
        return freeze(passes.Tried(naturals, target, result, elbo, slack))

    starts = _starts(regimes, emission, expected, observed)
    (best, gain) = passes.ascend(try_at, starts, num_passes)
    found: _Result = best.result
    states = states_of(found.moves)
    moments = states.moments()
    path_kl = found.path_kl + jnp.sum((found.probs - moments.probs) * found.moves)
    return FoundStates(found.chain, found.posterior, states, moments, path_kl, best.elbo, gain)


def _starts(
    regimes: Regimes,
    emission: Emission,
    expected: Callable[[Array, Array], Expected],
    observed: Array,
) -> passes.Starts:
    """Sites at the moments of z_1 at each step, since those that dynamics give, which may not be
    stable, may grow beyond all numbers; and states by their prior.
    """
    num_steps = observed.shape[0]
    (size,) = regimes.mean.shape
    moments = Smoothed(
        jnp.broadcast_to(regimes.mean, (num_steps, size)),
        jnp.broadcast_to(regimes.cov, (num_steps, size, size)),
        jnp.zeros((num_steps - 1, size, size), regimes.mean.dtype),
        jnp.zeros((), regimes.mean.dtype),
    )
    first = sites_of(emission, at_predictors(emission, expected, observed, moments), moments)
    starts = passes.starts_of(emission, expected, observed, first)
    flat = jnp.zeros((num_steps - 1, len(regimes.log_start)), regimes.mean.dtype)

    def at_modes(asked: Array, naturals: _Naturals) -> _Naturals:
        sites = starts.at_modes_where(asked, naturals.sites)
        return _Naturals(sites, jnp.where(asked, flat, naturals.potentials))

    narrow = _Naturals(starts.narrow, flat)
    return passes.Starts(_Naturals(first, flat), starts.lowest, narrow, at_modes)
