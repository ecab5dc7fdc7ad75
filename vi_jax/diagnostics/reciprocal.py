"""log p(x) from posterior samples alone, by the mean of q(z) / p(x, z): appendix D of Kingma &
Welling (2013).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import hmc, linalg
from vi_jax.diagnostics.annealed import whiten
from vi_jax.gaussian import log_standard_normal
from vi_jax.types import Array, Guide, LogJoint


class Reciprocal(NamedTuple):
    """The estimate and how its chains did."""

    log_p: Array  # nats
    acceptance: Array  # of the chains, their mean


def reciprocal_evidence(
    key: Array,
    log_joint: LogJoint,
    q: Guide,
    *,
    num_samples: int = 50,
    num_transitions: int = 50,
    step_size: float = 0.3,
    num_leapfrog: int = 10,
) -> Reciprocal:
    """log p(x) = -log E_{p(z|x)}[f(z) / p(x, z)] for any density f, here a Gaussian fitted to
    posterior samples (Kingma & Welling 2013, appendix D; Gelfand & Dey 1994).

    1. L posterior samples by Hamiltonian chains, one each, from samples of the guide, in the
    coordinates in which the guide's standard deviations are one; 2. f is the Gaussian of their mean
    and covariance; 3. L new samples z_l; log p = -log (1/L) sum_l f(z_l) / p(x, z_l).

    Of exact posterior samples the mean in 3 is right and its logarithm is not: the estimate is
    above log p(x) on average, by half the relative variance of f / p(x, z) over L. That variance
    grows with the number of latents and is infinite where f has heavier tails than the posterior;
    the paper takes the estimator for fewer than 5 latents. Chains that have not converged leave an
    error of either sign. Costs 2 L T (num_leapfrog + 1) gradients of the joint; importance sampling
    and `annealed` are better.

    Args:
      key: one typed PRNG key.
      log_joint: z -> log p(x, z), nats, differentiable; z a pytree of reals.
      q: a guide of it.
      num_samples: L, more than the number of latents.
      num_transitions: T of each chain.
      step_size: of the leapfrog, the longest of `hmc.chain`, in standard deviations of the guide.
      num_leapfrog: steps of it.

    Raises:
      ValueError: a latent is not real, or L is not above the number of latents.
    """
    key_white, key_fit, key_new = jax.random.split(key, 3)
    white, unravel = whiten(key_white, q)
    size = white.loc.size
    if num_samples <= size:
        raise ValueError(
            f"a covariance of {size} latents expects num_samples above their number; got "
            f"{num_samples}."
        )

    def density(row: Array) -> Array:
        return log_joint(unravel(white.place(row)))

    def posterior(key: Array) -> tuple[Array, Array]:
        key_start, key_chains = jax.random.split(key)
        start = white.sample(key_start, (num_samples,))
        run = lambda key, z: hmc.chain(  # noqa: E731
            key,
            density,
            z,
            num_transitions=num_transitions,
            step_size=step_size,
            num_leapfrog=num_leapfrog,
        )
        return jax.vmap(run)(jax.random.split(key_chains, num_samples), start)

    fitted, accepted = posterior(key_fit)
    new, accepted_new = posterior(key_new)
    loc = fitted.mean(0)
    root = linalg.cholesky(jnp.cov(fitted.T).reshape(size, size))
    log_det = jnp.log(jnp.diagonal(root)).sum()
    noise = linalg.solve_triangular(root, (new - loc).T, lower=True).T
    # densities of z: the Jacobian of the coordinates is that of `place`
    log_f = jax.vmap(log_standard_normal)(noise) - log_det - jnp.log(white.root).sum()
    log_ratio = log_f - jax.vmap(density)(new)
    log_p = jnp.log(num_samples) - jax.nn.logsumexp(log_ratio)
    return Reciprocal(log_p, 0.5 * (accepted.mean() + accepted_new.mean()))
