"""From one example to a batch, and from a bound to maximise to a loss to minimise: the only minus
sign.

A loss is `loss(params, key, batch, step) -> (scalar, Info)`, the scalar in nats per example: a mean
over the batch, a sum over pixels and latents. `step` is there for warm-up; the metrics say what the
bound is whatever the weights of the loss are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import bounds
from vi_jax.kl import kl_divergence, kl_per_dimension
from vi_jax.types import Array, Guide, LogJoint, Model, Params, freeze
from vi_jax.weights import draw, require_reparameterised

Schedule = Callable[[Array], Array | float]
Estimator = Callable[..., Array]


class Info(NamedTuple):
    """What a loss reports beside its value."""

    metrics: dict[str, Array]  # scalars, nats per example
    params: (
        Params  # those given, with the ones that have a closed-form optimum at it (`Model.refit`)
    )


Loss = Callable[[Params, Array, Array, Array], tuple[Array, Info]]


def example_terms(
    key: Array, model: Model, params: Params, x: Array, *, num_samples: int = 1
) -> dict[str, Array]:
    """The two terms of the ELBO for each example of a batch, the KL in closed form (Kingma &
    Welling 2013, eq. 7).

    Args:
      key: one typed PRNG key; each example draws with a key of its own.
      model, params: see `vi_jax.types.Model`.
      x: [B, *x_shape].
      num_samples: draws of z per example, K.

    Returns:
      {"log_lik": [B], "kl": [B, D] or, where the guide or the prior does not factorise over
      dimensions, [B]}, nats, under `params` as they stand: nothing is refitted to x. The ELBO of
      each example is log_lik - kl summed over D.
    """
    return _terms(key, model._replace(refit=None), params, x, num_samples)[0]


def negative_elbo(
    model: Model, *, num_samples: int = 1, beta: float | Schedule = 1.0, free_bits: float = 0.0
) -> Loss:
    """-E_q[log p(x | z)] + beta KL(q || p(z)), the KL in closed form: SGVB-B, minimised.

    Args:
      model: of one example.
      num_samples: draws of z per example.
      beta: weight of the KL (Higgins et al. 2017), or a function of the step (`linear_warmup`,
        `cyclical_warmup`). Only at 1 is the loss the negative of a bound of log p(x); the metric
        `elbo` always is one.
      free_bits: lambda, nats per latent dimension that cost nothing: sum_j max(lambda, mean over
        the batch of KL_j) (Kingma et al. 2016, eq. 15, with groups of one).

    Returns:
      A Loss; metrics `elbo`, `log_lik`, `kl`, `beta`.

    Raises:
      ValueError: free_bits is negative, or positive where the KL has no terms per dimension.
    """
    if free_bits < 0:
        raise ValueError(f"free_bits is nats per latent dimension, at least 0; got {free_bits}.")
    beta_at = as_schedule(beta)

    def loss(params: Params, key: Array, batch: Array, step: Array) -> tuple[Array, Info]:
        terms, refitted = _terms(key, model, params, batch, num_samples)
        # [], [D] or []
        log_lik = terms["log_lik"].mean()
        kl_mean = terms["kl"].mean(0)
        weight = jnp.asarray(beta_at(step), log_lik.dtype)
        penalty = _with_free_bits(kl_mean, free_bits)
        kl = kl_mean.sum()
        metrics = {"elbo": log_lik - kl, "log_lik": log_lik, "kl": kl, "beta": weight}
        return weight * penalty - log_lik, Info(metrics, refitted)

    return loss


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
      model: of one example; one with `refit` is refused, its closed-form step being that of the
        ELBO.
      bound: log_w [K] -> scalar.
      estimator: `estimate(key, bound, log_joint, q, num_samples=K)`.
      num_samples: K.
      name: of the metric that reports the bound.

    Returns:
      A Loss.

    Raises:
      ValueError: the model has parameters that are refitted in closed form.
    """
    if model.refit is not None:
        raise ValueError(
            "this model sets its sigma at the optimum of the ELBO on each batch, which is not "
            "the optimum of another bound; "
            "take negative_elbo, or a likelihood with sigma learned or fixed."
        )

    def loss(params: Params, key: Array, batch: Array, step: Array) -> tuple[Array, Info]:
        del step
        values = batch_bound(key, model, params, batch, bound, estimator, num_samples=num_samples)
        return -values.mean(), Info({name: values.mean()}, params)

    return loss


def wake_wake(model: Model, *, num_samples: int) -> Loss:
    """Reweighted wake-sleep, the guide updated awake (Bornschein & Bengio 2015, eq. 8 and 13; Le et
    al. 2019).

    Wake-theta: the model climbs IWAE at draws that are held fixed. Wake-phi: the guide descends
    KL(p(z|x) || q) by self-normalised weights, -sum_k wbar_k log q(z_k). No path through the draws:
    any guide, discrete ones too.

    Args:
      model: of one example, without refitted parameters.
      num_samples: K, at least 2.

    Returns:
      A Loss whose value is minus IWAE_K; metrics `iwae` and `wake_phi`, the mean of -sum_k wbar_k
      log q(z_k), nats.

    Raises:
      ValueError: K < 2, or the model refits parameters.
    """
    return _wake(model, num_samples, sleep=False)


def wake_sleep(model: Model, *, num_samples: int) -> Loss:
    """The wake-sleep algorithm (Hinton et al. 1995): wake-theta as in `wake_wake`, and sleep-phi:
    the guide descends E_{p(x, z)}[-log q(z | x)] on as many dreams of the model as the batch has
    examples.

    Arguments, result and errors as for `wake_wake`; the metric of the guide is `sleep_phi`.
    """
    return _wake(model, num_samples, sleep=True)


