"""Families of guides: `Family(init(key) -> params, guide(params) -> q)`; sizes in the closure,
arrays in the parameters.

One family, one file, one factory by that name. Its first argument is the number of latents D, or a
pytree of arrays like the latents (`constrained`: their supports). Flows and `constrained` also have
`q.sample_and_log_prob(key, sample_shape)`, which needs no inverse; `mixture` has
`q.sample_stratified`.
"""

from vi_jax._renamed import keep_old_name
from vi_jax.families._flow import Bijection as Bijection
from vi_jax.families._flow import Flow as Flow
from vi_jax.families.block_diagonal import block_diagonal
from vi_jax.families.constrained import constrained
from vi_jax.families.full_rank import full_rank
from vi_jax.families.gaussian_markov_chain import gaussian_markov_chain
from vi_jax.families.iaf import iaf
from vi_jax.families.low_rank import low_rank
from vi_jax.families.maf import maf
from vi_jax.families.mean_field import mean_field
from vi_jax.families.mixture import mixture, mixture_log_prob
from vi_jax.families.neural_spline import neural_spline
from vi_jax.families.planar import planar
from vi_jax.families.radial import radial
from vi_jax.families.rank_one_precision import rank_one_precision
from vi_jax.families.real_nvp import real_nvp
from vi_jax.families.sparse_precision import sparse_precision
from vi_jax.families.student_t import student_t
from vi_jax.families.sylvester import sylvester

__all__ = [
    "block_diagonal",
    "constrained",
    "full_rank",
    "gaussian_markov_chain",
    "iaf",
    "low_rank",
    "maf",
    "mean_field",
    "mixture",
    "mixture_log_prob",
    "neural_spline",
    "planar",
    "radial",
    "rank_one_precision",
    "real_nvp",
    "sparse_precision",
    "student_t",
    "sylvester",
]

keep_old_name(__name__, __all__, "family")
