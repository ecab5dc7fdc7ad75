"""Gaussian Markov chains with information sites: Kalman filter and smoother, guides, and
conjugate-computation variational inference; states that switch between such chains.

    chain = chains.Chain(mean, cov, transition, noise)
    q = chains.gaussian_chain(chain, chains.Sites(h, J))  # a guide over [T, D]
    q.mean, q.variance, q.log_z, q.sample(key, (100,))
"""

from vi_jax.chains.cvi import Found, fit_sites
from vi_jax.chains.expectations import (
    Expected,
    by_closed_form,
    by_quadrature,
    expected_by_quadrature,
)
from vi_jax.chains.gaussian_chain import GaussianChain, gaussian_chain
from vi_jax.chains.kalman import (
    Chain,
    Gains,
    Sites,
    Smoothed,
    expected_log_sites,
    log_normalizer,
    no_sites,
    smooth,
)
from vi_jax.chains.learning import (
    ChainStats,
    EmissionStats,
    chain_of,
    chain_stats,
    emission_of,
    emission_stats,
)
from vi_jax.chains.linear_sites import Emission, predictors
from vi_jax.chains.parallel import smooth_in_chunks
from vi_jax.chains.states import StateChain, StateMoments
from vi_jax.chains.switching import (
    FoundStates,
    Regimes,
    expected_moves,
    expected_start,
    fit_states,
)
from vi_jax.chains.switching_guides import SwitchingGuide, SwitchingPrior
from vi_jax.chains.switching_learning import RegimeStats, regime_stats, regimes_of

__all__ = [
    "Chain",
    "ChainStats",
    "Emission",
    "EmissionStats",
    "Expected",
    "Found",
    "FoundStates",
    "Gains",
    "GaussianChain",
    "RegimeStats",
    "Regimes",
    "Sites",
    "Smoothed",
    "StateChain",
    "StateMoments",
    "SwitchingGuide",
    "SwitchingPrior",
    "by_closed_form",
    "by_quadrature",
    "chain_of",
    "chain_stats",
    "emission_of",
    "emission_stats",
    "expected_by_quadrature",
    "expected_log_sites",
    "expected_moves",
    "expected_start",
    "fit_sites",
    "fit_states",
    "gaussian_chain",
    "log_normalizer",
    "no_sites",
    "predictors",
    "regime_stats",
    "regimes_of",
    "smooth",
    "smooth_in_chunks",
]
