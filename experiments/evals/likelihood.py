"""The spread of a Gaussian likelihood whose sigma is a parameter."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.evals.base import Evaluation, Row, Subject

SIGMA = ("likelihood", "log_sigma")  # where a model keeps it among its parameters


def make(subject: Subject) -> Evaluation | str:
    """The evaluation, of models with such a parameter."""
    shapes = jax.eval_shape(subject.model.init, jax.random.key(0))
    if _log_sigma(shapes) is None:
        return "the likelihood has no sigma among its parameters"

    def reduce(key: jax.Array, params: Any, x: Any, terms: dict[str, Any]) -> dict[str, Any]:
        del key, x, terms
        return {"sigma": jnp.sqrt(jnp.mean(jnp.exp(2.0 * _log_sigma(params))))}

    return Evaluation(
        "likelihood",
        lambda key, params, x: {},
        reduce,
        lambda found: {"sigma": float(found["sigma"])},
        lambda summary: [Row("sigma, root mean square", f"{summary['sigma']:>11.4f}")],
    )


def _log_sigma(params: Any) -> Any:
    for name in SIGMA:
        if not isinstance(params, dict) or name not in params:
            return None
        params = params[name]
    return params