def _wake(model: Model, num_samples: int, *, sleep: bool) -> Loss:
    if model.refit is not None or num_samples < 2:
        raise ValueError(
            "wake-sleep wants num_samples of at least 2 and no refitted parameters; got "
            f"{num_samples} and {model.refit}."
        )

    def awake(params: Params, key: Array, x: Array) -> tuple[Array, Array]:
        q = model.encode(params, x)
        z = freeze(draw(key, q, num_samples))
        log_q = jax.vmap(q.log_prob)(z)
        log_w = jax.vmap(log_joint(model, params, x))(z) - freeze(log_q)
        return bounds.iwae(log_w), -(freeze(jax.nn.softmax(log_w)) * log_q).sum()

    def dream(params: Params, key: Array) -> Array:
        key_z, key_x = jax.random.split(key)
        z = freeze(model.prior(params).sample(key_z))
        x = freeze(model.decode(params, z).sample(key_x))
        return -model.encode(params, x).log_prob(z)

    def loss(params: Params, key: Array, batch: Array, step: Array) -> tuple[Array, Info]:
        del step
        key_wake, key_sleep = jax.random.split(key)
        iwae, guide = jax.vmap(awake, (None, 0, 0))(
            params, jax.random.split(key_wake, batch.shape[0]), batch
        )
        if sleep:
            guide = jax.vmap(dream, (None, 0))(params, jax.random.split(key_sleep, batch.shape[0]))
        value = iwae.mean()
        pull = guide.mean()
        metrics = {"iwae": value, "sleep_phi" if sleep else "wake_phi": pull}
        return (pull - freeze(pull)) - value, Info(metrics, params)

    return loss


def batch_bound(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    bound: Callable[[Array], Array],
    estimator: Estimator,
    *,
    num_samples: int,
) -> Array:
    """One bound for each example of x [B, *x_shape], nats, [B]."""

    def one(key: Array, x: Array) -> Array:
        q = model.encode(params, x)
        return estimator(key, bound, log_joint(model, params, x), q, num_samples=num_samples)

    return jax.vmap(one)(jax.random.split(key, x.shape[0]), x)


def log_joint(model: Model, params: Params, x: Array) -> LogJoint:
    """z -> log p(z) + log p(x | z) for one example x."""
    prior = model.prior(params)
    return lambda z: prior.log_prob(z) + model.log_lik(params, x, z)


def linear_warmup(num_steps: int, *, final: float = 1.0) -> Schedule:
    """beta from 0 to `final` over `num_steps` (Bowman et al. 2016; Sonderby et al. 2016)."""
    if num_steps < 1:
        raise ValueError(f"a warm-up wants at least 1 step; got {num_steps}.")
    return lambda step: final * jnp.clip(step / num_steps, 0.0, 1.0)


def cyclical_warmup(num_steps: int, *, ramp: float = 0.5, final: float = 1.0) -> Schedule:
    """beta rises linearly over the first part `ramp` of each cycle of `num_steps`, then stays (Fu
    et al. 2019, eq. 6).
    """
    if num_steps < 1 or not 0.0 < ramp <= 1.0:
        raise ValueError(
            f"a cycle wants at least 1 step and 0 < ramp <= 1; got {num_steps} and {ramp}."
        )
    return lambda step: final * jnp.clip((step % num_steps) / (ramp * num_steps), 0.0, 1.0)


def as_schedule(value: float | Schedule) -> Schedule:
    """A function of the step, from a number or a function."""
    return value if callable(value) else lambda step: value


def _terms(
    key: Array, model: Model, params: Params, x: Array, num_samples: int
) -> tuple[dict[str, Array], Params]:
    """The terms per example, and the parameters under which log_lik was taken."""

    def encode(key: Array, x: Array) -> tuple[Array, Array]:
        q = model.encode(params, x)
        p = model.prior(params)
        require_reparameterised(q, "the ELBO with the KL in closed form")
        return draw(key, q, num_samples), _finest_kl(q, p)

    z, kl = jax.vmap(encode)(jax.random.split(key, x.shape[0]), x)  # [B, K, D], [B, D] or [B]
    refitted = params if model.refit is None else model.refit(params, x, z)

    def log_lik(x: Array, z: Array) -> Array:  # z [K, D]
        return jax.vmap(lambda z_k: model.log_lik(refitted, x, z_k))(z).mean()

    if num_samples == 1:  # an axis of one draw costs a twentieth of a step
        return {
            "log_lik": jax.vmap(lambda x, z: model.log_lik(refitted, x, z))(x, z[:, 0]),
            "kl": kl,
        }, refitted
    return {"log_lik": jax.vmap(log_lik)(x, z), "kl": kl}, refitted


def _finest_kl(q: Guide, p: Guide) -> Array:
    factorised: Any = [getattr(d, "reinterpreted_batch_ndims", None) == 1 for d in (q, p)]
    return kl_per_dimension(q, p) if all(factorised) else kl_divergence(q, p)


def _with_free_bits(kl: Array, free_bits: float) -> Array:
    if not free_bits:
        return kl.sum()
    if kl.ndim == 0:
        raise ValueError(
            "free_bits are counted per latent dimension, and this guide's KL has none; set it to 0."
        )
    return jnp.maximum(kl, free_bits).sum()
