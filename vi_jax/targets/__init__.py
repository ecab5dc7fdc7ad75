"""Targets: log densities over one unconstrained vector, with the way back to the model's own space.

`from_log_density` takes any JAX function of a pytree and the constraints of its leaves, `from_rows`
one that factorises over rows of data and so can be subsampled, `from_numpyro` any NumPyro model.
With local latent variables (`from_local_rows`, or a subsampled plate around latent sites) the
target is a `LocalTarget`.
"""

from vi_jax.targets.functions import from_local_rows, from_log_density, from_rows
from vi_jax.targets.local import LocalTarget
from vi_jax.targets.numpyro_model import from_numpyro
from vi_jax.targets.target import Target, TargetError

__all__ = [
    "LocalTarget",
    "Target",
    "TargetError",
    "from_local_rows",
    "from_log_density",
    "from_numpyro",
    "from_rows",
]
