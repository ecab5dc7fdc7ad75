"""A distribution over trials: N observations at each of T steps, independent given the latents."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.distributions import Bernoulli
from vi_jax.types import Array

Trial = Mapping[str, Array]  # {"values": [T, N], "observed": bool [T, N]}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrialDistribution:
    """Over examples {"values", "observed"}; `mean` and `variance` are [T, N]."""

    base: Any  # a distribution of batch shape [T, N]
    factors: Array | None = None  # what its parameters are linear in, [T, F]

    @property
    def mean(self) -> Array:
        """E[x_tn | z], [T, N]: of counts the rate of a step."""
        return self.base.mean

    @property
    def variance(self) -> Array:
        """Var[x_tn | z], [T, N]."""
        return self.base.variance

    @property
    def probs(self) -> Array:
        """P(x_tn = l | z) of zeros and ones, [T, N, 2]; zeros of any other observation."""
        if isinstance(self.base, Bernoulli):
            return jnp.stack([1.0 - self.base.probs, self.base.probs], axis=-1)
        return jnp.zeros((*self.base.batch_shape, 2))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Whole trials with everything observed, leaves [*sample_shape, T, N]."""
        values = self.base.sample(key, sample_shape).astype(jnp.result_type(float))
        return {"values": values, "observed": jnp.ones(values.shape, bool)}

    def log_prob(self, value: Trial) -> Array:
        """log p of what is observed of one trial, nats, a scalar."""
        return self.log_probs(value).sum()

    def log_probs(self, value: Trial) -> Array:
        """log p of each observation, 0 where there is none, nats, [T, N]."""
        observed = value["observed"]
        found = self.base.log_prob(filled(value))
        return jnp.where(observed, found, 0.0)


def filled(x: Trial) -> Array:
    """The values, and where none is observed 0, which every support has."""
    return jnp.where(x["observed"], x["values"], 0.0)
