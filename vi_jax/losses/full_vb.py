"""Full variational Bayes: a posterior over the weights of a model besides that over its latents."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vi_jax.attributes import declare
from vi_jax.losses.elbo import batch_terms, require_paths
from vi_jax.losses.free_bits import sum_all
from vi_jax.losses.info import Info, Loss
from vi_jax.losses.schedules import Schedule, as_schedule
from vi_jax.models.local_weights import at_local_weights
from vi_jax.types import Array, Densities, Model, Params, Terms

LOG_SCALE = -5.0  # of the weights' posterior at the start
POINTS = ("encoder", "guide")
PASSES = 3  # over the two variances of a learned prior, from which the KL changes no more
LEARNED: Literal["learned"] = "learned"
NOISES = ("local", "shared")


def variational_weights(
    model: Model, *, log_scale: float = LOG_SCALE, points: Sequence[str] = POINTS
) -> Model:
    """The model with q(w) = N(mean, diag(e^(2 log_scale))) over its weights w, to be trained by
    `full_vb`.

    Its parameters are {"mean", "log_scale"}: all of the model's, and the log of the standard
    deviation of those that have a posterior. Terms and densities are those of the model at the
    mean weights; `draw_weights` gives others.

    Args:
      model: its parameters a dictionary, as of `vi_jax.models`.
      log_scale: where the posterior starts.
      points: parameters that stay a point estimate, by their names in that dictionary; those that
        the model lacks are passed over. The guide's weights are parameters of q, not of the
        model, and have no posterior (Kingma & Welling 2013, appendix F).

    Raises:
      ValueError: the model updates parameters of its own, or (at `init`) no weight is left.
    """
    if model.update is not None:
        raise ValueError(
            "variational_weights expects a model whose parameters all have a gradient; this one "
            "has an update. Take a likelihood with trained parameters, such as gaussian_learned."
        )

    def init(key: Array) -> Params:
        mean = model.init(key)
        random = {name: part for name, part in mean.items() if name not in points}
        if not jax.tree.leaves(random):
            raise ValueError(
                f"variational_weights expects weights beside {', '.join(points)}; the model's "
                f"parameters are {', '.join(mean)}."
            )
        start = jax.tree.map(lambda leaf: jnp.full(leaf.shape, log_scale, leaf.dtype), random)
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
    means = _random(params)
    leaves, structure = jax.tree.flatten(means)
    scales = jax.tree.leaves(params["log_scale"])
    keys = jax.random.split(key, max(len(leaves), 1))
    drawn = [
        mean + jnp.exp(log_scale) * jax.random.normal(k, mean.shape, mean.dtype)
        for k, mean, log_scale in zip(keys, leaves, scales, strict=False)
    ]
    return _with_weights(params, jax.tree.unflatten(structure, drawn))


def weights_kl(params: Params, *, prior_scale: float | Literal["learned"] = 1.0) -> Array:
    """KL(q(w) || N(0, prior_scale^2 I)), nats, summed over all weights.

    With "learned" the prior is that of the least KL (empirical Bayes): a vector has one scale, the
    root of the mean of v = mean^2 + e^(2 log_scale), and a matrix [..., n, m] the variance a_i b_j
    for each input i and each output j, where a_i = mean_j v_ij / b_j and b_j = mean_i v_ij / a_i,
    by `PASSES` of both. A unit that is of no use, or a pixel that is always black, then costs
    nothing.
    """
    each = jax.tree.map(
        lambda mean, log_scale: _kl(mean, log_scale, prior_scale),
        _random(params),
        params["log_scale"],
    )
    return sum_all(each)


@declare(of_model=variational_weights)
def full_vb(
    model: Model,
    *,
    num_data: int,
    prior_scale: float | Literal["learned"] = 1.0,
    noise: Literal["local", "shared"] = "local",
    beta: float | Schedule = 1.0,
    num_samples: int = 1,
) -> Loss:
    """-E_q(w) [(1/B) sum_b ELBO(x_b; w)] + KL(q(w) || p(w)) / N, minimised: the bound of log p(X)
    of Kingma & Welling (2013), appendix F, an example.

    Args:
      model: of `variational_weights`.
      num_data: N, training examples.
      prior_scale: of p(w) = N(0, prior_scale^2 I), or "learned", see `weights_kl`.
      noise: "local", a sample of every product of weights for each example
        (`vi_jax.models.local_weights`), or "shared", one sample of all weights for each batch. Both
        have the same mean.
      beta: weight of both KLs, or a function of the step: without a warm-up the cost of all weights
        may prune every unit before the first is of use. Only at 1 is the loss the negative of a
        bound; the metric `elbo` always is one.
      num_samples: samples of z for each example.

    Returns:
      A Loss of metrics `elbo` (of the latents and the weights, KL(w) / N subtracted), `log_lik`,
      `kl`, `kl_weights` (that KL / N) and `beta`.

    Raises:
      ValueError: N is below 1, prior_scale is not positive, the noise is another word, or as for
        `negative_elbo`.
    """
    is_scale = prior_scale == LEARNED or (not isinstance(prior_scale, str) and prior_scale > 0)
    if num_data < 1 or not is_scale:
        raise ValueError(
            f"full_vb expects num_data of at least 1 and prior_scale > 0 or {LEARNED!r}; got "
            f"{num_data} and {prior_scale!r}."
        )
    if noise not in NOISES:
        raise ValueError(f"full_vb expects noise to be one of {', '.join(NOISES)}; got {noise!r}.")
    weight = as_schedule(beta)
    trained = _local(model) if noise == "local" else _shared(model)

    def loss(params: Params, key: Array, batch: Any, step: Array) -> tuple[Array, Info]:
        require_paths(model, params, batch)
        key_weights, key_terms = jax.random.split(key)
        drawn = {**params, "drawn": draw_weights(key_weights, params)["mean"]}
        terms = batch_terms(
            key_terms, trained, drawn, batch, num_samples=num_samples, training=True
        )
        log_lik = terms.log_lik.mean()
        kl = sum_all(jax.tree.map(lambda leaf: leaf.mean(0), dict(terms.kl)))
        of_weights = weights_kl(params, prior_scale=prior_scale) / num_data
        elbo = log_lik - kl - of_weights
        scale = jnp.asarray(weight(step), log_lik.dtype)
        metrics = {"elbo": elbo, "log_lik": log_lik, "kl": kl, "kl_weights": of_weights}
        metrics["beta"] = scale
        value = scale * (kl + of_weights) - log_lik
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


def _shared(model: Model) -> Model:
    """The model at the sample of weights that a batch shares, of parameters with `drawn`."""

    def at_sample(terms: Any) -> Any:
        def called(key: Array, params: Params, x: Any) -> Terms:
            return terms(key, {**params, "mean": params["drawn"]}, x)

        return called

    return _with_terms(model, at_sample)


def _local(model: Model) -> Model:
    """The model at weights whose noise is each example's own, of parameters with `drawn`."""

    def at_local(terms: Any) -> Any:
        def called(key: Array, params: Params, x: Any) -> Terms:
            key_weights, key_terms = jax.random.split(key)

            def at(weights: Params) -> Terms:
                return terms(key_terms, _with_weights(params, weights), x)

            shared = _random({**params, "mean": params["drawn"]})
            return at_local_weights(key_weights, at, _random(params), params["log_scale"], shared)

        return called

    return _with_terms(model, at_local)


