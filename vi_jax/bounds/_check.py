"""The check of a bound's argument: log-weights of shape [K]."""

import jax
import jax.numpy as jnp

from vi_jax.arguments import describe


def check_log_w(log_w: jax.Array) -> jax.Array:
    """The log-weights, or an error that says what a bound expects."""
    if isinstance(log_w, list | tuple) or not hasattr(log_w, "dtype") or hasattr(log_w, "sample"):
        raise TypeError(
            f"a bound expects an array log_w of shape [K]; got {describe(log_w)}. vi.elbo and "
            "vi.iwae take a key, a log_joint and a guide."
        )
    if jnp.ndim(log_w) != 1 or jnp.shape(log_w)[0] == 0:
        raise ValueError(
            f"a bound expects log_w of shape [K], K >= 1; got {jnp.shape(log_w)}. vmap over "
            "examples, one bound each."
        )
    if not jnp.issubdtype(log_w.dtype, jnp.floating):
        raise TypeError(f"a bound expects log-weights, floating-point numbers; got {log_w.dtype}.")
    return log_w
