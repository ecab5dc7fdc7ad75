"""Gradients along chosen paths: through the samples, or in the model's own parameters, or both."""

from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.types import Array, LogJoint, freeze
from vi_jax.weights import scalar


@jax.custom_jvp
def scale_gradient(z: Array, scale: Array) -> Array:
    """z, with its gradient multiplied by `scale` (broadcast from the left)."""
    del scale
    return z


@scale_gradient.defjvp
def _scale_gradient_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    z, scale = primals
    return z, tangents[0] * jnp.reshape(scale, scale.shape + (1,) * (z.ndim - scale.ndim))


def surrogate(value: Array, gradient_path: Array) -> Array:
    """`value` as a number, the gradient of `gradient_path`."""
    return freeze(value) + (gradient_path - freeze(gradient_path))


def model_path(log_joint: LogJoint, z: Any) -> Array:
    """log p(x, z_k), [K], differentiated in the model's own parameters and not through the
    samples.
    """
    return jax.vmap(scalar(log_joint))(freeze(z))


def draw_path(log_joint: LogJoint, z: Any) -> Array:
    """log p(x, z_k), [K], differentiated through the samples and not in the model's parameters
    (first derivatives only).

    The model's parameters are closed over and cannot be frozen, so its slope in z is taken, frozen,
    and laid along z.
    """
    values, slopes = jax.vmap(jax.value_and_grad(scalar(log_joint)))(freeze(z))
    moved = jax.tree.map(lambda slope, z_k: freeze(slope) * (z_k - freeze(z_k)), slopes, z)
    return freeze(values) + sum(
        leaf.reshape(leaf.shape[0], -1).sum(-1) for leaf in jax.tree.leaves(moved)
    )
