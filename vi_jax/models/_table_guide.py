"""The guide of a table that the decoder and the likelihood imply: the posterior of z where the
decoder is linear and each column normal around its output.

At z = 0 the decoder puts out o, with the Jacobian J. A column's likelihood as a function of its
output eta is taken for exp(g (eta - o) - F (eta - o)^2 / 2), so that

    q(z) = N(z | P^-1 J' g, P^-1),  P = I + J' F J

with F = 0 and g = 0 where nothing is observed. That is the posterior itself if the decoder is
linear and the columns are Gaussian. Real columns: F = 1 / scale^2, g = F (x - o). Counts: log (x +
1/2) is taken for normal around log rate, with the variance 1 / (x + 1/2) + 1 / r that the delta
method gives. Classes: g is the score and F Fisher's information, so that the mean is one step of
Fisher scoring (McCullagh & Nelder 1989, sec. 2.5).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax import linalg
from vi_jax.distributions import NegativeBinomial, ZeroInflated
from vi_jax.models import _columns
from vi_jax.models._columns import Group
from vi_jax.models._table import Table
from vi_jax.models._table_distribution import Row, take
from vi_jax.types import Array, Params

_CLASSES = (*_columns.CLASSES, "bernoulli")
MAX_LOG_SCALE = 3.0  # of what an encoder makes of the posterior's scales


class Quadratic(NamedTuple):
    """A log-likelihood as a function of outputs, about those at z = 0, [M] each."""

    slope: Array  # g
    precision: Array  # F, at least 0


def quadratic(table: Table, own: Params, outputs: Array, x: Row, seen: Array) -> Quadratic:
    """What the seen entries of one example say of the outputs.

    Args:
      table: its columns.
      own: parameters of the likelihoods.
      outputs: o, [M].
      x: one example.
      seen: bool, [D].
    """
    values = table.layout.filled(x["values"], seen)
    given = table.distribution(own, outputs, table.context(x))
    slopes = []
    precisions = []
    for number, group in enumerate(table.groups):
        of_group = group.outputs(outputs)
        part = given.parts[number]
        if group.kind in _CLASSES:
            slope, precision = _of_classes(group, own, of_group, table.layout.of(number, values))
        else:
            first = _of_numbers(table, group, part, of_group[:, 0], table.layout.of(number, values))
            slope, precision = (_of_first(leaf, of_group.shape[1]) for leaf in first)
        shown = take(seen, group.columns)[:, None]
        slopes.append(jnp.where(shown, slope, 0.0).ravel())
        precisions.append(jnp.where(shown, precision, 0.0).ravel())
    return Quadratic(jnp.concatenate(slopes), jnp.concatenate(precisions))


def posterior(of_outputs: Quadratic, jacobian: Array) -> tuple[Array, Array]:
    """The mean [K] and the lower factor [K, K] of the covariance of q(z).

    P^-1 = A A' with A lower: the factor of P with rows and columns in reverse order, inverted and
    turned back, so that no second factorisation is needed.

    Args:
      of_outputs: see `Quadratic`.
      jacobian: J, [M, K].
    """
    eye = jnp.eye(jacobian.shape[1], dtype=jacobian.dtype)
    precision = eye + (jacobian.T * of_outputs.precision) @ jacobian
    factor = linalg.cholesky(precision[::-1, ::-1])
    inverse = linalg.solve_triangular(factor, eye, lower=True)
    scale_tril = inverse.T[::-1, ::-1]
    return scale_tril @ (scale_tril.T @ (jacobian.T @ of_outputs.slope)), scale_tril


def gaussian(loc: Array, scale_tril: Array) -> Any:
    """N(loc, A A'). A is a factor by construction: numpyro's check of it, where that is on,
    allocates masks of a whole batch, even of one that is only being estimated.
    """
    return dist.MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)


def moved(loc: Array, scale_tril: Array, row: Array) -> Any:
    """The posterior moved by an encoder, in the posterior's own coordinates: N(loc + A t, A S^2 A')
    with (t, log S) its row [2 K].
    """
    (shift, log_scale) = jnp.split(row, 2)
    scale = jnp.exp(MAX_LOG_SCALE * jnp.tanh(log_scale / MAX_LOG_SCALE))
    return gaussian(loc + scale_tril @ shift, scale_tril * scale)


def _of_numbers(
    table: Table, group: Group, part: Any, output: Array, x: Array
) -> tuple[Array, Array]:
    """g and F [n] of a group's first outputs: means, or log rates."""
    if group.kind in _columns.COUNTS:
        return _of_counts(part, x)
    unit: Any = 1.0
    if group.kind == "log_normal":
        scales = [table.columns[number].scale for number in group.columns]
        unit = jnp.asarray(scales, output.dtype)
        x = jnp.log(x)
    precision = (unit / part.scale) ** 2
    return precision * (x / unit - output), precision


def _of_counts(part: Any, x: Array) -> tuple[Array, Array]:
    """g and F [n]; a zero that may be an inflated one counts by the chance that it is not."""
    share: Any = 1.0
    if isinstance(part, ZeroInflated):
        log_gate = jax.nn.log_sigmoid(-part.gate_logits)
        of_base = log_gate + part.base.log_prob(jnp.zeros_like(x))
        share = jnp.where(x == 0, jnp.exp(of_base - part.log_prob(jnp.zeros_like(x))), 1.0)
        part = part.base
    of_negative_binomial = isinstance(part, NegativeBinomial)
    log_rate = part.log_mean if of_negative_binomial else part.log_rate
    variance = 1.0 / (x + 0.5)
    if of_negative_binomial:
        variance = variance + jnp.exp(-part.log_dispersion)
    precision = share / variance
    return precision * (jnp.log(x + 0.5) - log_rate), precision


def _of_classes(group: Group, own: Params, outputs: Array, x: Array) -> tuple[Array, Array]:
    """The score, and the diagonal of Fisher's information, of classes' outputs [n, O]."""

    def log_probs(outputs: Array, x: Array) -> Array:
        return group.likelihood.make(own[group.name], outputs).log_prob(x)

    def score(x: Array) -> Array:
        return jax.grad(lambda outputs: log_probs(outputs, x).sum())(outputs)

    def weighted(level: Array) -> Array:
        levels = jnp.full(group.size, level)
        return jnp.exp(log_probs(outputs, levels))[:, None] * score(levels) ** 2

    is_binary = group.kind == "bernoulli"
    dtype = outputs.dtype if is_binary else jnp.int32
    num_levels = 2 if is_binary else group.num_levels
    levels = jnp.arange(num_levels, dtype=dtype)
    information = jax.vmap(weighted)(levels).sum(axis=0)
    return score(x.astype(dtype)), information


def _of_first(leaf: Array, num_outputs: int) -> Array:
    """[n, O] of a number [n] for each first output, 0 for scales and for logits of zeros."""
    return jnp.pad(leaf[:, None], [(0, 0), (0, num_outputs - 1)])
