"""Generative models with their inference networks, as pure functions of parameters; Flax stays
inside these files.

`vae` is the usual way in; `amortised` takes any encoder and decoder as (init, apply) pairs, and
`from_densities` any guide, prior and likelihood.
"""

from vi_jax.models import likelihoods, networks
from vi_jax.models.from_densities import from_densities
from vi_jax.models.vae import amortised, vae

__all__ = ["amortised", "from_densities", "likelihoods", "networks", "vae"]
