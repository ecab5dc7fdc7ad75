"""Training objectives: from one example to a batch, and from a bound to maximise to a loss to
minimise. The only minus sign.

A loss is `loss(params, key, batch, step) -> (scalar, Info)`, the scalar in nats per example: a mean
over the batch, a sum over pixels and latents. A batch is a pytree of arrays [B, ...]. `step` is
there for warm-up; the metrics say what the bound is whatever the weights of the loss are.
"""

from vi_jax.losses.bound import batch_bound, densities_of, log_joint, negative_bound
from vi_jax.losses.elbo import batch_terms, example_terms, negative_elbo
from vi_jax.losses.full_vb import (
    draw_weights,
    full_vb,
    predictive,
    variational_weights,
    weights_kl,
)
from vi_jax.losses.info import Info, Loss, Moved
from vi_jax.losses.mcem import mcem
from vi_jax.losses.mmd import mmd
from vi_jax.losses.schedules import Schedule, as_schedule, cyclical_warmup, linear_warmup
from vi_jax.losses.total_correlation import total_correlation
from vi_jax.losses.wake_sleep import wake_sleep, wake_wake

__all__ = [
    "Info",
    "Loss",
    "Moved",
    "Schedule",
    "as_schedule",
    "batch_bound",
    "batch_terms",
    "cyclical_warmup",
    "densities_of",
    "draw_weights",
    "example_terms",
    "full_vb",
    "linear_warmup",
    "log_joint",
    "mcem",
    "mmd",
    "negative_bound",
    "negative_elbo",
    "predictive",
    "total_correlation",
    "variational_weights",
    "wake_sleep",
    "wake_wake",
    "weights_kl",
]
