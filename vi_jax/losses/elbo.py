"""The negative ELBO of a batch by its terms: beta, warm-up and free bits by site and by group."""

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.attributes import attribute
from vi_jax.losses.free_bits import (
    Beta,
    By,
    FreeBits,
    Group,
    betas_at,
    check_free_bits,
    floors_of,
    sum_all,
    weighted_kl,
)
from vi_jax.losses.info import Info, Loss, Moved, moved_by, updated, without_moved
from vi_jax.losses.sites import site_kls, site_metrics
from vi_jax.types import Array, Model, Params, Terms, freeze, num_examples
from vi_jax.weights import require_reparameterised

NO_EXAMPLE = 0xFFFFFFFF


def batch_terms(
    key: Array,
    model: Model,
    params: Params,
    batch: Any,
    *,
    num_samples: int = 1,
    training: bool = False,
) -> Terms:
    """The terms of the ELBO for each example of a batch (Kingma & Welling 2013, eq. 7).

    Args:
      key: one typed PRNG key; each example draws with a key of its own.
      model, params: see `vi_jax.types.Model`.
      batch: pytree of arrays [B, ...].
      num_samples: draws of z per example, K; the terms are means over them.
      training: by `Model.train_terms` where the model has them.

    Returns:
      Terms of leaves [B, ...], nats, under `params` as they stand: nothing is updated. The ELBO of
      each example is log_lik less the sum of its KLs.

    Raises:
      ValueError: num_samples is below 1, or log_lik is not a scalar for one example.
    """
    _require_samples(num_samples)
    keys = jax.random.split(key, num_examples(batch))
    one = model.terms
    if training and model.train_terms is not None:
        one = model.train_terms

    def of_example(key: Array, x: Any) -> Terms:
        if num_samples == 1:  # an axis of one draw costs a twentieth of a step
            terms = one(key, params, x)
        else:
            draws = jax.vmap(one, (0, None, None))(jax.random.split(key, num_samples), params, x)
            terms = jax.tree.map(lambda leaf: leaf.mean(0), draws)
        if jnp.ndim(terms.log_lik):
            raise ValueError(
                "log_lik is one number for one example; got shape "
                f"{jnp.shape(terms.log_lik)}. Sum it over the observations."
            )
        return terms

    return jax.vmap(of_example)(keys, batch)


def example_terms(
    key: Array, model: Model, params: Params, x: Any, *, num_samples: int = 1
) -> dict[str, Any]:
    """Deprecated: `batch_terms`, as {"log_lik": [B], "kl": that of the only site, or all of
    them}.
    """
    warnings.warn(
        "losses.example_terms is now losses.batch_terms, which returns Terms; the old name goes "
        "with the next version.",
        DeprecationWarning,
        stacklevel=2,
    )
    terms = batch_terms(key, model, params, x, num_samples=num_samples)
    kls = {name: kl.value for name, kl in site_kls(terms).items()}
    return {"log_lik": terms.log_lik, "kl": kls["z"] if set(kls) == {"z"} else kls}


def negative_elbo(
    model: Model,
    *,
    num_samples: int = 1,
    beta: Beta = 1.0,
    free_bits: FreeBits = 0.0,
    group: Group = "dimension",
    by: By = "batch",
) -> Loss:
    """-E_q[log p(x | z)] + beta KL(q || p(z)) + penalties, minimised (SGVB-B of Kingma & Welling
    2013 where the KL is closed).

    Args:
      model: of one example; by its `train_terms`, else its `terms`.
      num_samples: draws of z per example.
      beta: weight of the KL (Higgins et al. 2017), or a function of the step (`linear_warmup`,
        `cyclical_warmup`), or {site: one of these}, with every site. Only at 1 is the loss the
        negative of a bound of log p(x); the metric `elbo` always is one.
      free_bits: lambda, nats per group that cost nothing, or {site: lambda} with 0 for the sites
        it leaves out: each KL enters as max(lambda, KL of the group).
      group: what lambda counts for: each latent "dimension" (Kingma et al. 2016, eq. 15, with
        groups of one), each "layer", that is site, or layer of a `Stack` (Sonderby et al. 2016;
        Chen et al. 2017), or the whole "model", which expects one beta and one lambda.
      by: "batch": of the mean over the batch, as in Kingma et al. (2016); "example": for each
        example alone.

    Returns:
      A Loss; metrics `elbo`, `log_lik`, `kl`, `beta` (or `beta/SITE`), `penalty` where there is
      one, and, where there are several sites or a drawn one, `kl/SITE` or `kl_drawn/SITE`. The
      `elbo` is called `objective` where the model has `train_terms`.

    Raises:
      ValueError: a lambda is negative, or positive where the KL has no terms per dimension; a
        site is unknown; or (when traced) the terms go through draws that are not all
        reparameterised.
    """
    _require_samples(num_samples)
    check_free_bits(free_bits, beta, group, by)
    name = "elbo" if model.train_terms is None else "objective"

    def loss(params: Params, key: Array, batch: Any, step: Array) -> tuple[Array, Info]:
        require_paths(model, params, batch)
        terms, params, moved = _terms_and_update(model, params, key, batch, num_samples)
        kls = site_kls(terms)
        log_lik = terms.log_lik.mean()
        means = {site: kl.value.mean(0) for site, kl in kls.items()}
        kl = sum_all(means)
        betas = betas_at(beta, list(kls), step, log_lik.dtype)
        metrics = {name: log_lik - kl, "log_lik": log_lik, "kl": kl}
        metrics |= site_metrics(means, kls) | _beta_metrics(beta, betas)
        value = weighted_kl(kls, betas, floors_of(free_bits, list(kls)), group, by) - log_lik
        if jax.tree.leaves(terms.penalty):
            metrics["penalty"] = sum_all(jax.tree.map(lambda leaf: leaf.mean(0), terms.penalty))
            value = value + metrics["penalty"]
        return value, Info(metrics, params, moved)

    return loss


