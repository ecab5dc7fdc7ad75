"""The check of a bound's argument: log-weights of shape [K]."""

import jax
import jax.numpy as jnp


def check_log_w(log_w: jax.Array) -> jax.Array:
    """The log-weights, or a ValueError that says what a bound expects."""
    if jnp.ndim(log_w) != 1 or jnp.shape(log_w)[0] == 0:
        raise ValueError(
            f"a bound expects log_w of shape [K], K >= 1; got {jnp.shape(log_w)}. vmap over "
            "examples, one bound each."
        )
    return log_w
