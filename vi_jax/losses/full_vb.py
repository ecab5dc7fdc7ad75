"""Full variational Bayes: a posterior over the weights of a model besides that over its latents."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.losses.elbo import batch_terms, require_paths
from vi_jax.losses.free_bits import sum_all
from vi_jax.losses.info import Info, Loss
from vi_jax.types import Array, Densities, Model, Params

LOG_SCALE = -5.0  # of the weights' posterior at the start


def variational_weights(model: Model, *, log_scale: float = LOG_SCALE) -> Model:
    """The model with q(w) = N(mean, diag(e^(2 log_scale))) over all its weights w, to be trained by
    `full_vb`.

    Its parameters are {"mean", "log_scale"}, each like those of the model. Terms and densities are
    those of the model at the mean weights; `draw_weights` gives others.

    Raises:
      ValueError: the model updates parameters of its own.
    """
    if model.update is not None:
        raise ValueError(
            "variational_weights expects a model whose parameters all have a gradient; this one "
            "has an update. Take a likelihood with trained parameters, such as gaussian_learned."
        )

    def init(key: Array) -> Params:
        mean = model.init(key)
        start = jax.tree.map(lambda leaf: jnp.full(leaf.shape, log_scale, leaf.dtype), mean)
        return {"mean": mean, "log_scale": start}

    def at_mean(function: Any, *, first: int) -> Any:
        """`function` with the argument of a number, the parameters, read as their mean."""
        if function is None:
            return None

        def called(*args: Any) -> Any:
            weights = args[first]["mean"]
            return function(*args[:first], weights, *args[first + 1 :])

        return called

    densities = None
    if model.densities is not None:
        densities = Densities(*(at_mean(each, first=0) for each in model.densities))
    return Model(
        init,
        at_mean(model.terms, first=1),
        at_mean(model.generate, first=1),
        densities,
        at_mean(model.train_terms, first=1),
    )


def draw_weights(key: Array, params: Params) -> Params:
    """The parameters with a sample of q(w) in the place of its mean, reparameterised."""
    leaves, structure = jax.tree.flatten(params["mean"])
    scales = jax.tree.leaves(params["log_scale"])
    keys = jax.random.split(key, max(len(leaves), 1))
    drawn = [
        mean + jnp.exp(log_scale) * jax.random.normal(k, mean.shape, mean.dtype)
        for k, mean, log_scale in zip(keys, leaves, scales, strict=False)
    ]
    return {**params, "mean": jax.tree.unflatten(structure, drawn)}


def weights_kl(params: Params, *, prior_scale: float = 1.0) -> Array:
    """KL(q(w) || N(0, prior_scale^2 I)), nats, summed over all weights."""
    each = jax.tree.map(
        lambda mean, log_scale: _kl(mean, log_scale, prior_scale),
        params["mean"],
        params["log_scale"],
    )
    return sum_all(each)


def full_vb(model: Model, *, num_data: int, prior_scale: float = 1.0, num_samples: int = 1) -> Loss:
    """-E_q(w) [(1/B) sum_b ELBO(x_b; w)] + KL(q(w) || p(w)) / N, minimised: the bound of log p(X)
    of Kingma & Welling (2013), appendix F, an example.

    One sample of all weights for each batch, reparameterised, is shared by its examples.

    Args:
      model: of `variational_weights`.
      num_data: N, training examples.
      prior_scale: of p(w) = N(0, prior_scale^2 I).
      num_samples: samples of z for each example.

    Returns:
      A Loss of metrics `elbo` (of the latents and the weights, KL(w) / N subtracted), `log_lik`,
      `kl` and `kl_weights` (that KL / N).

    Raises:
      ValueError: N is below 1, prior_scale is not positive, or as for `negative_elbo`.
    """
    if num_data < 1 or not prior_scale > 0:
        raise ValueError(
            f"full_vb expects num_data of at least 1 and prior_scale > 0; got {num_data} and "
            f"{prior_scale}."
        )

    def loss(params: Params, key: Array, batch: Any, step: Array) -> tuple[Array, Info]:
        del step
        require_paths(model, params, batch)
        key_weights, key_terms = jax.random.split(key)
        drawn = draw_weights(key_weights, params)
        terms = batch_terms(key_terms, model, drawn, batch, num_samples=num_samples, training=True)
        log_lik = terms.log_lik.mean()
        kl = sum_all(jax.tree.map(lambda leaf: leaf.mean(0), dict(terms.kl)))
        of_weights = weights_kl(params, prior_scale=prior_scale) / num_data
        elbo = log_lik - kl - of_weights
        metrics = {"elbo": elbo, "log_lik": log_lik, "kl": kl, "kl_weights": of_weights}
        value = -elbo
        if jax.tree.leaves(terms.penalty):
            metrics["penalty"] = sum_all(jax.tree.map(lambda leaf: leaf.mean(0), terms.penalty))
            value = value + metrics["penalty"]
        return value, Info(metrics, params)

    return loss


def predictive(log_p: Array) -> Array:
    """log (1/S) sum_s p(x | w_s), nats, [...], from log p(x | w_s) of S samples of weights,
    [S, ...]: take 30 or more.
    """
    return jax.nn.logsumexp(log_p, axis=0) - math.log(log_p.shape[0])


def _kl(mean: Array, log_scale: Array, prior_scale: float) -> Array:
    ratio = log_scale - math.log(prior_scale)
    return 0.5 * ((mean / prior_scale) ** 2 + jnp.exp(2.0 * ratio) - 1.0 - 2.0 * ratio)
