"""The old name of `vi_jax.sampling` and `vi_jax.control_variates`. To go in 0.2."""

import warnings

from vi_jax.control_variates import Controlled as Controlled
from vi_jax.control_variates import controlled_mean as controlled_mean
from vi_jax.sampling import Antithetic as Antithetic
from vi_jax.sampling import Quasi as Quasi
from vi_jax.sampling import antithetic as antithetic
from vi_jax.sampling import kronecker as kronecker
from vi_jax.sampling import quasi as quasi

warnings.warn(
    "vi_jax.draws is now vi_jax.sampling (antithetic, quasi, kronecker) and "
    "vi_jax.control_variates (controlled_mean); the old name goes in vi_jax 0.2.",
    DeprecationWarning,
    stacklevel=2,
)