def _with_terms(model: Model, change: Any) -> Model:
    train_terms = None if model.train_terms is None else change(model.train_terms)
    return model._replace(terms=change(model.terms), train_terms=train_terms)


def _random(params: Params) -> Params:
    """The means of the weights that have a posterior."""
    return {name: params["mean"][name] for name in params["log_scale"]}


def _with_weights(params: Params, weights: Params) -> Params:
    """The parameters with these weights in the place of the means of those with a posterior."""
    return {**params, "mean": {**params["mean"], **weights}}


def _kl(mean: Array, log_scale: Array, prior_scale: float | Literal["learned"]) -> Array:
    """Of each weight, of the shape of `mean`."""
    second = mean**2 + jnp.exp(2.0 * log_scale)
    if prior_scale == LEARNED:
        log_variance = _learned_log_variance(second)
    else:
        log_variance = jnp.asarray(2.0 * math.log(prior_scale), mean.dtype)
    return 0.5 * (second * jnp.exp(-log_variance) - 1.0 + log_variance - 2.0 * log_scale)


def _learned_log_variance(second: Array) -> Array:
    """Of the prior of the least KL, given E_q[w^2] of each weight; of a shape that goes with it."""
    if second.ndim < 2:
        return jnp.log(second.mean())
    rows = second.reshape(-1, second.shape[-1])
    of_inputs = jnp.ones((rows.shape[0], 1), rows.dtype)
    for _ in range(PASSES):
        of_outputs = (rows / of_inputs).mean(0, keepdims=True)
        of_inputs = (rows / of_outputs).mean(1, keepdims=True)
    return (jnp.log(of_inputs) + jnp.log(of_outputs)).reshape(second.shape)
