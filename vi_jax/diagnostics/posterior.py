"""Can this guide be trusted: importance weights of a guide against its log density."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.diagnostics.psis import effective_draws, k_threshold, psis
from vi_jax.types import Array, LogDensity

NEARLY_EQUAL = 0.9  # share of effective samples above which the tail of the weights does not matter
MIN_SHARE = 0.1  # share of effective samples below which weights are not trusted
CHUNK = 32  # draws evaluated at a time: a likelihood over a million rows stays in memory


class WeightedSamples(NamedTuple):
    """Samples of a guide with their weights."""

    u: Array  # [S, D]
    log_weights: Array  # [S], Pareto-smoothed and normalised
    elbo: Array  # nats
    elbo_stderr: Array
    log_evidence: Array  # nats, log mean weight; where k_hat is good
    log_evidence_stderr: Array
    k_hat: Array
    effective: Array  # importance-sampling effective sample size
    num_bad: Array  # draws at which the log density is not a number, of weight 0


def importance_sample(
    key: Array, log_density: LogDensity, q: Any, *, num_draws: int
) -> WeightedSamples:
    """S samples of a guide over u, their Pareto-smoothed weights, and what those say (Yao et al.
    2018; Vehtari et al. 2024).

    Args:
      key: one typed PRNG key.
      log_density: u [D] -> nats.
      q: a guide over u.
      num_draws: S, at least 25; the log density is evaluated at each, without gradients.
    """
    u = q.sample(key, (num_draws,))
    return weight_samples(u, jax.lax.map(log_density, u, batch_size=min(CHUNK, num_draws)), q)


def weight_samples(u: Array, log_p: Array, q: Any) -> WeightedSamples:
    """`importance_sample` for samples u [S, D] of q where log p(x, u) is known, [S] nats, or exp of
    it without bias.
    """
    num_draws = len(u)
    log_w = log_p - jax.vmap(q.log_prob)(u)
    bad = jnp.isnan(log_w)
    log_w = jnp.where(bad, -jnp.inf, log_w)
    smoothed = psis(log_w)
    top = jnp.max(log_w)
    w = jnp.exp(log_w - top)
    relative = jnp.std(w) / jnp.mean(w) / math.sqrt(num_draws)
    return WeightedSamples(
        u,
        smoothed.log_weights,
        jnp.mean(log_w),
        jnp.std(log_w) / math.sqrt(num_draws),
        top + jnp.log(jnp.mean(w)),
        relative,
        smoothed.k_hat,
        effective_draws(smoothed.log_weights),
        bad.sum(),
    )


def trusted(k_hat: float, effective: float, num_draws: int) -> bool:
    """Whether moments by the smoothed weights can be trusted; see `verdict`."""
    share = effective / num_draws
    return share > NEARLY_EQUAL or (k_hat < k_threshold(num_draws) and share >= MIN_SHARE)


def verdict(
    k_hat: float,
    effective: float,
    num_draws: int,
    *,
    converged: bool,
    richer: str = "take a richer family (vi.methods.flow)",
    mcmc: str = "run MCMC",
) -> tuple[str, str]:
    """A plain word on a fit ('reliable', 'corrected only', 'not reliable', 'not converged'), and
    the next step to take.

    k-hat has to be under min(1 - 1/log10 S, 0.7) for moments by smoothed weights, and under 0.5 for
    the samples of the guide themselves to be near (Vehtari et al. 2024; Yao et al. 2018). Two cases
    that k-hat alone gets wrong: weights that are nearly equal (a tail of 1 % of nothing) are good
    whatever its shape, and few effective samples are bad whatever the shape.
    """
    limit = k_threshold(num_draws)
    share = effective / num_draws
    if not converged:
        return (
            "not converged",
            "it ran to its last step: give it more steps, or take another method.",
        )
    if share > NEARLY_EQUAL:
        return "reliable", "none needed: the weights are nearly equal."
    if not k_hat < limit:
        return (
            "not reliable",
            f"k-hat {k_hat:.2f} is not under {limit:.2f}: moments, also corrected ones, may be "
            "far off. Reparameterise (non-centre "
            f"a hierarchy), {richer}, or {mcmc}.",
        )
    if share < MIN_SHARE:
        return (
            "not reliable",
            f"{effective:,.0f} effective samples of {num_draws:,} are few: the guide may miss mass "
            "where it has no sample. "
            f"{richer[0].upper()}{richer[1:]}, or {mcmc}.",
        )
    if k_hat > 0.5 or share < 0.5:
        return (
            "corrected only",
            "use `moments()` and `resample()`, whose samples are weighted; those of `sample()` are "
            "a little off.",
        )
    return "reliable", "none needed; `moments()` corrects what is left."
