"""Targets: log densities over unconstrained coordinates, and bijections from constrained sites."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to, constraints

from vi_jax.targets.observed import Observed
from vi_jax.types import Array, LogDensity


class TargetError(ValueError):
    """This model cannot be approximated as written; the message names the site and what to do."""


class Target(NamedTuple):
    """An unnormalised posterior in unconstrained coordinates u [D], the constraints undone.

    log_density(u) = log p(x, T(u)) + log |det dT/du|: the density of u, so that a guide over u
    needs no correction.
    """

    log_density: LogDensity
    constrain: Callable[[Array], Any]  # u [D] -> sites in the model's own space (a pytree)
    unconstrain: Callable[[Any], Array]  # sites -> u [D]
    names: tuple[str, ...]  # of the coordinates of u: site, or site[i,j]
    # key -> an unbiased log density on a minibatch; None without one
    sampled: Callable[[Array], LogDensity] | None = None
    # u -> which site is not finite there; empty if none
    explain: Callable[[Array], str] | None = None
    # (u0, log p(u0), its gradient) -> the same with a control variate in its minibatches; None
    # where rows are not known
    control_variate: Callable[[Array, Array, Array], "Target"] | None = None
    # as `sampled`, on eight times the rows: for a method's start
    sampled_larger: Callable[[Array], LogDensity] | None = None
    # what the model says of its data given the latents; None of a log density, and of minibatches
    observed: Observed | None = None
    # `targets.latents.Latents`, what a saved result knows of the target; None where not known
    latents: Any = None
    # u -> {discrete site: probabilities of its values [*shape, K]}, of sites that are summed out
    discrete: Callable[[Array], dict[str, Array]] | None = None
    # `targets.recentring.Recentring`, the location-scale sites of a model; None where there is none
    recentring: Any = None
    # `targets.recentring.Moved`, of a target over other coordinates than the model is written in
    centring: Any = None

    @property
    def size(self) -> int:
        """D, the number of unconstrained coordinates."""
        return len(self.names)


class Site(NamedTuple):
    """One latent array."""

    name: str
    constraint: Any
    shape: tuple[int, ...]  # in the model's own space

    @property
    def free_shape(self) -> tuple[int, ...]:
        """Of its unconstrained numbers."""
        return tuple(biject_to(self.constraint).inverse_shape(self.shape))


class Group(NamedTuple):
    """Sites of one constraint and shape, whose numbers are transformed together: a program whose
    size does not grow with them.
    """

    constraint: Any
    shape: tuple[int, ...]
    free_shape: tuple[int, ...]
    members: tuple[int, ...]  # positions in the sites


class Coordinates:
    """The bijection between u [D] and a dict of sites; coordinates of one group lie side by
    side.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        for site in sites:
            _check(site)
        self.sites = tuple(sites)
        self.groups = _groups(self.sites)
        self._places = {
            self.sites[member].name: (number, row)
            for number, group in enumerate(self.groups)
            for row, member in enumerate(group.members)
        }
        # as they lie in u
        self.sites_in_order = tuple(
            self.sites[member] for group in self.groups for member in group.members
        )
        self.names = tuple(name for site in self.sites_in_order for name in _coordinate_names(site))
        if not self.names:
            raise TargetError(
                "the model has no latent numbers: there is nothing to approximate; leave some "
                "sites unobserved."
            )

    def constrain(self, u: Array) -> tuple[dict[str, Array], Array]:
        """Sites of u [D], and log |det dT/du|."""
        values, log_det = self.transform(u)
        return self.split(values), log_det

    def transform(self, u: Array) -> tuple[list[Array], Array]:
        """The sites of each group, [members, *shape], of u [D], and log |det dT/du|."""
        sizes = [math.prod(group.free_shape) * len(group.members) for group in self.groups]
        arrays = []
        log_det = jnp.zeros((), u.dtype)
        for group, part in zip(self.groups, jax.lax.split(u, sizes), strict=True):
            bijection = biject_to(group.constraint)
            free = part.reshape(len(group.members), *group.free_shape)
            arrays.append(bijection(free))
            if group.constraint is not constraints.real:
                log_det += jnp.sum(bijection.log_abs_det_jacobian(free, arrays[-1]))
        return arrays, log_det

    def split(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """{site: value} of the groups' arrays."""
        z: dict[str, Array] = {}
        for group, values in zip(self.groups, arrays, strict=True):
            rows = jax.lax.split(values, [1] * len(group.members))
            z |= {
                self.sites[member].name: row.reshape(group.shape)
                for member, row in zip(group.members, rows, strict=True)
            }
        return z

    def place(self, name: str) -> tuple[int, int]:
        """The group of a site and its row there."""
        return self._places[name]

    def unconstrain(self, z: Mapping[str, Any]) -> Array:
        """u [D] of a dict of sites."""
        parts = []
        for group in self.groups:
            bijection = biject_to(group.constraint)
            parts += [
                jnp.ravel(bijection.inv(jnp.asarray(z[self.sites[member].name])))
                for member in group.members
            ]
        return jnp.concatenate(parts)


def _check(site: Site) -> None:
    constraint = site.constraint
    if getattr(constraint, "is_discrete", False):
        raise TargetError(
            f"the site {site.name!r} is discrete ({constraint}); variational inference here is "
            "over continuous latents. "
            "Sum it out, or relax it."
        )
    try:
        bijection = biject_to(constraint)
        possible = len(site.shape) >= bijection.codomain.event_dim
        possible = possible and tuple(bijection.forward_shape(site.free_shape)) == site.shape
    except NotImplementedError:
        raise TargetError(
            f"there is no bijection from the reals onto {constraint}, the support of {site.name!r}."
        ) from None
    except Exception as error:
        raise TargetError(
            f"{site.name!r} of shape {site.shape} does not fit its constraint {constraint}: {error}"
        ) from None
    if not possible:
        raise TargetError(
            f"{site.name!r} has shape {site.shape}, which is none of its constraint {constraint}."
        )


def _groups(sites: tuple[Site, ...]) -> tuple[Group, ...]:
    """Sites of equal constraint and shape together, in the order in which the first of each
    comes.
    """
    groups: list[Group] = []
    for position, site in enumerate(sites):
        if math.prod(site.free_shape) == 0:
            raise TargetError(
                f"the site {site.name!r} has shape {site.shape}: a dimension of 0 leaves nothing "
                "to approximate."
            )
        for number, group in enumerate(groups):
            if group.shape == site.shape and _same(group.constraint, site.constraint):
                groups[number] = group._replace(members=(*group.members, position))
                break
        else:
            groups.append(Group(site.constraint, site.shape, site.free_shape, (position,)))
    return tuple(groups)


def _same(a: Any, b: Any) -> bool:
    """Whether two constraints are one: of a type, with equal numbers."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    mine: Any = jax.tree.flatten(a)
    theirs: Any = jax.tree.flatten(b)
    pairs = zip(mine[0], theirs[0], strict=False)
    try:
        return (
            len(mine[0]) == len(theirs[0])
            and mine[1] == theirs[1]
            and all(np.array_equal(x, y) for x, y in pairs)
        )
    except Exception:
        return False


def _coordinate_names(site: Site) -> list[str]:
    shape = site.free_shape
    return [
        site.name + (f"[{','.join(map(str, index))}]" if shape else "")
        for index in np.ndindex(*shape)
    ]
