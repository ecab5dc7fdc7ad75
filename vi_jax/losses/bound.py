"""The negative of any bound of log-weights under any estimator, for a batch."""

from collections.abc import Callable
from typing import Any

import jax

from vi_jax.attributes import attribute, name_of
from vi_jax.losses.elbo import update_on_batch
from vi_jax.losses.free_bits import sum_all
from vi_jax.losses.info import Info, Loss
from vi_jax.types import Array, Densities, LogJoint, Model, Params, num_examples

Estimator = Callable[..., Array]


def negative_bound(
    model: Model,
    bound: Callable[[Array], Array],
    estimator: Estimator,
    *,
    num_samples: int = 1,
    name: str = "bound",
) -> Loss:
    """The negative of any bound of log-weights under any estimator: IWAE, SGVB-A, ...; minimised.

    Args:
      model: of one example, with densities.
      bound: log_w [K] -> scalar.
      estimator: `estimate(key, bound, log_joint, q, num_samples=K)`.
      num_samples: K.
      name: of the metric that reports the bound.

    Returns:
      A Loss. What `Model.update` moves is updated by the model's terms at one draw.

    Raises:
      ValueError: the model has no densities, or has `train_terms`: a bound of log-weights knows no
        dropout; or the bound is an upper one (`bounds.cubo`, `eubo`), which only falls towards log
        p(x): climbing it drives the guide away from the posterior.
    """
    densities = densities_of(model, "negative_bound")
    if attribute(bound, "side") == "upper":
        raise ValueError(
            f"negative_bound climbs its bound, and {name_of(bound)} is an upper bound of log p(x); "
            "take a lower one, such as iwae. Upper ones bracket the evidence (vi.evidence)."
        )
    if model.train_terms is not None:
        raise ValueError(
            "negative_bound goes by the densities and knows no dropout, and this model has "
            "train_terms; take negative_elbo, or the model with train_terms=None."
        )

    def loss(params: Params, key: Array, batch: Any, step: Array) -> tuple[Array, Info]:
        del step
        params, moved = update_on_batch(model, params, key, batch, 1)
        values = batch_bound(key, model, params, batch, bound, estimator, num_samples=num_samples)
        metrics = {name: values.mean()}
        value = -metrics[name]
        if densities.penalty is not None:
            penalties = jax.vmap(densities.penalty, (None, 0))(params, batch)
            metrics["penalty"] = sum_all(jax.tree.map(lambda leaf: leaf.mean(0), penalties))
            value = value + metrics["penalty"]
        return value, Info(metrics, params, moved)

    return loss


def batch_bound(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    bound: Callable[[Array], Array],
    estimator: Estimator,
    *,
    num_samples: int,
) -> Array:
    """One bound for each example of x, leaves [B, ...]; nats, [B].

    Raises:
      ValueError: the model has no densities.
    """
    densities = densities_of(model, "batch_bound")

    def one(key: Array, x: Any) -> Array:
        q = densities.guide(params, x)
        return estimator(key, bound, log_joint(model, params, x), q, num_samples=num_samples)

    return jax.vmap(one)(jax.random.split(key, num_examples(x)), x)


def log_joint(model: Model, params: Params, x: Any) -> LogJoint:
    """z -> log p(z) + log p(x | z) for one example x.

    Raises:
      ValueError: the model has no densities.
    """
    densities = densities_of(model, "log_joint")
    prior = densities.prior(params, x)
    return lambda z: prior.log_prob(z) + densities.log_lik(params, x, z)


def densities_of(model: Model, user: str) -> Densities:
    """The model's densities, or a ValueError that names who asks for them."""
    if model.densities is None:
        raise ValueError(
            f"{user} expects a model with densities, and this one has its terms alone; train it "
            "by negative_elbo."
        )
    return model.densities
