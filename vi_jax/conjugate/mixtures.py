"""Mixture models by the scores of their components: k-means++ starts and responsibilities."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.conjugate import cavi
from vi_jax.conjugate.engine import Model, Naturals, expected, inner
from vi_jax.types import Array, Params


def make_model(
    known: tuple[tuple[str, Callable[[Params], Array]], ...],
    prior: Callable[[], Naturals],
    scores: Callable[[Naturals, Array], Array],
) -> Model:
    """A mixture whose factors are independent given the assignments, so that one update moves all.

    Args:
      known: names and log-normalisers.
      prior: natural parameters of the conjugate prior.
      scores: (E[T], x) -> E[log p(x, c = k | b)], [K].
    """

    def log_prior(means: Naturals) -> Array:
        eta = prior()
        return sum(
            (inner(eta[name], means[name]) - a(eta[name]) for name, a in known), jnp.zeros(())
        )

    def log_lik(means: Naturals, x: Array) -> Array:
        # max over phi of sum_k phi_k (score_k - log phi_k)
        return jax.nn.logsumexp(scores(means, x))

    return Model(known, log_prior, log_lik, (tuple(name for name, _ in known),), prior, scores)


def as_rows(x: Any) -> Array:
    """[N] or [N, D] -> [N, D], floating."""
    x = jnp.asarray(x, jnp.result_type(float))
    if x.ndim not in (1, 2):
        raise ValueError(f"a mixture expects data of shape [N] or [N, D]; got {x.shape}.")
    return x[:, None] if x.ndim == 1 else x


def init(key: Array, model: Model, x: Array) -> Naturals:
    """The factors when every row of x [N, D] belongs to the nearest of K of them, which are chosen
    far from each other (k-means++: Arthur & Vassilvitskii 2007): from a symmetric start coordinate
    ascent would not move.

    Args:
      key: starts of different keys differ.
      model: a mixture.
      x: data, or part of it.
    """
    prior = expected(model, model.start())
    num_components = _scores(model, prior, x[0]).shape[0]

    def another(distance: Array, noise: Array) -> tuple[Array, Array]:
        # a row with chances as the squared distances
        seed = x[jnp.argmax(jnp.log(distance + 1e-30) + noise)]
        return jnp.minimum(distance, jnp.sum((x - seed) ** 2, 1)), seed

    noise = jax.random.gumbel(key, (num_components, len(x)), x.dtype)
    _, seeds = jax.lax.scan(another, jnp.full(len(x), jnp.finfo(x.dtype).max), noise)
    nearest = jnp.argmin(jnp.sum((x[:, None] - seeds) ** 2, -1), 1)

    # f with these local factors: linear, so that any expectations give its gradient
    def fixed(means: Naturals) -> Array:
        return model.log_prior(means) + jnp.sum(
            jax.vmap(lambda row, k: _scores(model, means, row)[k])(x, nearest)
        )

    return jax.grad(fixed)(prior)


def responsibilities(model: Model, natural: Naturals, x: Any) -> Array:
    """q(c_n = k) of the rows of x [N] or [N, D]: [N, K], rows sum to 1."""
    means = expected(model, natural)
    return jax.vmap(lambda row: jax.nn.softmax(_scores(model, means, row)))(as_rows(x))


def fit(
    key: Array, model: Model, x: Array, *, num_starts: int, num_sweeps: int, tolerance: float
) -> cavi.Fit:
    """Coordinate ascent from R starts of `init`."""
    starts = _starts(model, num_starts, key, x)
    return cavi.fit(model, x, starts, num_sweeps=num_sweeps, tolerance=tolerance)


@partial(jax.jit, static_argnums=(0, 1))
def _starts(model: Model, num_starts: int, key: Array, x: Array) -> Naturals:
    return jax.vmap(lambda key: init(key, model, x))(jax.random.split(key, num_starts))


def _scores(model: Model, means: Naturals, x: Array) -> Array:
    if model.scores is None:
        raise ValueError("this model is no mixture: it has no scores of components.")
    return model.scores(means, x)
