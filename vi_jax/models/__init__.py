"""Generative models with their inference networks, as pure functions of parameters; Flax stays
inside these files.

`vae` is the usual way in, `table_vae` that of tables and `sequence_vae` that of sequences, whose
columns are `Column`s; `amortised` takes any encoder and decoder as (init, apply) pairs, and
`from_densities` any guide, prior and likelihood. Priors with parameters are in `models.priors`,
neural topic models in `models.documents`.
"""

from vi_jax.models import architectures, documents, gated, likelihoods, networks, priors
from vi_jax.models._columns import Column
from vi_jax.models.bidirectional_vae import bidirectional_vae
from vi_jax.models.conditional_vae import conditional_vae
from vi_jax.models.conv_bidirectional_vae import conv_bidirectional_vae
from vi_jax.models.diffusion import diffusion
from vi_jax.models.discrete_vae import discrete_vae
from vi_jax.models.dlgm import dlgm
from vi_jax.models.from_densities import from_densities
from vi_jax.models.gpfa import gpfa
from vi_jax.models.hierarchical_vae import hierarchical_vae
from vi_jax.models.ladder_vae import ladder_vae
from vi_jax.models.lfads import lfads
from vi_jax.models.poisson_lds import poisson_lds
from vi_jax.models.semi_supervised_vae import semi_supervised_vae
from vi_jax.models.sequence_vae import sequence_vae
from vi_jax.models.sigmoid_belief_net import sigmoid_belief_net
from vi_jax.models.slds import slds
from vi_jax.models.stacked_semi_supervised_vae import stacked_semi_supervised_vae
from vi_jax.models.table_vae import table_vae
from vi_jax.models.vae import amortised, vae
from vi_jax.models.vq_vae import vq_vae

__all__ = [
    "Column",
    "amortised",
    "architectures",
    "bidirectional_vae",
    "conditional_vae",
    "conv_bidirectional_vae",
    "diffusion",
    "discrete_vae",
    "dlgm",
    "documents",
    "from_densities",
    "gated",
    "gpfa",
    "hierarchical_vae",
    "ladder_vae",
    "lfads",
    "likelihoods",
    "networks",
    "poisson_lds",
    "priors",
    "semi_supervised_vae",
    "sequence_vae",
    "sigmoid_belief_net",
    "slds",
    "stacked_semi_supervised_vae",
    "table_vae",
    "vae",
    "vq_vae",
]
