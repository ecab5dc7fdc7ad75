"""Evaluation of a model with an encoder: ELBO terms, log p(x), active units, mutual information.
One number per example.

Every example has a key of its own, split from one by its position, so that results do not depend on
the batch size.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import bounds
from vi_jax.distributions import Program
from vi_jax.losses import batch_terms, densities_of, log_joint
from vi_jax.losses.free_bits import sum_all
from vi_jax.losses.sites import site_kls
from vi_jax.types import Array, Guide, Model, Params, num_examples
from vi_jax.weights import draw, log_weights


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
            f"a standard error over examples needs at least 2 of them; got {values.shape[0]}."
        )
    return MeanStderr(values.mean(0), values.std(0, ddof=1) / values.shape[0] ** 0.5)


def evaluate_examples(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    *,
    num_samples: int = 1,
    batch_size: int = 256,
) -> dict[str, Any]:
    """The ELBO of each example and its terms, and the mean of each guide.

    Args:
      key: one typed PRNG key.
      model, params: see `vi_jax.types.Model`.
      x: pytree of arrays [N, ...].
      num_samples: draws of z per example.
      batch_size: examples at a time; bounds the memory, never the result.

    Returns:
      {"elbo": [N], "log_lik": [N], "kl": {site: [N, ...]}}, nats, and "latent_mean", leaves
      [N, ...] as those of z, where the guide has a `mean`, as numpyro's distributions do; of a
      `Program` it is the mean of each site given the means of the sites before it. A KL is by
      dimension [N, D] where it is closed and factorises, else [N].
    """

    def one(key_and_x: tuple[Array, Any]) -> dict[str, Any]:
        key, x = key_and_x
        return evaluate_example(key, model, params, x, num_samples=num_samples)

    num = num_examples(x)
    return jax.lax.map(one, (jax.random.split(key, num), x), batch_size=min(batch_size, num))


def evaluate_example(
    key: Array, model: Model, params: Params, x: Any, *, num_samples: int = 1
) -> dict[str, Any]:
    """`evaluate_examples` of one example x, whose key is its own."""
    row = jax.tree.map(lambda leaf: leaf[None], x)
    batch = batch_terms(key, model, params, row, num_samples=num_samples)
    terms = jax.tree.map(lambda leaf: leaf[0], batch)
    kl = {name: kl.value for name, kl in site_kls(terms).items()}
    found = {"elbo": terms.log_lik - sum_all(kl), "log_lik": terms.log_lik, "kl": kl}
    if model.densities is not None:
        found |= _mean_of(model.densities.guide(params, x))
    return found


def _mean_of(q: Guide) -> dict[str, Any]:
    """{"latent_mean": E_q[z], or `Program.mean_path`} where the guide states it, else {}."""
    try:
        if isinstance(q, Program):
            return {"latent_mean": q.mean_path()}
        return {"latent_mean": q.mean}  # type: ignore[attr-defined]
    except (AttributeError, NotImplementedError):  # numpyro's way to say that it has none
        return {}


def log_evidence(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    *,
    num_samples: int,
    chunk: int = 100,
    batch_size: int = 64,
) -> Array:
    """log p(x) of each example by `num_samples` importance samples from its guide: L_K of Burda et
    al. (2016), eq. 8, nats [N].

    A lower bound in expectation, tight as K grows. Draws come in chunks whose weights are added in
    log space, so that memory grows with batch_size x chunk and not with K. A value without a
    gradient: any guide serves, discrete ones too.

    Args:
      key, model, params, x: as for `evaluate_examples`; the model has densities.
      num_samples: K; a multiple of `chunk`, or at most it.
      chunk: draws at a time.
      batch_size: examples at a time.

    Raises:
      ValueError: num_samples is not a multiple of chunk, or the model has no densities.
    """
    chunk = min(chunk, num_samples)
    if num_samples < 1 or num_samples % chunk:
        raise ValueError(
            "num_samples is expected to be a positive multiple of chunk; got "
            f"{num_samples} and {chunk}."
        )
    guide = densities_of(model, "log_evidence").guide

    def one(key_and_x: tuple[Array, Any]) -> Array:
        key, x = key_and_x
        q = guide(params, x)
        joint = log_joint(model, params, x)

        def part(total: Array, key: Array) -> tuple[Array, None]:
            # iwae over a chunk is the log of a mean weight; chunks are of one size, so that means
            # of means are means
            log_w = log_weights(joint, q, draw(key, q, chunk))
            return jnp.logaddexp(total, bounds.iwae(log_w)), None

        keys = jax.random.split(key, num_samples // chunk)
        total, _ = jax.lax.scan(part, jnp.full((), -jnp.inf, jnp.result_type(float)), keys)
        return total - jnp.log(len(keys))

    num = num_examples(x)
    return jax.lax.map(one, (jax.random.split(key, num), x), batch_size=min(batch_size, num))


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
    key: Array, model: Model, params: Params, x: Any, *, batch_size: int = 256
) -> Aggregate:
    """Mutual information of x and z under the guide, and the KL of the aggregate posterior to the
    prior.

    One z_i ~ q(z | x_i) for each example, and q(z_i) by all N guides (its own among them):

        I_q = 1/N sum_i log q(z_i | x_i) - log q(z_i)
        KL(q(z) || p) = 1/N sum_i log q(z_i) - log p(z_i)

    Where the prior has a context, p(z_i) is that of x_i. Costs N^2 densities; give it a few
    thousand examples. The estimate of I_q cannot pass log N.

    Args:
      key, model, params, x: as for `evaluate_examples`; the model has densities.
      batch_size: guides at a time.

    Raises:
      ValueError: the model has no densities.
    """
    num = num_examples(x)
    densities = densities_of(model, "aggregate_posterior")

    def own(key_and_x: tuple[Array, Any]) -> tuple[Any, Array, Array]:
        key, x = key_and_x
        q = densities.guide(params, x)
        z = q.sample(key)
        return z, q.log_prob(z), densities.prior(params, x).log_prob(z)

    z, log_own, log_prior = jax.lax.map(
        own, (jax.random.split(key, num), x), batch_size=min(batch_size, num)
    )

    # log sum_n q(z_i | x_n), guide by guide, added up as the batches pass: memory batch_size x N
    def add(total: Array, rows: tuple[Any, Array]) -> tuple[Array, None]:
        x, counts = rows
        log_q = jax.vmap(lambda x: jax.vmap(densities.guide(params, x).log_prob)(z))(x)  # [b, N]
        seen = jax.nn.logsumexp(jnp.where(counts[:, None], log_q, -jnp.inf), axis=0)
        return jnp.logaddexp(total, seen), None

    size = min(batch_size, num)
    rows = jnp.arange(-(-num // size) * size).reshape(-1, size)
    batches = jax.tree.map(lambda leaf: leaf[rows % num], x)
    start = jnp.full(num, -jnp.inf, log_own.dtype)
    total, _ = jax.lax.scan(add, start, (batches, rows < num))
    log_marginal = total - jnp.log(num)
    return Aggregate(
        mean_and_stderr(log_own - log_marginal),
        mean_and_stderr(log_marginal - log_prior),
        jnp.log(num),
    )
