"""Generative models with their encoders, as pure functions of parameters; Flax stays inside these
files.

`vae` is the usual way in; `amortised` takes any encoder and decoder as (init, apply) pairs.
"""

from vi_jax.models import likelihoods, networks
from vi_jax.models.vae import amortised, vae

__all__ = ["amortised", "likelihoods", "networks", "vae"]
