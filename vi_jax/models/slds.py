"""The switching linear dynamical system: linear dynamics that change with a hidden state."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import chains
from vi_jax.attributes import declare
from vi_jax.chains import (
    Emission,
    FoundStates,
    GaussianChain,
    Regimes,
    StateChain,
    SwitchingGuide,
    SwitchingPrior,
)
from vi_jax.models import _linear_chain
from vi_jax.models._columns import COUNTS, Column
from vi_jax.models._linear_start import Start, start_of
from vi_jax.models._switching_start import Moves, moves_from, random_moves
from vi_jax.models._trials import Trial, TrialDistribution
from vi_jax.models.likelihoods import Likelihood
from vi_jax.models.poisson_lds import covariance, factor_of
from vi_jax.types import Array, Densities, Model, Params, Terms, freeze

NAME = "slds"
NUM_PASSES = 12
STAY = 0.95  # probability of a state to last, at the start
START_NOISE = 0.05  # variance


def slds(
    columns: Sequence[Column],
    *,
    num_latents: int,
    num_states: int,
    likelihood: Likelihood | None = None,
    num_passes: int = NUM_PASSES,
    forget: float | None = None,
    trials: Mapping[str, np.ndarray] | None = None,
    max_steps: int | None = None,
) -> Model:
    """z_(t+1) ~ N(A_k z_t + b_k, Q_k) with k = k_t a Markov chain of K states, x_tn ~ p(x | c_n'
    z_t + d_n) (Ghahramani & Hinton 2000; of spike counts Petreska et al. 2011).

    Examples, masks and the emission are those of `poisson_lds`. The guide is no network: the best
    q(path) q(states) by coordinate ascent (structured mean field), the path a Gaussian chain by
    conjugate-computation variational inference given the states' probabilities, the states a chain
    by forward and backward messages given the path's moments, `num_passes` of each, and more until
    they converge (`chains.fit_states`). The ELBO is in closed form and never falls from pass to
    pass. Importance weights sum the states out.

    Args:
      columns, likelihood, trials, max_steps: as of `poisson_lds`.
      num_latents: D.
      num_states: K. Where they start depends on the key: run several, and take the best ELBO.
      num_passes: of coordinate ascent, at least.
      forget: as of `poisson_lds`; states, dynamics and emission are then learned in closed form.

    Returns:
      A Model over z = {"path": [T, D], "states": [T - 1]} of parameters {"states": {"start",
      "moves"} (log-probabilities up to constants), "dynamics": {"mean", "cov", "transition" [K, D,
      D], "offset" [K, D], "noise"}, "loadings", "offset", "likelihood"}, and "running" with
      `forget`.

    Raises:
      ValueError: a size is not positive, or as of `poisson_lds`; when traced, a trial of one step.
    """
    _linear_chain.require_sizes(NAME, num_latents, num_passes, 0, forget)
    if num_states < 1:
        raise ValueError(f"{NAME} expects num_states of at least 1; got {num_states}.")
    chosen = likelihood or _linear_chain.likelihood_of(columns, NAME)
    start = start_of(columns, num_latents, chosen, trials)
    is_count = np.array([column.kind in COUNTS for column in columns])
    parts = _linear_chain.Parts(
        NAME,
        len(columns),
        _linear_chain.require_one_output(chosen, NAME),
        _no_single_chain,
        lambda params: Emission(params["loadings"], params["offset"]),
        partial(_init, num_states, num_latents, start, is_count, trials),
        num_passes,
        0,
        max_steps,
        _learn_regimes,
        forget,
    )
    return _make_model(parts)


def regimes_of(params: Params) -> Regimes:
    """The dynamics and the chain of states of a model's parameters."""
    dynamics = params["dynamics"]
    return Regimes(
        jax.nn.log_softmax(params["states"]["start"]),
        jax.nn.log_softmax(params["states"]["moves"], axis=-1),
        dynamics["mean"],
        covariance(dynamics["cov"]),
        dynamics["transition"],
        dynamics["offset"],
        jax.vmap(covariance)(dynamics["noise"]),
    )


def _no_single_chain(params: Params) -> Any:
    raise TypeError(f"{NAME} has no single chain.")


def _make_model(parts: _linear_chain.Parts) -> Model:
    terms = partial(_terms, parts)

    def init(key: Array) -> Params:
        params = {**parts.init(key), "likelihood": parts.likelihood.init((parts.num_units,))}
        if parts.forget is None:
            return params
        return {**params, **_linear_chain.no_running(parts, params, terms)}

    def guide(params: Params, x: Trial) -> SwitchingGuide:
        return _guide(_posterior(parts, params, x))

    def prior(params: Params, x: Trial | None) -> SwitchingPrior:
        return _prior(params, _linear_chain.steps_of(parts, x))

    def decode(params: Params, x: Trial | None, z: Any) -> TrialDistribution:
        return _linear_chain.decode_path(parts, params, x, z["path"])

    def log_lik(params: Params, x: Trial, z: Any) -> Array:
        return decode(params, x, z).log_prob(x)

    def generate(key: Array, params: Params, x: Trial) -> TrialDistribution:
        return decode(params, x, prior(params, x).sample(key))

    def predict(params: Params, x: Trial) -> Array:
        return _linear_chain.predict_from(parts, params, guide(params, x).path.moments)

    def log_weight(params: Params, x: Trial, q: SwitchingGuide, z: Any) -> Array:
        log_p = log_lik(params, x, z) + prior(params, x).log_path(z["path"])
        return log_p - q.path.log_prob(z["path"])

    densities = Densities(guide, prior, decode, log_lik, predict=predict, log_weight=log_weight)
    update = None
    if parts.forget is not None:
        update = declare(m_step=True)(partial(_linear_chain.update_by_stats, parts))
    return Model(init, terms, generate, densities, None, update)


