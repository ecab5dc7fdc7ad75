"""SUMO: an unbiased estimate of log p(x) by a Russian roulette over importance-weighted bounds."""

import jax
import jax.numpy as jnp

from vi_jax.attributes import declare
from vi_jax.bounds._check import check_log_w


def sumo_stop(key: jax.Array) -> jax.Array:
    """T >= 1 with P(T >= t) = 1/t, the number of terms the roulette plays (Luo et al. 2020, sec.
    3.3): a whole number, float.
    """
    return jnp.floor(1.0 / (1.0 - jax.random.uniform(key)))


@declare(side="estimate", smooth=True, example={"stop": 2.0})
def sumo(log_w: jax.Array, *, stop: float | jax.Array, first: int = 1) -> jax.Array:
    """IWAE_m + sum_{t=1}^{T} t (IWAE_{m+t} - IWAE_{m+t-1}), T = `stop`: SUMO (Luo et al. 2020, eq.
    8 with P(T >= t) = 1/t).

    With T from `sumo_stop` its expectation is log p(x), as long as T + m <= K; where T is larger,
    the sum ends at K and the expectation is that of IWAE_K. Its variance can be infinite: average
    many, and prefer `iwae` where a bound is wanted.

    Args:
      log_w: [K], in the order they were drawn.
      stop: T.
      first: m, samples that are always used.

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: log_w is not [K], or m is not in 1..K.
    """
    num = check_log_w(log_w).shape[0]
    if not 1 <= first <= num:
        raise ValueError(
            f"sumo expects 1 <= first <= the number of samples; got {first} and {num} samples."
        )
    top = log_w.max()  # taken out, so that large weights lose no digits
    # IWAE_1..IWAE_K, less top
    partial = jax.lax.cumlogsumexp(log_w - top) - jnp.log(jnp.arange(1, num + 1, dtype=log_w.dtype))
    steps = jnp.diff(partial)[first - 1 :]  # IWAE_{m+t} - IWAE_{m+t-1}, t = 1..K - m
    t = jnp.arange(1, num - first + 1, dtype=log_w.dtype)
    return top + partial[first - 1] + jnp.where(t <= stop, t * steps, 0.0).sum()
