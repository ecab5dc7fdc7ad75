"""Methods for a posterior given by its log density: `Method(name, init, step, guide, num_steps)`,
pure functions.

One method, one file, one factory by that name. `vi.fit` runs any of them; so does a
loop of your own:

    state = method.init(key, log_density, start)
    state, info = method.step(key, log_density, state)     # until info.done
    q = method.guide(state)

`local_advi` is for targets with local latent variables; `table`, `coupled_table` and `encoder` are
its guides of those. Their home is `vi_jax.local`.
"""

from vi_jax.local import coupled_table, encoder, local_advi, table
from vi_jax.methods._dadvi_response import (
    frequentist_stderr,
    linear_response,
    linear_response_sd,
)
from vi_jax.methods._linear_response import linear_response_of_draws
from vi_jax.methods.advi import advi
from vi_jax.methods.bam import bam
from vi_jax.methods.bam_low_rank import bam_low_rank
from vi_jax.methods.boosting import boosting
from vi_jax.methods.dadvi import dadvi
from vi_jax.methods.flow import flow
from vi_jax.methods.gsm import gsm
from vi_jax.methods.laplace import laplace
from vi_jax.methods.natural_gradient import natural_gradient
from vi_jax.methods.nested_laplace import nested_laplace
from vi_jax.methods.pathfinder import pathfinder
from vi_jax.methods.svgd import svgd
from vi_jax.methods.variational_newton import variational_newton

__all__ = [
    "advi",
    "bam",
    "bam_low_rank",
    "boosting",
    "coupled_table",
    "dadvi",
    "encoder",
    "flow",
    "frequentist_stderr",
    "gsm",
    "laplace",
    "linear_response",
    "linear_response_of_draws",
    "linear_response_sd",
    "local_advi",
    "natural_gradient",
    "nested_laplace",
    "pathfinder",
    "svgd",
    "table",
    "variational_newton",
]
