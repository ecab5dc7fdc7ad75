"""Expectation-maximisation of a model that learns in closed form, over all examples at a time."""

from functools import partial
from typing import Any, NamedTuple

import jax

from vi_jax.arguments import as_count
from vi_jax.types import Array, Model, Params, num_examples


class Fit(NamedTuple):
    """Where expectation-maximisation came to."""

    params: Params
    elbo: Array  # at the start of each iteration, sum over examples, nats, [num_iterations]


def em(
    key: Array,
    model: Model,
    x: Any,
    *,
    num_iterations: int,
    params: Params | None = None,
    batch_size: int = 128,
) -> Fit:
    """Iterations of statistics over all examples and of the model's own update (Dempster et al.
    1977; with a guide that is not exact, variational: Neal & Hinton 1998).

    The parameters are those of training by gradients: either may go on where the other ended. An
    exact guide and an update at the optimum, such as those of `models.poisson_lds(forget=1.0)` with
    a Gaussian likelihood, never lower the ELBO, which is log p(x) then.

    Args:
      key: for the start, and what terms and updates draw.
      model: with `update`, whose `terms` have `stats`.
      x: examples, leaves [N, ...].
      num_iterations: at least 1.
      params: where to start; `model.init` if not given.
      batch_size: examples whose statistics are computed at a time; no effect beyond rounding.

    Raises:
      ValueError: the model has no update, or a number is not positive.
    """
    num_iterations = as_count(num_iterations, "num_iterations", what="iterations")
    batch_size = as_count(batch_size, "batch_size", what="examples")
    if model.update is None:
        raise ValueError(
            "em expects a model that learns in closed form, with `update`, such as "
            "models.poisson_lds(..., forget=1.0)."
        )
    key_init, key_steps = jax.random.split(key)
    if params is None:
        params = jax.jit(model.init)(key_init)
    size = min(batch_size, num_examples(x))
    return Fit(*_iterate(model, num_iterations, size, key_steps, params, x))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _iterate(
    model: Model, num_iterations: int, batch_size: int, key: Array, params: Params, x: Any
) -> tuple[Params, Array]:
    num = num_examples(x)
    update: Any = model.update

    def iterate(params: Params, key: Array) -> tuple[Params, Array]:
        key_update, key_terms = jax.random.split(key)

        def one(given: tuple[Array, Any]) -> tuple[Array, Any]:
            terms = model.terms(given[0], params, given[1])
            kl = jax.tree.reduce(lambda a, b: a + b.sum(), terms.kl, 0.0)
            return terms.log_lik - kl, terms.stats

        rows = (jax.random.split(key_terms, num), x)
        elbos, stats = jax.lax.map(one, rows, batch_size=batch_size)
        mean = jax.tree.map(lambda leaf: leaf.mean(0), stats)
        return update(key_update, params, mean), elbos.sum()

    return jax.lax.scan(iterate, params, jax.random.split(key, num_iterations))
