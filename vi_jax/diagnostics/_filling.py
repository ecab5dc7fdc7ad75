"""What the imputation of images shares: an example with hidden pixels, filled in from z."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree

from vi_jax.losses.bound import densities_of
from vi_jax.types import Array, Densities, LogJoint, Model, Params, select


def pixels_like(x: Any, example: Any) -> Array:
    """The leaf of an example that p(x | z) is of: the only one of a shape.

    Raises:
      ValueError: there is none, or more than one.
    """
    leaves = [leaf for leaf in jax.tree.leaves(x) if jnp.shape(leaf) == example.shape]
    if len(leaves) != 1:
        shapes = jax.tree.map(jnp.shape, x)
        raise ValueError(
            f"imputation expects p(x | z) over the pixels of one leaf of x; it is over "
            f"{example.shape}, and x has {shapes}."
        )
    return leaves[0]


def checked_densities(user: str, model: Model, num_steps: int, burn_in: int) -> Densities:
    if num_steps < 1 or burn_in < 0:
        raise ValueError(
            f"{user} expects num_steps of at least 1 and burn_in of at least 0; got {num_steps} "
            f"and {burn_in}."
        )
    return densities_of(model, user)


def gibbs(
    key: Array, model: Model, params: Params, x: Any, observed: Any, num_steps: int
) -> tuple[Any, Any]:
    """z_t and the example as filled in after it, leaves [T, ...]."""
    densities = densities_of(model, "pseudo_gibbs")
    key_start, key_chain = jax.random.split(key)

    def step(filled: Any, key: Array) -> tuple[Any, Any]:
        z, _ = propose(densities, params, filled, key)
        filled = refill(densities, params, x, observed, z, jax.random.fold_in(key, 1))
        return filled, (z, filled)

    first = start(key_start, model, params, x, observed)
    _, found = jax.lax.scan(step, first, jax.random.split(key_chain, num_steps))
    return found


def after(burn_in: int, states: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[burn_in:], states)


def start(key: Array, model: Model, params: Params, x: Any, observed: Any) -> Any:
    """The example with what it lacks drawn from the model, whatever is observed."""
    key_z, key_x = jax.random.split(key)
    sample = model.generate(key_z, params, x).sample(key_x)
    return _merged(x, observed, sample)


def propose(densities: Densities, params: Params, filled: Any, key: Array) -> tuple[Any, Any]:
    """z ~ q(z | x), and that guide."""
    q = densities.guide(params, filled)
    return q.sample(jax.random.fold_in(key, 0)), q


def walk(key: Array, log_p: LogJoint, z: Any, spread: Any, num_moves: int) -> Any:
    """z after some Metropolis moves that leave p(z) as it is: a random walk in steps of the spread
    of each coordinate times 2.4 / sqrt(D) (Roberts & Rosenthal 2001), and of halves, quarters and
    eighths of that by turns, then of the whole again.
    """
    row, unravel = ravel_pytree(z)
    scales, _ = ravel_pytree(spread)
    scales = scales * 2.4 / row.size**0.5
    before = log_p(z)
    for number, key_move in enumerate(jax.random.split(key, num_moves)):
        key_step, key_u = jax.random.split(key_move)
        size = 0.5 ** (number % 4)
        moved = row + size * scales * jax.random.normal(key_step, row.shape, row.dtype)
        after_it = log_p(unravel(moved))
        accepts = jnp.log(jax.random.uniform(key_u)) < after_it - before
        (row, before) = select(accepts, (moved, after_it), (row, before))
    return unravel(row)


def refill(densities: Densities, params: Params, x: Any, observed: Any, z: Any, key: Array) -> Any:
    return _merged(x, observed, densities.decode(params, x, z).sample(key))


def _merged(x: Any, observed: Any, sample: Any) -> Any:
    """x where it is observed, else the sample."""
    return jax.tree.map(
        lambda seen, ours, drawn: jnp.where(seen, ours, drawn.astype(jnp.asarray(ours).dtype)),
        observed,
        x,
        sample,
    )


def of_pixels(p: Any, x: Any) -> tuple[Array, Array]:
    """Mean, of classes the expected code, and log-probability of each pixel, [*x_shape] each."""
    mean = p.mean
    if isinstance(p, dist.CategoricalLogits):
        mean = p.probs @ jnp.arange(p.probs.shape[-1], dtype=p.probs.dtype)
    return mean, p.log_prob(x)


def log_prob_of_observed(p: Any, x: Any, observed: Any) -> Array:
    """log p(x_obs | z), nats."""
    each = p.log_prob(x)
    return jnp.where(pixels_like(observed, each), each, 0.0).sum()
