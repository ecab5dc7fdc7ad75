"""The Gaussian Markov chain over time steps, by the block-bidiagonal Cholesky factor of its
precision.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.families._pytree import Latents, Layout, read_latents
from vi_jax.gaussian import VectorGuide, fill_tril, log_standard_normal
from vi_jax.types import Array, Family, Params


class StepLayout(NamedTuple):
    """Where leaves [T, ...] lie in one vector [T d]: all of the first step, then all of the second.
    Hashable.
    """

    layout: Layout
    num_steps: int

    @property
    def event_shape(self) -> Any:
        return self.layout.event_shape

    def _step(self) -> Layout:
        return Layout(self.layout.treedef, tuple(shape[1:] for shape in self.layout.shapes))

    def ravel(self, tree: Any) -> Array:
        rows = self._step().ravel(tree)  # [..., T, d]
        return rows.reshape(*rows.shape[:-2], -1)

    def unravel(self, vector: Array) -> Any:
        return self._step().unravel(vector.reshape(*vector.shape[:-1], self.num_steps, -1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MarkovChain(VectorGuide):
    """N(mu, (L L')^-1) with L block-bidiagonal: blocks L_t on the diagonal, B_t below it."""

    loc: Array  # [T d]
    log_diag: Array  # [T, d], of L_t
    lower: Array  # [T, d (d - 1) / 2], of L_t, by rows
    below: Array  # [T - 1, d, d], B_t in row t + 1 and column t

    @property
    def mean(self) -> Array:
        return self.loc

    def _trils(self) -> Array:
        return jax.vmap(fill_tril)(self.log_diag, self.lower)  # [T, d, d]

    def _below(self) -> Array:
        # nothing follows the last
        return jnp.concatenate(
            [self.below, jnp.zeros((1, *self.below.shape[1:]), self.below.dtype)]
        )

    def transport(self, eps: Array) -> Array:
        """Solves L' x = eps from the last step to the first: L_t' x_t = eps_t - B_t' x_(t+1)."""

        def step(x_next: Array, blocks: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            tril, below, eps_t = blocks
            x = linalg.solve_triangular(tril, eps_t - below.T @ x_next, trans=1, lower=True)
            return x, x

        start = jnp.zeros_like(self.log_diag[0])
        _, x = jax.lax.scan(
            step,
            start,
            (self._trils(), self._below(), eps.reshape(self.log_diag.shape)),
            reverse=True,
        )
        return self.loc + x.reshape(-1)

    def log_density(self, z: Array) -> Array:
        x = (z - self.loc).reshape(self.log_diag.shape)
        x_next = jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])
        # L' x
        eps = jnp.einsum("tij,ti->tj", self._trils(), x) + jnp.einsum(
            "tij,ti->tj", self._below(), x_next
        )
        return log_standard_normal(eps) + self.log_diag.sum()


def gaussian_markov_chain(example: Any, *, num_steps: int | None = None) -> Family:
    """q(z_1, ..., z_T) = N(mu, (L L')^-1) with a block-tridiagonal precision: z_t depends on its
    neighbours alone (Archer et al. 2015; Bamler & Mandt 2017). Samples and densities are O(T d^3),
    whatever the correlation length.

    Args:
      example: an array [T, d], or a pytree of arrays [T, ...] whose entries of one step are one
        block; or D = T d, for latents [D] that are T steps one after another.
      num_steps: T, where `example` is a number; T = D (steps of one number) if not given.

    Returns:
      A Family whose parameters are {"loc": [D], "log_diag": [T, d], "lower": [T, d (d - 1) / 2],
      "below": [T - 1, d, d]}, of the *precision's* factor: a larger log_diag is a narrower guide.
      Zeros are the standard normal.

    Raises:
      ValueError: there are no latents, some are not real, the leaves' first axes differ, or T does
        not divide D.
    """
    latents = read_latents("gaussian_markov_chain", example)
    if latents.layout is None:
        steps = latents.size if num_steps is None else num_steps
        if steps < 1 or latents.size % steps:
            raise ValueError(
                "gaussian_markov_chain expects D latents in num_steps equal steps; got "
                f"{latents.size} and {steps}."
            )
    else:
        firsts = {shape[:1] for shape in latents.layout.shapes}
        if len(firsts) != 1 or firsts == {()} or num_steps not in (None, *next(iter(firsts))):
            raise ValueError(
                "gaussian_markov_chain expects leaves [T, ...] of one T (and num_steps equal to "
                "it, or none); got shapes "
                f"{latents.layout.event_shape} and num_steps {num_steps}."
            )
        steps = latents.layout.shapes[0][0]
        latents = Latents(latents.size, StepLayout(latents.layout, steps))
    width = latents.size // steps

    def init(key: Array) -> Params:
        del key  # starts at the standard normal, whatever the key
        return {
            "loc": jnp.zeros(latents.size),
            "log_diag": jnp.zeros((steps, width)),
            "lower": jnp.zeros((steps, math.comb(width, 2))),
            "below": jnp.zeros((steps - 1, width, width)),
        }

    def guide(params: Params) -> Any:
        return latents.wrap(
            MarkovChain(params["loc"], params["log_diag"], params["lower"], params["below"])
        )

    return Family(init, guide)
