"""A switching linear system as a guide: its posterior q(path) q(states), and its prior."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.chains.gaussian_chain import GaussianChain
from vi_jax.chains.kalman import Smoothed
from vi_jax.chains.states import StateChain
from vi_jax.chains.switching import Regimes, expected_moves, expected_start
from vi_jax.types import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SwitchingGuide:
    """q(path) q(states) of one trial, over {"path": [T, D], "states": int [T - 1]}."""

    path: GaussianChain
    states: StateChain
    gain: Array  # of the last pass, nats beyond rounding

    has_rsample = False
    batch_shape = ()

    @property
    def mean(self) -> dict[str, Array]:
        """E[z_t] [T, D], and the probabilities of the states [T - 1, K]."""
        return {"path": self.path.mean, "states": self.states.mean}

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Samples; reparameterised in the path alone."""
        (key_path, key_states) = jax.random.split(key)
        return {
            "path": self.path.sample(key_path, sample_shape),
            "states": self.states.sample(key_states, sample_shape),
        }

    def log_prob(self, value: Mapping[str, Array]) -> Array:
        """log q, nats."""
        return self.path.log_prob(value["path"]) + self.states.log_prob(value["states"])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SwitchingPrior:
    """p(states) p(path | states) of T steps."""

    regimes: Regimes
    states: StateChain

    has_rsample = False
    batch_shape = ()

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Samples of states, and of the path given them."""
        (key_states, key_first, key_path) = jax.random.split(key, 3)
        states = self.states.sample(key_states, sample_shape)
        r = self.regimes
        size = r.mean.shape[-1]
        eps = jax.random.normal(key_first, (*sample_shape, size), r.mean.dtype)
        first = r.mean + eps @ linalg.cholesky(r.cov).T
        noise = jax.random.normal(key_path, (*states.shape, size), r.mean.dtype)
        factors = linalg.cholesky(r.noise)

        def step(z: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
            (state, noise) = given
            moved = jnp.einsum("...ij,...j->...i", r.transition[state], z) + r.offset[state]
            z = moved + jnp.einsum("...ij,...j->...i", factors[state], noise)
            return z, z

        given = (jnp.moveaxis(states, -1, 0), jnp.moveaxis(noise, -2, 0))
        _, rest = jax.lax.scan(step, first, given)
        path = jnp.moveaxis(jnp.concatenate([first[None], rest]), 0, -2)
        return {"path": path, "states": states}

    def log_prob(self, value: Mapping[str, Array]) -> Array:
        """log p, nats, of one path and its states."""
        moves = self.log_moves(value["path"])
        own = moves[jnp.arange(len(moves)), value["states"]].sum()
        return self.log_first(value["path"]) + own + self.states.log_prob(value["states"])

    def log_path(self, path: Array) -> Array:
        """log p(path), the states summed out, nats."""
        chain = StateChain(self.states.log_start, self.states.log_transition, self.log_moves(path))
        return self.log_first(path) + chain.log_z

    def log_moves(self, path: Array) -> Array:
        """log p(z_(t+1) | z_t, k), [T - 1, K]."""
        return expected_moves(self.regimes, _point(path))

    def log_first(self, path: Array) -> Array:
        """log p(z_1), nats."""
        return expected_start(self.regimes, _point(path))


def _point(path: Array) -> Smoothed:
    """Moments of a path that is known."""
    size = path.shape[-1]
    cov = jnp.zeros((*path.shape, size), path.dtype)
    return Smoothed(path, cov, cov[:-1], jnp.zeros((), path.dtype))
