"""Conjugate-computation variational inference for a Gaussian chain seen through linear predictors
(Khan & Lin 2017, eq. 8-10).

Observations y_tn meet z_t only by eta_tn = c_n' z_t + d_n. The optimal Gaussian q has one site for
each step, of N numbers E_q[l'] and E_q[l''], so that the fixed point

    J_t = sum_n -E[l''_tn] c_n c_n',    h_t = sum_n E[l'_tn] c_n + J_t E[z_t]

is a natural-gradient step of length 1. A Gaussian likelihood is exact after one pass; a Poisson one
gains a digit or so a pass. Nothing is kept from one call to the next.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from vi_jax.chains import kalman, passes
from vi_jax.chains.expectations import Expected
from vi_jax.chains.gaussian_chain import Posterior, prior_moments
from vi_jax.chains.kalman import Chain, Gains, Sites, Smoothed
from vi_jax.chains.linear_sites import Emission, at_predictors, frozen, rounding, sites_of
from vi_jax.types import Array, freeze

NUM_PASSES = 6


class Found(NamedTuple):
    """The posterior that was found; no gradient passes through it."""

    posterior: Posterior
    elbo: Array  # nats, []
    # of the last pass that was taken, nats beyond rounding; above 0.01 it has not converged
    gain: Array


def fit_sites(
    chain: Chain,
    emission: Emission,
    expected: Callable[[Array, Array], Expected],
    observed: Array,
    *,
    num_passes: int = NUM_PASSES,
    smooth: Callable[[Chain, Sites], tuple[Smoothed, Gains]] = kalman.smooth,
) -> Found:
    """The optimal Gaussian posterior of one series, by passes of the fixed point.

    The first sites are those of the prior's own moments. A pass that lowers the ELBO is taken back,
    and half the step tried instead; after one that does not, the step is doubled, up to 1. Beyond
    num_passes there are more, up to 60, while the last one gained more than 0.01 nats
    beyond rounding.

    Of counts that are large, or a prior that is wide, the first pass may end far above all rates,
    from where each further one comes down by a factor of e only. Where it is worse than z = 0 is,
    the passes start at sites that hold z near 0, and at modes of each observation, whichever is
    better.

    Args:
      chain: the prior.
      emission: of N observations a step.
      expected: mean and variance of eta [T, N] -> E[log p(y | eta)] and its derivatives, each
        [T, N]; finite where nothing is observed, too. A likelihood that is not log-concave has its
        negative curvatures taken as 0.
      observed: which of them count, bool [T, N].
      num_passes: passes of the smoother, at least 1.
      smooth: the smoother.

    Returns:
      The best sites of all passes, with their moments and ELBO. Gradients with respect to the model
      are those at fixed sites (the envelope theorem): none passes through here.

    Raises:
      ValueError: num_passes is below 1.
    """
    if num_passes < 1:
        raise ValueError(f"fit_sites expects at least one pass; got {num_passes}.")
    (chain, emission) = freeze((chain, emission))
    expected = frozen(expected)

    def try_at(sites: Sites) -> passes.Tried:
        smoothed, gains = smooth(chain, sites)
        found = at_predictors(emission, expected, observed, smoothed)
        log_lik = found.value.sum()
        elbo = log_lik - kalman.expected_log_sites(sites, smoothed) + smoothed.log_z
        elbo = jnp.minimum(elbo, log_lik)  # no KL is negative, whatever rounding says
        target = sites_of(emission, found, smoothed)
        slack = rounding(log_lik, sites, smoothed)
        return passes.Tried(sites, target, (smoothed, gains), elbo, slack)

    moments = prior_moments(chain, observed.shape[0])
    usual = sites_of(emission, at_predictors(emission, expected, observed, moments), moments)
    starts = passes.starts_of(emission, expected, observed, usual)
    (best, gain) = passes.ascend(try_at, starts, num_passes)
    return Found(Posterior(best.naturals, *best.result), best.elbo, gain)