def _posterior(parts: _linear_chain.Parts, params: Params, x: Trial) -> FoundStates:
    """The structured posterior of one trial; no gradient passes through it."""
    _linear_chain.require_trial(parts, x)
    params = freeze(params)
    return chains.fit_states(
        regimes_of(params),
        parts.emission(params),
        _linear_chain.derivatives(parts, params, x),
        x["observed"],
        num_passes=parts.num_passes,
    )


def _guide(found: FoundStates) -> SwitchingGuide:
    num_steps = found.posterior.smoothed.mean.shape[0]
    path = GaussianChain(found.chain, num_steps, found.posterior)
    return SwitchingGuide(path, found.states, found.gain)


def _prior(params: Params, num_steps: int) -> SwitchingPrior:
    regimes = regimes_of(params)
    potentials = jnp.zeros((num_steps - 1, len(regimes.log_start)), regimes.mean.dtype)
    return SwitchingPrior(
        regimes, StateChain(regimes.log_start, regimes.log_transition, potentials)
    )


def _terms(parts: _linear_chain.Parts, key: Array | None, params: Params, x: Trial) -> Terms:
    """E_q[log p(x | path)] and the KLs of states and path, without a draw; their gradient is that
    at the posterior as it is, which at the fixed point is all of it (the envelope theorem).
    """
    del key
    found = _posterior(parts, params, x)
    smoothed = found.posterior.smoothed
    regimes = regimes_of(params)
    mean, variance = chains.predictors(parts.emission(params), smoothed)
    expected = _linear_chain.expected_log_lik(parts, params, x)(mean, variance)
    log_lik = jnp.where(x["observed"], expected, 0.0).sum()
    # E_q(k)[KL(q(z) || p(z | k))]
    moves = chains.expected_moves(regimes, smoothed)
    log_p = chains.expected_start(regimes, smoothed) + jnp.sum(found.moments.probs * moves)
    path = freeze(found.path_kl) - (log_p - freeze(log_p))  # the gradient is that of -log_p
    # KL(q(k) || p(k)): E_q[potentials] - log Z, and the prior's own probabilities
    states = _kl_of_states(found, regimes)
    stats: Any = ()
    if parts.forget is not None:
        of_regimes = chains.regime_stats(found.moments, smoothed)
        stats = _linear_chain.stats_of(parts, params, x, smoothed, of_regimes)
    return Terms(log_lik, {"path": path, "states": states}, stats=stats)


def _kl_of_states(found: FoundStates, regimes: Regimes) -> Array:
    """KL(q(k) || p(k)) where q is a chain of the same form at other, frozen, numbers; nats."""
    (probs, moves, log_z) = freeze(found.moments)
    own = freeze(found.states)
    start = probs[0] * (own.log_start - regimes.log_start)
    moved = moves * (own.log_transition - regimes.log_transition)
    return start.sum() + moved.sum() + jnp.sum(probs * own.potentials) - log_z


def _learn_regimes(params: Params, stats: chains.RegimeStats) -> Params:
    """The parameters with states and dynamics at the optimum of mean statistics."""
    found = chains.regimes_of(stats, regimes_of(params))
    dynamics = {
        "mean": found.mean,
        "cov": factor_of(found.cov),
        "transition": found.transition,
        "offset": found.offset,
        "noise": jax.vmap(factor_of)(found.noise),
    }
    states = {"start": found.log_start, "moves": found.log_transition}
    return {**params, "dynamics": dynamics, "states": states}


def _init(
    num_states: int,
    num_latents: int,
    start: Start,
    is_count: np.ndarray,
    trials: Mapping[str, np.ndarray] | None,
    key: Array,
) -> Params:
    (key_start, key_moves) = jax.random.split(key)
    emission = start(key_start)
    moves: Moves
    if trials is None or np.asarray(trials["values"]).shape[1] < 3:
        moves = random_moves(key_moves, num_states, num_latents)
    else:
        moves = moves_from(key_moves, trials, emission["loadings"], is_count, num_states)
    lower = jnp.zeros(math.comb(num_latents, 2))
    log_diag = jnp.zeros(num_latents)
    leave = (1.0 - STAY) / max(num_states - 1, 1)
    stay = np.where(np.eye(num_states, dtype=bool), STAY, leave)
    scale = 0.5 * math.log(START_NOISE)
    return {
        "states": {"start": jnp.zeros(num_states), "moves": jnp.asarray(np.log(stay), jnp.float32)},
        "dynamics": {
            "mean": jnp.zeros(num_latents),
            "cov": {"log_diag": log_diag, "lower": lower},
            "transition": moves.transition,
            "offset": moves.offset,
            "noise": {
                "log_diag": jnp.full((num_states, num_latents), scale, log_diag.dtype),
                "lower": jnp.zeros((num_states, len(lower))),
            },
        },
        **emission,
    }
