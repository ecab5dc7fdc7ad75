"""Samples of any `sample_shape`, by vmaps over a function of one key."""

from collections.abc import Callable
from typing import Any

import jax

Array = jax.Array


def sample_over(one: Callable[[Array], Any], key: Array, sample_shape: tuple[int, ...]) -> Any:
    """`one(key)` for each of `sample_shape` keys, leaves [*sample_shape, ...]; of the key itself
    where the shape is ().
    """
    if not sample_shape:
        return one(key)
    for _ in sample_shape:
        one = jax.vmap(one)
    return one(jax.random.split(key, sample_shape))
