"""Guides over a vector: samples as transformed standard normals, densities of one z or of many."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.types import Array

HALF_LOG_TWO_PI = 0.5 * float(np.log(2.0 * np.pi))


def over_leading(f: Callable[[Array], Any], x: Array) -> Any:
    """f of one vector, over all axes of x [..., D] but the last."""
    for _ in range(x.ndim - 1):
        f = jax.vmap(f)
    return f(x)


def log_standard_normal(eps: Array) -> Array:
    """log N(eps | 0, I) of one vector."""
    return -0.5 * jnp.sum(eps**2) - eps.size * HALF_LOG_TWO_PI


class VectorGuide:
    """A guide over [D]. Members are dataclasses with a `loc` [..., D], `transport` and
    `log_density` of one vector each.
    """

    loc: Array
    has_rsample = True
    batch_shape = ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.loc.shape[-1:]

    def transport(self, eps: Array) -> Array:
        """z [D] of a standard normal eps [D]."""
        raise NotImplementedError

    def log_density(self, z: Array) -> Array:
        """log q(z) of one z [D]."""
        raise NotImplementedError

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [*sample_shape, D], reparameterised."""
        eps = jax.random.normal(key, (*sample_shape, *self.event_shape), self.loc.dtype)
        return over_leading(self.transport, eps)

    def log_prob(self, value: Array) -> Array:
        """log q(z), nats, [...] for z [..., D]."""
        value = jnp.asarray(value)
        if value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"this guide is over vectors of shape {self.event_shape}; got a value of shape "
                f"{value.shape}."
            )
        return over_leading(self.log_density, value)


def fill_tril(log_diag: Array, lower: Array) -> Array:
    """The lower triangular [D, D] of diagonal e^log_diag [D] and strict lower triangle `lower` [D
    (D - 1) / 2] by rows.
    """
    rows, columns = np.tril_indices(log_diag.shape[0], -1)
    return jnp.diag(jnp.exp(log_diag)).at[rows, columns].set(lower)
