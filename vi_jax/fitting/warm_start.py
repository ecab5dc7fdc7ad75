"""Where Markov chains start from a guide, for NumPyro's samplers, BlackJAX's, or any other."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.targets.target import Coordinates, Target
from vi_jax.types import Array

MAX_DENSE = 400  # latents up to which chains start with a full mass matrix


class WarmStart(NamedTuple):
    """Positions and an inverse mass matrix in the unconstrained coordinates u [D] of a target.

    BlackJAX: `blackjax.nuts(start.log_density, step_size, start.inverse_mass_matrix)`, with a chain
    from each of `start.positions`. NumPyro: `NUTS(potential_fn=start.potential, **start.options)`
    and `MCMC.run(key, init_params=start.positions)`; with the model itself, `NUTS(model,
    **start.options_by_site)` and `init_params=start.positions_by_site`.
    """

    target: Target
    positions: Array  # [C, D]; [D] of one chain, as NumPyro takes it
    inverse_mass_matrix: Array  # the guide's covariance: [D, D], of over 400 latents its diagonal

    def log_density(self, u: Array) -> Array:
        """The target's, nats."""
        return self.target.log_density(u)

    def potential(self, u: Array) -> Array:
        """Minus the log density, as Hamiltonian samplers call it."""
        return -self.target.log_density(u)

    @property
    def is_dense(self) -> bool:
        """Whether the inverse mass matrix is a matrix, and not a diagonal."""
        return self.inverse_mass_matrix.ndim == 2

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of NumPyro's HMC and NUTS for `potential`."""
        return {"inverse_mass_matrix": self.inverse_mass_matrix, "dense_mass": self.is_dense}

    @property
    def options_by_site(self) -> dict[str, Any]:
        """The arguments of NumPyro's HMC and NUTS for the model that the target was made of."""
        sites = self._coordinates().sites_in_order
        block = tuple(site.name for site in sites)
        if self.is_dense:
            return {"inverse_mass_matrix": {block: self.inverse_mass_matrix}, "dense_mass": [block]}
        parts = _split(self.inverse_mass_matrix, sites)
        diagonal = jnp.concatenate([parts[name].reshape(-1) for name in sorted(block)])
        return {"inverse_mass_matrix": {tuple(sorted(block)): diagonal}, "dense_mass": False}

    @property
    def positions_by_site(self) -> dict[str, Array]:
        """{site: unconstrained values [C, ...]}, for `MCMC.run(key, init_params=...)` of a NumPyro
        model.
        """
        return _split(self.positions, self._coordinates().sites_in_order)

    def _coordinates(self) -> Coordinates:
        latents = self.target.latents
        if latents is None:
            raise ValueError(
                "by site is for targets whose supports are fixed; take `potential` and `positions`."
            )
        return Coordinates(latents.sites)


def _split(u: Array, sites: Any) -> dict[str, Array]:
    """{site: [..., *free shape]} of u [..., D]."""
    values = {}
    begin = 0
    for site in sites:
        end = begin + math.prod(site.free_shape)
        values[site.name] = u[..., begin:end].reshape(*u.shape[:-1], *site.free_shape)
        begin = end
    return values


def begin_chains(target: Target, guide_draws: Array, key: Array, num_chains: int) -> WarmStart:
    """Starts at draws of a guide, with the covariance of all of them.

    Args:
      target: whose density is sampled.
      guide_draws: [S, D], of the guide.
      key: of the choice.
      num_chains: C, each from a draw of its own.

    Raises:
      ValueError: fewer draws than chains, or no chain.
    """
    num_given, size = guide_draws.shape
    if num_chains < 1:
        raise ValueError(f"a warm start expects num_chains of at least 1; got {num_chains}.")
    if num_given < num_chains:
        raise ValueError(f"{num_chains} chains start from as many draws; got {num_given}.")
    centred = guide_draws - jnp.mean(guide_draws, 0)
    mass = jnp.mean(centred**2, 0)
    if size <= MAX_DENSE:
        mass = centred.T @ centred / num_given + 1e-6 * jnp.diag(mass)
    rows = jax.random.choice(key, num_given, (num_chains,), replace=False)
    starts = guide_draws[rows] if num_chains > 1 else guide_draws[rows[0]]
    return WarmStart(target, starts, mass)
