"""Defensive mixtures: a guide with wider copies of itself, for importance weights with bounded
tails, by values of the log density alone.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.diagnostics.posterior import CHUNK, WeightedSamples, weight_samples
from vi_jax.fitting._stack import stack_weights
from vi_jax.gaussian import over_leading
from vi_jax.types import Array, LogDensity

# c of the scales 1 + c / sqrt(D): the radius of D standard normals is sqrt(D) within 0.7, so that
# these copies are wider by 0, 1, 2, 4 and 8 of its standard deviations whatever D
WIDER_BY = (0.0, 0.7, 1.4, 2.8, 5.6)
NUM_PILOT = 1000  # values of the log density, by which the copies are weighed
DEFENSIVE_SHARE = 0.1  # of the samples, spread equally over the copies whatever the pilot says


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Defensive:
    """sum_k w_k q_k(u), q_k a guide q stretched about a centre: u = centre + s_k (x - centre)."""

    base: Any  # q over [D]
    centre: Array  # [D]
    scales: Array  # s [K]
    log_weights: Array  # log w [K], normalised

    has_rsample = False
    batch_shape = ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.centre.shape

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [*sample_shape, D]."""
        key_which, key_draws = jax.random.split(key)
        which = jax.random.categorical(key_which, self.log_weights, shape=sample_shape)
        x = self.base.sample(key_draws, sample_shape)
        return self.centre + self.scales[which][..., None] * (x - self.centre)

    def log_prob(self, value: Array) -> Array:
        """log q(u), nats, [...] for u [..., D]."""
        log_q = self.component_log_prob(value)
        weights = self.log_weights.reshape(-1, *[1] * (log_q.ndim - 1))
        return jax.nn.logsumexp(weights + log_q, axis=0)

    def component_log_prob(self, value: Array) -> Array:
        """log q_k(u), nats, [K, ...] for u [..., D]."""

        def of(scale: Array) -> Array:
            x = self.centre + (value - self.centre) / scale
            return over_leading(self.base.log_prob, x) - self.centre.size * jnp.log(scale)

        return jax.lax.map(of, self.scales)


def widened(
    key: Array,
    log_density: LogDensity,
    q: Any,
    *,
    num_draws: int,
    num_pilot: int = NUM_PILOT,
) -> tuple[Defensive, WeightedSamples, Array]:
    """The mixture of a guide and its wider copies (Hesterberg 1995), and importance-weighted
    samples of it.

    The weights of the copies are those of the mixture that is nearest to the posterior in KL(p, .)
    by a pilot of equal parts (`stack_weights`), and never less than a share of DEFENSIVE_SHARE / K:
    importance weights are then at most K / DEFENSIVE_SHARE times those over any one copy. It mends
    what is right but for its tails; a guide in the wrong place, or of a wrong shape, stays wrong,
    and its k-hat says so.

    Args:
      key: one typed PRNG key.
      log_density: u [D] -> nats; `num_pilot + num_draws` values, no gradient.
      q: any guide over [D].
      num_draws: S.
      num_pilot: samples of the pilot.

    Returns:
      The mixture, its samples, and how many values were taken.
    """
    key_pilot, key_draws = jax.random.split(key)
    num_scales = len(WIDER_BY)
    num_each = max(num_pilot // num_scales, 1)
    x = q.sample(key_pilot, (num_scales, num_each))  # [K, N, D]
    size = x.shape[-1]
    scales = 1 + jnp.asarray(WIDER_BY, x.dtype) / size**0.5
    equal = jnp.full(num_scales, -jnp.log(float(num_scales)), x.dtype)
    mixture = Defensive(q, jnp.mean(x, (0, 1)), scales, equal)

    # 1. the pilot, as many samples of each copy
    u = mixture.centre + scales[:, None, None] * (x - mixture.centre)
    u = u.reshape(-1, size)
    log_p = jax.lax.map(log_density, u, batch_size=min(CHUNK, len(u)))
    log_p = jnp.where(jnp.isnan(log_p), -jnp.inf, log_p)
    log_w = stack_weights(log_p, mixture.component_log_prob(u))
    share = DEFENSIVE_SHARE
    log_w = jnp.logaddexp(jnp.log1p(-share) + log_w, jnp.log(share) + equal)

    # 2. the samples, and their weights
    found = Defensive(q, mixture.centre, scales, log_w)
    u = found.sample(key_draws, (num_draws,))
    log_p = jax.lax.map(log_density, u, batch_size=min(CHUNK, num_draws))
    num_values = jnp.int32(num_scales * num_each + num_draws)
    return found, weight_samples(u, log_p, found), num_values
