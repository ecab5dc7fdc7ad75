"""Images of latents: the mean of p(x | z) as grey levels, and examples in the same units."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments.evals.base import Subject
from vi_jax.types import num_examples

MAX_NUMBERS = 2**27  # of decoded distributions at a time: half a gigabyte of float32


def make_mean_of(subject: Subject) -> Callable[[Any, Any, Any], np.ndarray]:
    """(params, contexts leaves [n, ...], z leaves [n, ...]) -> E[x | z] as grey in [0, 1], a numpy
    array [n, *x_shape]. Large images are decoded some at a time, which bounds the memory.
    """
    densities: Any = subject.model.densities

    @jax.jit
    def means(params: Any, x: Any, z: Any) -> jax.Array:
        def one(example: tuple[Any, Any]) -> jax.Array:
            (x, z) = example
            return mean_of(densities.decode(params, x, z))

        at_a_time = most_at_a_time(subject, x)
        if num_examples(x) <= at_a_time:
            return jax.vmap(one)((x, z))
        return jax.lax.map(one, (x, z), batch_size=at_a_time)

    return lambda params, x, z: build.to_unit(subject.units, np.asarray(means(params, x, z)))


def most_at_a_time(subject: Subject, x: Any) -> int:
    """How many images of a size are decoded together: p(x | z) may have a number for each level of
    each pixel.
    """
    size = max(int(np.prod(leaf.shape[1:], dtype=np.int64)) for leaf in jax.tree.leaves(x))
    by_level = subject.units.num_levels if subject.units.support == "levels" else 1
    return max(1, MAX_NUMBERS // max(1, size * by_level))


def mean_of(p: Any) -> jax.Array:
    """E[x | z]; for classes that are levels, the mean level."""
    if hasattr(p, "logits") and p.logits.ndim > len(p.batch_shape):
        return jax.nn.softmax(p.logits) @ jnp.arange(p.logits.shape[-1], dtype=p.logits.dtype)
    return p.mean


def to_grey(subject: Subject, x: Any) -> np.ndarray:
    """Examples as grey in [0, 1]."""
    image = x["image"] if isinstance(x, dict) else x
    return build.to_unit(subject.units, np.asarray(image))


def rows_of(x: Any, rows: np.ndarray) -> Any:
    """Some examples of a pytree [N, ...]."""
    return jax.tree.map(lambda leaf: leaf[rows], x)


def guess(key: jax.Array, q: Any) -> Any:
    """The guide's mean of z, or a sample where it states none or z is discrete."""
    z = q.sample(key)
    try:
        mean = q.mean
    except (AttributeError, NotImplementedError):  # it states none
        return z
    return mean if getattr(q, "has_rsample", True) else z
