"""Self-normalised means of log w under tempered weights."""

import jax
import jax.numpy as jnp


def tilted_mean(log_w: jax.Array, beta: jax.Array | float = 1.0) -> jax.Array:
    """sum_k w_k^beta log w_k / sum_k w_k^beta for beta > 0; a sample of weight 0 counts 0, and
    samples of weight 0 alone give -inf.
    """
    top = log_w.max()  # taken out, so that large weights lose no digits
    dead = log_w == -jnp.inf
    gap = jnp.where(dead, 0.0, log_w - jnp.where(top == -jnp.inf, 0.0, top))
    weights = jax.nn.softmax(jnp.where(dead & (top > -jnp.inf), -jnp.inf, beta * gap))
    return top + (weights * gap).sum()
