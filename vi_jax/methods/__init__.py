"""Methods for a posterior given by its log density: `Method(name, init, step, guide, num_steps)`, pure functions.

One member, one file; the factory is called by the file's name. `vi.fit` runs any of them; so does a loop of your own:

    state = method.init(key, log_density, start)
    state, info = method.step(key, log_density, state)     # until info.done
    q = method.guide(state)
"""

from vi_jax.methods.advi import advi
from vi_jax.methods.bam import bam
from vi_jax.methods.dadvi import dadvi, frequentist_stderr, linear_response, linear_response_sd
from vi_jax.methods.laplace import laplace
from vi_jax.methods.pathfinder import pathfinder

__all__ = ["advi", "bam", "dadvi", "frequentist_stderr", "laplace", "linear_response", "linear_response_sd", "pathfinder"]
