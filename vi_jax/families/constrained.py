"""Guides over constrained supports: a guide over real numbers pushed through the bijection onto
each support.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import biject_to

from vi_jax.families._pytree import Layout
from vi_jax.families.mean_field import mean_field
from vi_jax.gaussian import over_leading
from vi_jax.types import Array, Family, Params

Constraints = tuple[tuple[str, Any, tuple[int, ...]], ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constrained:
    """log q(z) = log q_0(T^-1(z)) - log |det dT/dx|, a density in the coordinates that numpyro's
    bijections T take as free: all but the last of a simplex, the strict lower triangle of a
    Cholesky factor.
    """

    base: Any  # a guide over the unconstrained numbers in one vector [D]
    # (name, constraint, shape), sorted by name
    constraints: Constraints = field(metadata={"static": True})

    has_rsample = True
    batch_shape = ()

    @property
    def event_shape(self) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, _, shape in self.constraints}

    @property
    def mean(self) -> Any:
        raise AttributeError(
            "the mean on a constrained support has no closed form; average samples, q.sample(key, "
            "(num_samples,))."
        )

    def constrain(self, x: Array) -> tuple[dict[str, Array], Array]:
        """z of unconstrained numbers x [D], and log |det dz/dx|."""
        parts = free_layout(self.constraints).unravel(x)
        z = {}
        log_det = jnp.zeros((), x.dtype)
        for name, constraint, _ in self.constraints:
            bijection = biject_to(constraint)
            z[name] = bijection(parts[name])
            log_det += jnp.sum(bijection.log_abs_det_jacobian(parts[name], z[name]))
        return z, log_det

    def unconstrain(self, z: Mapping[str, Array]) -> Array:
        """x [D] of z."""
        parts = {
            name: biject_to(constraint).inv(jnp.asarray(z[name]))
            for name, constraint, _ in self.constraints
        }
        return free_layout(self.constraints).ravel(parts)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Samples within the supports, leaves [*sample_shape, *shape]."""
        return over_leading(lambda x: self.constrain(x)[0], self.base.sample(key, sample_shape))

    def log_prob(self, value: Mapping[str, Array]) -> Array:
        name, _, shape = self.constraints[0]
        f = self._log_density
        for _ in range(jnp.ndim(value[name]) - len(shape)):
            f = jax.vmap(f)
        return f(dict(value))

    def _log_density(self, z: Mapping[str, Array]) -> Array:
        x = self.unconstrain(z)
        return self.base.log_prob(x) - self.constrain(x)[1]

    def sample_and_log_prob(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[dict[str, Array], Array]:
        """Samples and their densities [*sample_shape] without an inverse, which rounds at the edge
        of a support.
        """

        def one(x: Array) -> tuple[dict[str, Array], Array]:
            z, log_det = self.constrain(x)
            return z, self.base.log_prob(x) - log_det

        return over_leading(one, self.base.sample(key, sample_shape))


def free_layout(constraints: Constraints) -> Layout:
    """Where the unconstrained numbers of each name lie in one vector."""
    shapes = {
        name: biject_to(constraint).inverse_shape(shape) for name, constraint, shape in constraints
    }
    example = {
        name: jax.ShapeDtypeStruct(shape, jnp.result_type(float)) for name, shape in shapes.items()
    }
    leaves, treedef = jax.tree.flatten(example)
    return Layout(treedef, tuple(leaf.shape for leaf in leaves))


def constrained(
    example: Mapping[str, tuple[Any, tuple[int, ...]]],
    *,
    base: Callable[[int], Family] = mean_field,
) -> Family:
    """z = T(x), x ~ q_0 over the real numbers (Kucukelbir et al. 2017, sec. 2.3 to 2.5), T
    numpyro's `biject_to` of each support.

    Args:
      example: {name: (constraint, shape)}, constraints of `numpyro.distributions.constraints`:
        real, positive, unit_interval, simplex, ordered_vector, corr_cholesky, ...; the shape is
        that of z, its last axes the constraint's own.
      base: D -> the family over the unconstrained numbers, names in alphabetical order.

    Returns:
      A Family with the parameters and neutral member of `base`; its guides sample {name: [*shape]}.

    Raises:
      ValueError: there are no latents, or a shape is none of its constraint's.
    """
    if not isinstance(example, Mapping) or not example:
        raise ValueError(
            f"constrained expects a dict of at least 1; got {example!r}. Give {{name: (constraint, "
            f"shape)}}."
        )
    constraints: Constraints = tuple(
        (name, example[name][0], tuple(example[name][1])) for name in sorted(example)
    )
    for name, constraint, shape in constraints:
        if not _fits(constraint, shape):
            raise ValueError(f"{name!r} has shape {shape}, which is none of {constraint}.")
    inner = base(free_layout(constraints).size)

    def guide(params: Params) -> Constrained:
        return Constrained(inner.guide(params), constraints)

    return Family(inner.init, guide, inner.shared)


def _fits(constraint: Any, shape: tuple[int, ...]) -> bool:
    bijection = biject_to(constraint)
    if len(shape) < bijection.codomain.event_dim:
        return False
    try:
        return bijection.forward_shape(bijection.inverse_shape(shape)) == shape
    except ValueError:  # numpyro's own, of a matrix that is not square
        return False
