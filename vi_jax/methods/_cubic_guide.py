"""A Gaussian with the corrections that third derivatives of the log density ask for."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.families.sparse_precision import Sparsity
from vi_jax.gaussian import VectorGuide, log_standard_normal
from vi_jax.methods._skew import shape_of_skewness, skew, unskew
from vi_jax.optimise import curvature as hessians
from vi_jax.optimise.curvature import Curvature
from vi_jax.sparse import arrow as blocked
from vi_jax.sparse.arrow import Arrow, Blocks
from vi_jax.types import Array, LogDensity

MAX_BORDER = 80  # latents of the border with corrections of their own
MAX_PRODUCTS = 3e10  # D^2 b^2, above which means do not bend
MAX_PAIRS = 256  # of the border's latents that means follow: those of the largest coefficients


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CubicNormal(VectorGuide):
    """z = mu + L'^-1 y, where in the order of elimination each y_i is, given the standard normals
    h [b] of the border that come after it,

        y_i = s_i(eps_i) exp(c_i' h - |c_i|^2) + sum_(j <= k) B_ijk (h_j h_k - 1[j = k]),

    the sum over some pairs, s_i a skewed variable of mean 0 and variance 1. With zeros it is
    N(mu, (L L')^-1).
    """

    loc: Array  # [D]
    log_diag: Array  # [D], of L
    lower: Array  # [M], entries of L below its diagonal
    shape: Array  # [D], of `skew`
    scale: Array  # c, [D, b]; [D, 0] without
    bend: Array  # B, [D, P]; [D, 0] without
    pairs: Array  # j and k, int32 [P, 2]
    sparsity: Sparsity = field(metadata={"static": True})

    @property
    def mean(self) -> Array:
        return self.loc

    @property
    def factor(self) -> Blocks:
        """L."""
        return self.sparsity.factor(self.log_diag, self.lower)

    def transport(self, eps: Array) -> Array:
        border = eps[np.array(self.sparsity.arrow.border, int)]
        log_scale, shift = self._given(border)
        y = skew(eps, self.shape) * jnp.exp(log_scale) + shift
        return self.loc + blocked.solve_upper(self.sparsity.arrow, self.factor, y)

    def log_density(self, z: Array) -> Array:
        y = blocked.times_upper(self.sparsity.arrow, self.factor, z - self.loc)
        log_scale, shift = self._given(self._border_of(y))
        eps, log_slope = unskew((y - shift) * jnp.exp(-log_scale), self.shape)
        total = log_standard_normal(eps) + (log_slope - log_scale).sum()
        return total + self.log_diag.sum()

    def _given(self, border: Array) -> tuple[Array, Array]:
        """Log scale and shift [D] of each y given the border's normals [b]."""
        log_scale = jnp.zeros_like(self.loc)
        shift = jnp.zeros_like(self.loc)
        if self.scale.shape[1]:
            log_scale = self.scale @ border - jnp.sum(self.scale**2, axis=1)
        if self.bend.shape[1]:
            shift = self.bend @ _products(border, self.pairs)
        return log_scale, shift

    def _border_of(self, y: Array) -> Array:
        """The border's standard normals [b], from the last to the first."""
        border = np.array(self.sparsity.arrow.border, int)
        if not self.scale.shape[1]:
            return jnp.zeros(len(border), y.dtype)
        has_bend = self.bend.shape[1] > 0

        def step(known: Array, which: Array) -> tuple[Array, None]:
            # rows of what comes after alone are not 0
            latent = jnp.asarray(border)[which]
            row = self.scale[latent]
            log_scale = row @ known - row @ row
            shift = self.bend[latent] @ _products(known, self.pairs) if has_bend else 0.0
            inside = (y[latent] - shift) * jnp.exp(-log_scale)
            eps, _ = unskew(inside, self.shape[latent])
            return known.at[which].set(eps), None

        start = jnp.zeros(len(border), y.dtype)
        known, _ = jax.lax.scan(step, start, jnp.arange(len(border)), reverse=True)
        return known


def _products(h: Array, pairs: Array) -> Array:
    """h_j h_k - 1[j = k] of pairs, [P]."""
    rows = pairs[:, 0]
    columns = pairs[:, 1]
    return h[rows] * h[columns] - (rows == columns).astype(h.dtype)


class Corrections(NamedTuple):
    """Of a `CubicNormal`."""

    scale: Array
    bend: Array
    pairs: Array


def no_corrections(arrow: Arrow, dtype: Any) -> Corrections:
    """Zeros of their shapes."""
    num_scale, num_bend = num_corrections(arrow)
    return Corrections(
        jnp.zeros((arrow.size, num_scale), dtype),
        jnp.zeros((arrow.size, num_bend), dtype),
        jnp.zeros((num_bend, 2), jnp.int32),
    )


def num_corrections(arrow: Arrow) -> tuple[int, int]:
    """Columns of `scale` and of `bend` for a border."""
    size = arrow.size
    b = len(arrow.border)
    if arrow.is_dense or b > MAX_BORDER:
        return 0, 0
    pairs = min(MAX_PAIRS, b * (b + 1) // 2)
    return b, pairs if (size * b) ** 2 <= MAX_PRODUCTS else 0


def corrections(
    log_density: LogDensity, mean: Array, precision: Array, made: Curvature
) -> Corrections:
    """Those of the third derivatives T of log p at the mean, in the coordinates y:
    log p holds the cubic 1/6 sum T_ijk y_i y_j y_k, so that given those after it y_i has the mean
    1/2 sum T_ijk y_j y_k and the precision 1 - sum T_iij y_j, to first order in T.

    Args:
      precision: entries of P [M].
    """
    arrow = made.arrow
    num_scale, num_bend = num_corrections(arrow)
    size = mean.size
    none = no_corrections(arrow, mean.dtype)
    if not num_scale:
        return none

    def log_diagonal(precision: Array) -> Array:
        factor = blocked.cholesky(arrow, hessians.blocks(made, precision))
        return made.sparsity.entries(factor)[0]

    factor = blocked.cholesky(arrow, hessians.blocks(made, precision))
    unit = jnp.zeros((num_scale, size), mean.dtype)
    unit = unit.at[np.arange(num_scale), np.array(arrow.border, int)].set(1.0)
    directions = jax.vmap(lambda e: blocked.solve_upper(arrow, factor, e))(unit)  # [b, D]

    def along(direction: Array) -> tuple[Array, Array]:
        def curvature_at(u: Array) -> Array:
            return hessians.entries(log_density, u, made.colouring)[2]

        slope = jax.jvp(curvature_at, (mean,), (direction,))[1]
        # d log L_ii = 1/2 (L^-1 dP L'^-1)_ii
        narrower = jax.jvp(log_diagonal, (precision,), (-slope,))[1]
        if not num_bend:
            return -narrower, jnp.zeros((size, 0), mean.dtype)
        matrix = hessians.dense(made.colouring, slope)
        moved = directions @ matrix  # [b, D]
        bent = jax.vmap(lambda row: blocked.solve_lower(arrow, factor, row))(moved)
        return -narrower, bent.T

    scale, third = jax.lax.map(along, directions)  # [b, D], [b, D, b]
    after = _comes_after(arrow)  # [D, b]
    scale = jnp.where(after, scale.T, 0.0)
    if not num_bend:
        return none._replace(scale=scale)
    rows, columns = np.triu_indices(num_scale)
    bend = third.transpose(1, 0, 2)[:, rows, columns]
    bend = jnp.where(rows == columns, 0.5 * bend, bend)
    bend = jnp.where(after[:, rows] & after[:, columns], bend, 0.0)
    _, largest = jax.lax.top_k(jnp.sum(bend**2, axis=0), num_bend)
    pairs = jnp.asarray(np.stack([rows, columns], 1), jnp.int32)
    return Corrections(scale, bend[:, largest], pairs[largest])


def _comes_after(arrow: Arrow) -> np.ndarray:
    """Whether a latent of the border comes after a latent in the order, [D, b]."""
    places = arrow.places
    return places[:, None] < places[np.array(arrow.border, int)]


def cubic_normal(
    mean: Array, precision: Array, third: Array, made: Curvature, corrected: Corrections
) -> CubicNormal:
    """From the entries of P [M], and the third derivative of each y [D]."""
    factor = blocked.cholesky(made.arrow, hessians.blocks(made, precision))
    log_diag, lower = made.sparsity.entries(factor)
    shape = shape_of_skewness(third)
    return CubicNormal(mean, log_diag, lower, shape, *corrected, made.sparsity)
