"""Kullback-Leibler divergences KL(q || p) = E_q[log q(z) - log p(z)] in nats.

Closed forms; Monte Carlo where there is none; and for mixtures bounds, under names that say so.
"""

from vi_jax.kl.closed import kl_divergence, kl_per_dimension
from vi_jax.kl.mixtures import (
    kl_mixture_lower_bound,
    kl_mixture_upper_bound,
    kl_mixture_variational,
)
from vi_jax.kl.monte_carlo import Estimate, kl_monte_carlo, kl_monte_carlo_controlled
from vi_jax.kl.scalars import kl_standard_normal

__all__ = [
    "Estimate",
    "kl_divergence",
    "kl_mixture_lower_bound",
    "kl_mixture_upper_bound",
    "kl_mixture_variational",
    "kl_monte_carlo",
    "kl_monte_carlo_controlled",
    "kl_per_dimension",
    "kl_standard_normal",
]
