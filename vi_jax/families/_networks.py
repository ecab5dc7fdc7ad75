"""Dense networks of flows, in plain arrays: tanh between layers, a last layer of zeros, masks where
they are autoregressive.
"""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.types import Array, Params


def init_network(key: Array, sizes: Sequence[int]) -> Params:
    """Weights of variance 1 / fan-in, and a last layer of zeros, so that a flow starts at the
    identity.
    """
    params = []
    for number, (num_in, num_out) in enumerate(pairwise(sizes)):
        last = number == len(sizes) - 2
        scale = 0.0 if last else 1.0 / max(num_in, 1) ** 0.5
        weight = scale * jax.random.normal(jax.random.fold_in(key, number), (num_in, num_out))
        params.append({"weight": weight, "bias": jnp.zeros(num_out)})
    return params


def apply_network(params: Params, x: Array, masks: Sequence[np.ndarray] | None = None) -> Array:
    """x [sizes[0]] -> [sizes[-1]]."""
    for number, layer in enumerate(params):
        weight = layer["weight"] if masks is None else layer["weight"] * masks[number]
        x = x @ weight + layer["bias"]
        x = x if number == len(params) - 1 else jnp.tanh(x)
    return x


def autoregressive_masks(
    num_latents: int, hidden: Sequence[int], num_outputs: int
) -> list[np.ndarray]:
    """Masks under which outputs [num_outputs, D], laid in one row, see only the inputs before
    theirs (MADE: Germain et al. 2015, sec. 4).
    """
    degrees = [np.arange(1, num_latents + 1)]
    degrees += [np.arange(width) % max(num_latents - 1, 1) + 1 for width in hidden]
    masks = [before[:, None] <= after[None, :] for before, after in pairwise(degrees)]
    last = np.tile(degrees[0], num_outputs)
    return [*masks, degrees[-1][:, None] < last[None, :]]


def check_hidden(name: str, hidden: Sequence[int]) -> None:
    """Raises ValueError where a width is not positive."""
    if not all(width > 0 for width in hidden):
        raise ValueError(f"{name} expects positive widths of hidden layers; got {tuple(hidden)}.")
