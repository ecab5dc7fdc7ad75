"""Conjugate-exponential models as one function of expectations, for coordinate ascent and
stochastic variational inference.

For q(b) = prod_j q_j(b_j) of natural parameters lambda_j, expected statistics mu_j = E[T_j] are the
gradient of the log-normaliser A_j, and f(mu) = E[log p(x, z, b)] + H[q(z)] is linear in each mu_j
while the local factors q(z) stand. With those at their optimum f has the same gradient there (the
envelope theorem), so the update of a factor is a gradient (Hoffman et al. 2013, eq. 11, 12):

    lambda_j <- df / dmu_j,     ELBO = f(mu) + sum_j A_j(lambda_j) - <lambda_j, mu_j>.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.types import Array, Params

Naturals = dict[str, Params]  # of each factor; expectations have the same names


class Model(NamedTuple):
    """A conjugate-exponential model of exchangeable examples. Linear in the expectations of each
    factor, other factors and local ones fixed: this is what makes the updates right, and is not
    checked.
    """

    factors: tuple[tuple[str, Callable[[Params], Array]], ...]  # names and log-normalisers
    log_prior: Callable[[Naturals], Array]  # E[T] -> E[log p(b)], nats
    # (E[T], one example x) -> max over q(z) of E[log p(x, z | b)] + H[q(z)], nats
    log_lik: Callable[[Naturals, Any], Array]
    # what to update together, in order; together only what the rest makes independent
    sweep: tuple[tuple[str, ...], ...]
    start: Callable[[], Naturals]  # natural parameters of a neutral start
    # of a mixture: E[log p(x, c = k | b)], [K]; log_lik is their logsumexp
    scores: Callable[[Naturals, Any], Array] | None = None


def expected(model: Model, natural: Naturals) -> Naturals:
    """E[T] of every factor."""
    return {name: jax.grad(log_normalizer)(natural[name]) for name, log_normalizer in model.factors}


def log_joint(model: Model, means: Naturals, x: Any, scale: float = 1.0) -> Array:
    """f(mu) on the examples of x (a pytree [B, ...]), each counted `scale` times."""
    return model.log_prior(means) + scale * jnp.sum(
        jax.vmap(lambda row: model.log_lik(means, row))(x)
    )


def inner(a: Any, b: Any) -> Array:
    """<a, b> of two pytrees."""
    return sum(
        (jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)),
        jnp.zeros(()),
    )


def entropy(model: Model, natural: Naturals, means: Naturals) -> Array:
    """H[q(b)], nats."""
    return sum(
        (a(natural[name]) - inner(natural[name], means[name]) for name, a in model.factors),
        jnp.zeros(()),
    )


def elbo(model: Model, natural: Naturals, x: Any) -> Array:
    """The ELBO with the local factors at their optimum, nats."""
    means = expected(model, natural)
    return log_joint(model, means, x) + entropy(model, natural, means)


def optimum(model: Model, natural: Naturals, x: Any, scale: float = 1.0) -> Naturals:
    """lambda-hat: what every factor should be, given the others and the local factors (Hoffman et
    al. 2013, eq. 12, 34).
    """
    return jax.grad(lambda means: log_joint(model, means, x, scale))(expected(model, natural))
