"""Measures of guides by their draws, for families whose KL to the prior, or whose mean, has no
closed form.
"""

from typing import Any

import jax
import jax.numpy as jnp

import vi_jax as vi

MEAN_DRAWS = 100  # of z alone, nothing is decoded


def evaluate_examples(
    key: jax.Array,
    model: vi.Model,
    params: vi.types.Params,
    x: jax.Array,
    *,
    num_samples: int,
    batch_size: int,
) -> dict[str, Any]:
    """As `vi.diagnostics.amortised.evaluate_examples`, the KL estimated on the draws of log_lik and
    the mean on others.

    Returns:
      {"elbo": [N], "log_lik": [N], "kl": {"z": [N]}, "latent_mean": [N, D],
      "latent_noise": [N, D]}, the last the squared standard error of latent_mean, 0 where the
      guide states its mean.
    """

    def one(key_and_x: tuple[jax.Array, Any]) -> dict[str, Any]:
        key, x = key_and_x
        return evaluate_example(key, model, params, x, num_samples=num_samples)

    return jax.lax.map(
        one, (jax.random.split(key, x.shape[0]), x), batch_size=min(batch_size, x.shape[0])
    )


def evaluate_example(
    key: jax.Array, model: vi.Model, params: vi.types.Params, x: jax.Array, *, num_samples: int
) -> dict[str, Any]:
    """`evaluate_examples` of one example x [*x_shape], whose key is its own."""
    key_terms, key_mean = jax.random.split(key)
    densities: Any = model.densities
    q = densities.guide(params, x)
    prior = densities.prior(params, x)
    z = q.sample(key_terms, (num_samples,))
    log_lik = jax.vmap(lambda z_k: densities.log_lik(params, x, z_k))(z).mean()
    kl = jax.vmap(lambda z_k: q.log_prob(z_k) - prior.log_prob(z_k))(z).mean()
    mean, noise = mean_and_noise(key_mean, q)
    return {
        "elbo": log_lik - kl,
        "log_lik": log_lik,
        "kl": {"z": kl},
        "latent_mean": mean,
        "latent_noise": noise,
    }


def mean_and_noise(key: jax.Array, q: Any) -> tuple[jax.Array, jax.Array]:
    """E_q[z] as the guide states it, or else the mean of draws; and the squared standard error of
    that, both [D].
    """
    if hasattr(q, "mean"):
        return q.mean, jnp.zeros_like(q.mean)
    z = q.sample(key, (MEAN_DRAWS,))
    return z.mean(0), z.var(0, ddof=1) / MEAN_DRAWS


def latent_variance(terms: dict[str, jax.Array]) -> jax.Array:
    """Var_x(E_q(z_d | x)) [D] without the variance that averaging draws adds to it, which alone
    would make a unit active.
    """
    return vi.diagnostics.amortised.latent_variance(terms["latent_mean"]) - terms[
        "latent_noise"
    ].mean(0)
