"""A guide in coordinates of its own, as one over u = loc + T x."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.gaussian import over_leading
from vi_jax.types import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Placed:
    """u = loc + T x, x from a guide over [D]: log q(u) = log q_0(T^-1 (u - loc)) - log |det T|."""

    base: Any
    loc: Array  # [D]
    root: Array  # T: [D, D], lower triangular, or its diagonal [D]

    has_rsample = True
    batch_shape = ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.loc.shape

    @property
    def mean(self) -> Array:
        """[D]; AttributeError where the base knows none in closed form."""
        return self.place(self.base.mean)

    def place(self, x: Array) -> Array:
        """u of x [..., D]."""
        return self.loc + (x * self.root if self.root.ndim == 1 else x @ self.root.T)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [*sample_shape, D]."""
        return self.place(self.base.sample(key, sample_shape))

    def log_prob(self, value: Array) -> Array:
        """log q(u), nats, [...] for u [..., D]."""

        def one(u: Array) -> Array:
            gap = u - self.loc
            diagonal = self.root.ndim == 1
            x = gap / self.root if diagonal else linalg.solve_triangular(self.root, gap, lower=True)
            return self.base.log_prob(x)

        return over_leading(one, jnp.asarray(value)) - log_det(self.root)

    def sample_and_log_prob(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Samples and their densities, without the inverse of a base that can do so."""
        if hasattr(self.base, "sample_and_log_prob"):
            x, log_q = self.base.sample_and_log_prob(key, sample_shape)
        else:
            x = self.base.sample(key, sample_shape)
            log_q = over_leading(self.base.log_prob, x)
        return self.place(x), log_q - log_det(self.root)


def log_det(root: Array) -> Array:
    """log |det| of a triangle [D, D], or of a diagonal [D]."""
    diagonal = root if root.ndim == 1 else jnp.diagonal(root)
    return jnp.log(jnp.abs(diagonal)).sum()
