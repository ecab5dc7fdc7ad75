"""A guide q(hyper) q(rest | hyper) whose second part is a Gaussian that follows the first."""

import math
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import linalg
from vi_jax.families.sparse_precision import Sparsity
from vi_jax.gaussian import VectorGuide, log_standard_normal
from vi_jax.methods._skew import skew, unskew
from vi_jax.sparse import arrow as blocked
from vi_jax.sparse.arrow import Blocks
from vi_jax.types import Array

# total degree of the polynomials in so many hyperparameters; of more, squares and products
DEGREES = {1: 5, 2: 4, 3: 3}
FARTHEST = 4.0  # standard deviations beyond which the conditional Gaussian no longer changes


class Skewed(NamedTuple):
    """hyper = loc + R y, y_i independent of mean 0 and variance 1 and skewed."""

    loc: Array  # [h]
    root: Array  # R, [h, h], lower triangular
    shape: Array  # epsilon, [h]; 0 is the normal

    def transport(self, x: Array) -> Array:
        """hyper [h] of a standard normal x [h]."""
        return self.loc + self.root @ skew(x, self.shape)

    def inverse(self, hyper: Array) -> tuple[Array, Array]:
        """The standard normal x [h] of hyper [h], and the density there, nats."""
        y = linalg.solve_triangular(self.root, hyper - self.loc, lower=True)
        x, log_slope = unskew(y, self.shape)
        log_det = jnp.log(jnp.diagonal(self.root)).sum()
        return x, log_standard_normal(x) + log_slope.sum() - log_det


def powers(num_hypers: int) -> np.ndarray:
    """Exponents [F, h] of the polynomials, the constant first."""
    degree = DEGREES.get(num_hypers, 2)
    rows = [
        np.bincount(chosen, minlength=num_hypers) if chosen else np.zeros(num_hypers, int)
        for total in range(degree + 1)
        for chosen in combinations_with_replacement(range(num_hypers), total)
    ]
    return np.stack(rows)


def features(x: Array) -> Array:
    """Hermite polynomials of x [h], of variance 1 where x is standard normal, [F]."""
    x = jnp.clip(x, -FARTHEST, FARTHEST)
    exponents = powers(x.size)
    hermite = [jnp.ones_like(x), x]
    for k in range(1, int(exponents.max())):
        hermite.append(x * hermite[k] - k * hermite[k - 1])
    scaled = [row / math.sqrt(math.factorial(k)) for k, row in enumerate(hermite)]
    table = jnp.stack(scaled)[: int(exponents.max()) + 1]  # [degree + 1, h]
    return jnp.prod(table[exponents, np.arange(x.size)], axis=1)


class Follows(NamedTuple):
    """Mean and precision factor of the rest as polynomials of x = T (hyper - loc)."""

    loc: Array  # [h]
    inverse_root: Array  # T, [h, h]
    mean: Array  # [F, n]
    log_diag: Array  # [F, n], of L
    lower: Array  # [F, M], entries of L below its diagonal over the diagonal of their column


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NestedGaussian(VectorGuide):
    """q(hyper) N(rest | m(hyper), (L(hyper) L(hyper)')^-1)."""

    hyper: Skewed
    follows: Follows
    hypers: tuple[int, ...] = field(metadata={"static": True})  # latents
    sparsity: Sparsity = field(metadata={"static": True})  # of the rest

    @property
    def loc(self) -> Array:  # type: ignore[override]
        """Of the hyperparameters, and of the rest given them, [D]."""
        mean, _, _ = self._given(self.hyper.loc)
        return self._join(self.hyper.loc, mean)

    def transport(self, eps: Array) -> Array:
        inner, outer = self._split(eps)
        hyper = self.hyper.transport(inner)
        mean, _, factor = self._given(hyper)
        return self._join(hyper, mean + blocked.solve_upper(self.sparsity.arrow, factor, outer))

    def log_density(self, z: Array) -> Array:
        hyper, rest = self._split(z)
        _, log_hyper = self.hyper.inverse(hyper)
        mean, log_diag, factor = self._given(hyper)
        eps = blocked.times_upper(self.sparsity.arrow, factor, rest - mean)
        return log_hyper + log_standard_normal(eps) + log_diag.sum()

    def _given(self, hyper: Array) -> tuple[Array, Array, Blocks]:
        """Mean, log diagonal and factor of the rest."""
        follows = self.follows
        x = features(follows.inverse_root @ (hyper - follows.loc))
        log_diag = x @ follows.log_diag
        lower = (x @ follows.lower) * jnp.exp(log_diag)[column_latents(self.sparsity)]
        return x @ follows.mean, log_diag, self.sparsity.factor(log_diag, lower)

    def _split(self, u: Array) -> tuple[Array, Array]:
        return split(u, self.hypers)

    def _join(self, hyper: Array, rest: Array) -> Array:
        return join(hyper, rest, self.hypers)


def split(u: Array, hypers: tuple[int, ...]) -> tuple[Array, Array]:
    """Hyperparameters [h] and the rest [n] of u [D]."""
    rest = np.setdiff1d(np.arange(u.size), hypers)
    return u[np.array(hypers, int)], u[rest]


def join(hyper: Array, rest: Array, hypers: tuple[int, ...]) -> Array:
    """u [D]."""
    size = hyper.size + rest.size
    order = np.concatenate([hypers, np.setdiff1d(np.arange(size), hypers)]).astype(int)
    return jnp.concatenate([hyper, rest])[np.argsort(order)]


def column_latents(sparsity: Sparsity) -> np.ndarray:
    """The latent [M] of each entry's column."""
    places = sparsity.arrow.places
    latent = np.full(int(places.max()) + 1, -1)
    latent[places] = np.arange(len(places))
    return latent[np.array(sparsity.columns, int)]