def _terms_and_update(
    model: Model, params: Params, key: Array, batch: Any, num_samples: int
) -> tuple[Terms, Params, Moved]:
    """The terms of a batch, and the parameters after the model's own update on it: of the terms at
    the new parameters, or of an M-step (`update.m_step`) at those that its E-step was of. There the
    terms are computed once: the gradient of what it leaves is at the old parameters, too.
    """
    if model.update is None or not attribute(model.update, "m_step", False):
        params, moved = update_on_batch(model, params, key, batch, num_samples)
        terms = batch_terms(key, model, params, batch, num_samples=num_samples, training=True)
        return terms, params, moved

    def terms_of(params: Params) -> Terms:
        return batch_terms(key, model, params, batch, num_samples=num_samples, training=True)

    key_update = jax.random.fold_in(jax.random.clone(key), NO_EXAMPLE)
    shapes = jax.eval_shape(lambda params: _mean_stats(terms_of(params)), params)
    moved = moved_by(model, key_update, params, shapes)
    terms = terms_of(without_moved(params, moved))
    params, _ = updated(model, jax.random.clone(key_update), params, _mean_stats(terms))
    return terms, params, moved


def _mean_stats(terms: Terms) -> Any:
    return freeze(jax.tree.map(lambda leaf: leaf.mean(0), terms.stats))


def update_on_batch(
    model: Model, params: Params, key: Array, batch: Any, num_samples: int
) -> tuple[Params, Moved]:
    """The parameters after the model's own update on the batch, if it has one: a coordinate step,
    before the gradient is taken, on the draws that the gradient sees.
    """
    if model.update is None:
        return params, Moved()
    # folded in with a number that no example has, since split(key, B)[i] is fold_in(key, i)
    key_update = jax.random.fold_in(jax.random.clone(key), NO_EXAMPLE)
    # the same draws again in the loss: one program computes them once
    key_stats = jax.random.clone(key)
    terms = batch_terms(key_stats, model, params, batch, num_samples=num_samples, training=True)
    return updated(model, key_update, params, _mean_stats(terms))


def require_paths(model: Model, params: Params, batch: Any) -> None:
    """Raises ValueError where the terms are those of `from_densities` and the guide's draws are not
    all reparameterised.
    """
    if not attribute(model.train_terms or model.terms, "through_draws", False):
        return  # the model brings its own terms, and vouches for their gradient
    densities: Any = model.densities

    def check(params: Params, x: Any) -> None:
        require_reparameterised(densities.guide(params, x), "negative_elbo")

    jax.eval_shape(check, params, jax.tree.map(lambda leaf: leaf[0], batch))


def _beta_metrics(beta: Beta, weights: dict[str, Array]) -> dict[str, Array]:
    if isinstance(beta, Mapping):
        return {f"beta/{site}": weight for site, weight in weights.items()}
    return {"beta": next(iter(weights.values()), jnp.zeros(()))}


def _require_samples(num_samples: Any) -> None:
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
        raise ValueError(
            "num_samples is the number of samples K, a whole number of at least 1; got "
            f"{num_samples!r}."
        )
