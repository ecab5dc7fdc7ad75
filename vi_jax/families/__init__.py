"""Families of guides: `Family(init(key) -> params, guide(params) -> q)`; sizes in the closure,
arrays in the parameters.

One member, one file; the factory is called `family` there and by the file's name here. What it
takes first is the number of latents D, or a pytree of arrays like the latents (`constrained`: their
supports). Flows and `constrained` also have `q.sample_and_log_prob(key, sample_shape)`, which needs
no inverse; `mixture` has `q.sample_stratified`.
"""

from vi_jax.families.block_diagonal import family as block_diagonal
from vi_jax.families.constrained import family as constrained
from vi_jax.families.full_rank import family as full_rank
from vi_jax.families.gaussian_markov_chain import family as gaussian_markov_chain
from vi_jax.families.iaf import family as iaf
from vi_jax.families.low_rank import family as low_rank
from vi_jax.families.maf import family as maf
from vi_jax.families.mean_field import family as mean_field
from vi_jax.families.mixture import family as mixture
from vi_jax.families.mixture import mixture_log_prob as mixture_log_prob
from vi_jax.families.neural_spline import family as neural_spline
from vi_jax.families.planar import family as planar
from vi_jax.families.radial import family as radial
from vi_jax.families.rank_one_precision import family as rank_one_precision
from vi_jax.families.real_nvp import family as real_nvp
from vi_jax.families.student_t import family as student_t
from vi_jax.families.sylvester import family as sylvester

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
    "neural_spline",
    "planar",
    "radial",
    "rank_one_precision",
    "real_nvp",
    "student_t",
    "sylvester",
]
