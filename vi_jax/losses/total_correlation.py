"""The beta-TC-VAE: the KL in three parts, each with a weight of its own (Chen et al. 2018)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.losses.bound import densities_of
from vi_jax.losses.elbo import negative_elbo
from vi_jax.losses.info import Info, Loss
from vi_jax.losses.schedules import Schedule, as_schedule
from vi_jax.types import Array, Model, Params, num_examples


class KLParts(NamedTuple):
    """log q(z | x) - log p(z) at one draw for each example, in three parts, [B] each, nats."""

    mutual_information: Array  # log q(z | x) - log q(z), whose mean is I(x; z)
    total_correlation: Array  # log q(z) - sum_d log q(z_d)
    dimension_kl: Array  # sum_d log q(z_d) - log p(z)


def total_correlation(
    model: Model,
    num_data: int,
    *,
    alpha: float = 1.0,
    beta: float | Schedule = 1.0,
    gamma: float = 1.0,
) -> Loss:
    """-E_q[log p(x | z)] + alpha I(x; z) + beta TC(z) + gamma sum_d KL(q(z_d) || p(z_d)), minimised
    (Chen et al. 2018, eq. 4).

    The three parts add up to the KL. So the loss is that of `negative_elbo`, whose KL may be
    closed, with the parts weighed by alpha - 1, beta - 1 and gamma - 1: at ones it is the negative
    ELBO of the same key, without noise from the parts.

    Args:
      model: of one example, with a guide over one vector [D] whose coordinates are independent.
      num_data: N of the training set, which q(z) = 1/N sum_n q(z | x_n) is a mean over.
      alpha: weight of the mutual information of x and z.
      beta: weight of the total correlation, a number or a function of the step.
      gamma: weight of the KL by dimension.

    Returns:
      A Loss; metrics of `negative_elbo`, with `mutual_information`, `total_correlation` and
      `dimension_kl`, nats, by `kl_parts`. `elbo` is a bound of log p(x) whatever the weights.

    Raises:
      ValueError: the model has no densities, or (when traced) its guide does not factorise, or the
        batch has fewer than 2 examples or more than num_data.
    """
    densities_of(model, "total_correlation")
    elbo = negative_elbo(model)

    def loss(params: Params, key: Array, batch: Any, step: Array) -> tuple[Array, Info]:
        key_parts = jax.random.clone(key)  # the draws of the ELBO: one program makes them once
        value, info = elbo(params, key, batch, step)
        parts = kl_parts(key_parts, model, info.params, batch, num_data)
        means = KLParts(*(part.mean() for part in parts))
        weight = jnp.asarray(as_schedule(beta)(step), value.dtype)
        extra = (
            (alpha - 1.0) * means.mutual_information
            + (weight - 1.0) * means.total_correlation
            + (gamma - 1.0) * means.dimension_kl
        )
        metrics = {**info.metrics, **means._asdict(), "beta": weight}
        return value + extra, Info(metrics, info.params, info.moved)

    return loss


def kl_parts(key: Array, model: Model, params: Params, batch: Any, num_data: int) -> KLParts:
    """The parts of the KL by minibatch stratified sampling (Chen et al. 2018, appendix C.2).

    With z ~ q(z | x_i), i of a batch of B drawn without replacement from N,

        q(z) = 1/N q(z | x_i) + (N - 1)/N mean_{j != i} q(z | x_j),

    in expectation over the batch; likewise for each coordinate. The paper gives one j another
    weight than the others; this is the mean over which one it is, with less variance. Its weighted
    estimator, 1/(N B) sum_j q(z | x_j), is too small by nearly a factor of N for each density, and
    TC too large by (D - 1) log N. The logarithm of a mean over few examples remains biased low,
    and vanishes as B goes to N.

    Args:
      key: one typed PRNG key; the draws are those of the ELBO at the same key.
      model, params: with densities.
      batch: leaves [B, ...].
      num_data: N.

    Raises:
      ValueError: see `total_correlation`.
    """
    size = num_examples(batch)
    if not 2 <= size <= num_data:
        raise ValueError(
            f"the total correlation expects a batch of 2 to num_data={num_data:,} examples; got "
            f"{size:,}."
        )
    densities = densities_of(model, "total_correlation")

    def own(key: Array, x: Any) -> tuple[Array, Array]:
        z = densities.guide(params, x).sample(key)
        return z, densities.prior(params, x).log_prob(z)

    z, log_prior = jax.vmap(own)(jax.random.split(key, size), batch)

    def under(x: Any) -> Array:
        """log q(z_id | x) of all draws, [B, D]."""
        return jax.vmap(lambda z_i: by_coordinate(densities.guide(params, x), z_i))(z)

    log_q = jax.vmap(under, out_axes=1)(batch)  # [draw, example, D]
    is_own = jnp.eye(size, dtype=bool)
    weights = jnp.where(is_own, 1.0 / num_data, (num_data - 1.0) / (num_data * (size - 1.0)))
    log_w = jnp.log(weights)
    log_joint = log_q.sum(-1)
    log_marginal = jax.nn.logsumexp(log_w + log_joint, axis=1)
    log_product = jax.nn.logsumexp(log_w[..., None] + log_q, axis=1).sum(-1)
    return KLParts(
        jnp.diagonal(log_joint) - log_marginal,
        log_marginal - log_product,
        log_product - log_prior,
    )


def by_coordinate(q: Any, z: Array) -> Array:
    """log q(z_d) of each coordinate, [D].

    Raises:
      ValueError: q is not over one vector of independent coordinates.
    """
    if getattr(q, "reinterpreted_batch_ndims", None) != 1 or jnp.ndim(z) != 1:
        raise ValueError(
            "the total correlation expects a guide over one vector whose coordinates are "
            f"independent, such as the family mean_field; got {type(q).__name__}."
        )
    return q.base_dist.log_prob(z)
