"""Measures of a model with an encoder: ELBO terms, log p(x), active units, mutual information. One
number per example.

Every example has a key of its own, split from one by its position, so that results do not depend on
the batch size.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import bounds, estimators
from vi_jax.losses import example_terms, log_joint
from vi_jax.types import Array, Model, Params


class MeanStderr(NamedTuple):
    """A mean over examples and its standard error."""

    mean: Array
    stderr: Array


class Aggregate(NamedTuple):
    """The split of the mean KL by Hoffman & Johnson (2016), nats: E_x KL(q(z|x) || p) =
    mutual_information + marginal_kl.
    """

    mutual_information: MeanStderr  # I_q(x; z); cannot exceed log N, see `max_information`
    marginal_kl: (
        MeanStderr  # KL(q(z) || p(z)) of the aggregate posterior q(z) = 1/N sum_n q(z | x_n)
    )
    max_information: Array  # log N: an estimate near it is a lower bound only


def mean_and_stderr(values: Array) -> MeanStderr:
    """Mean and standard error over the first axis [N, ...]; needs N >= 2."""
    if values.shape[0] < 2:
        raise ValueError(
            f"a standard error over examples wants at least 2 of them; got {values.shape[0]}."
        )
    return MeanStderr(values.mean(0), values.std(0, ddof=1) / values.shape[0] ** 0.5)


def evaluate_examples(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    num_samples: int = 1,
    batch_size: int = 256,
) -> dict[str, Array]:
    """The ELBO of each example and its terms, and the mean of each guide.

    Args:
      key: one typed PRNG key.
      model, params: see `vi_jax.types.Model`; guides have a `mean`, as numpyro's distributions do.
      x: [N, *x_shape].
      num_samples: draws of z per example.
      batch_size: examples at a time; bounds the memory, never the result.

    Returns:
      {"elbo": [N], "log_lik": [N], "kl": [N, D] or [N], "latent_mean": [N, D]}, nats.
    """

    def one(key_and_x: tuple[Array, Array]) -> dict[str, Array]:
        key, x = key_and_x
        return evaluate_example(key, model, params, x, num_samples=num_samples)

    return jax.lax.map(
        one, (jax.random.split(key, x.shape[0]), x), batch_size=min(batch_size, x.shape[0])
    )


def evaluate_example(
    key: Array, model: Model, params: Params, x: Array, *, num_samples: int = 1
) -> dict[str, Array]:
    """`evaluate_examples` of one example x [*x_shape], whose key is its own."""
    terms = {
        name: value[0]
        for name, value in example_terms(
            key, model, params, x[None], num_samples=num_samples
        ).items()
    }
    return {
        "elbo": terms["log_lik"] - terms["kl"].sum(),
        **terms,
        "latent_mean": model.encode(params, x).mean,
    }


def log_evidence(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    num_samples: int,
    chunk: int = 100,
    batch_size: int = 64,
) -> Array:
    """log p(x) of each example by `num_samples` importance samples from its guide: L_K of Burda et
    al. (2016), eq. 8, nats [N].

    A lower bound in expectation, tight as K grows. Draws come in chunks whose weights are added in
    log space, so that memory grows with batch_size x chunk and not with K.

    Args:
      key, model, params: as for `evaluate_examples`.
      x: [N, *x_shape].
      num_samples: K; a multiple of `chunk`, or at most it.
      chunk: draws at a time.
      batch_size: examples at a time.

    Raises:
      ValueError: num_samples is not a multiple of chunk.
    """
    chunk = min(chunk, num_samples)
    if num_samples < 1 or num_samples % chunk:
        raise ValueError(
            f"num_samples wants to be a positive multiple of chunk; got {num_samples} and {chunk}."
        )

    def one(key_and_x: tuple[Array, Array]) -> Array:
        key, x = key_and_x
        q = model.encode(params, x)
        joint = log_joint(model, params, x)

        def part(total: Array, key: Array) -> tuple[Array, None]:
            # iwae over a chunk is the log of a mean weight; chunks are of one size, so that means
            # of means are means
            return jnp.logaddexp(
                total, estimators.reparam(key, bounds.iwae, joint, q, num_samples=chunk)
            ), None

        keys = jax.random.split(key, num_samples // chunk)
        total, _ = jax.lax.scan(part, jnp.full((), -jnp.inf, jnp.result_type(float)), keys)
        return total - jnp.log(len(keys))

    return jax.lax.map(
        one, (jax.random.split(key, x.shape[0]), x), batch_size=min(batch_size, x.shape[0])
    )


def latent_variance(latent_mean: Array) -> Array:
    """A_d = Var_x(E_q(z_d | x)) of each latent dimension, [D], from guide means [N, D] (Burda et
    al. 2016, sec. 5.1).
    """
    return latent_mean.var(0)


def active_units(latent_mean: Array, *, threshold: float = 0.01) -> Array:
    """Which latent dimensions are active, A_d > threshold (Burda et al. 2016, sec. 5.1): bool
    [D].
    """
    return latent_variance(latent_mean) > threshold


def aggregate_posterior(
    key: Array, model: Model, params: Params, x: Array, *, batch_size: int = 256
) -> Aggregate:
    """Mutual information of x and z under the guide, and the KL of the aggregate posterior to the
    prior.

    One z_i ~ q(z | x_i) for each example, and q(z_i) by all N guides (its own among them):

        I_q = 1/N sum_i log q(z_i | x_i) - log q(z_i)
        KL(q(z) || p) = 1/N sum_i log q(z_i) - log p(z_i)

    Costs N^2 densities; give it a few thousand examples. The estimate of I_q cannot pass log N.

    Args:
      key, model, params: as for `evaluate_examples`.
      x: [N, *x_shape].
      batch_size: guides at a time.
    """
    num = x.shape[0]
    prior = model.prior(params)

    def own(key_and_x: tuple[Array, Array]) -> tuple[Any, Array, Array]:
        key, x = key_and_x
        q = model.encode(params, x)
        z = q.sample(key)
        return z, q.log_prob(z), prior.log_prob(z)

    z, log_own, log_prior = jax.lax.map(
        own, (jax.random.split(key, num), x), batch_size=min(batch_size, num)
    )

    # log sum_n q(z_i | x_n), guide by guide, added up as the batches pass: memory batch_size x N
    def add(total: Array, rows: tuple[Array, Array]) -> tuple[Array, None]:
        x, counts = rows
        log_q = jax.vmap(lambda x: jax.vmap(model.encode(params, x).log_prob)(z))(x)  # [batch, N]
        return jnp.logaddexp(
            total, jax.nn.logsumexp(jnp.where(counts[:, None], log_q, -jnp.inf), axis=0)
        ), None

    size = min(batch_size, num)
    rows = jnp.arange(-(-num // size) * size).reshape(-1, size)
    total, _ = jax.lax.scan(
        add, jnp.full(num, -jnp.inf, log_own.dtype), (x[rows % num], rows < num)
    )
    log_marginal = total - jnp.log(num)
    return Aggregate(
        mean_and_stderr(log_own - log_marginal),
        mean_and_stderr(log_marginal - log_prior),
        jnp.log(num),
    )
