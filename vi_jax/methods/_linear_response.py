"""Linear response: posterior covariances by how an optimum moves when the log density is tilted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from vi_jax import linalg
from vi_jax.types import Array, LogDensity, Params

DENSE_UP_TO = 400  # parameters: a Hessian of them is held; beyond, conjugate gradients


def response(
    objective: Callable[[Params], Array],
    params: Params,
    directions: Array,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> Array:
    """H^-1 d for each row d, H the Hessian of an objective at its minimum (Giordano, Broderick &
    Jordan 2018): how far the parameters move for a tilt of the objective by -t d.

    Args:
      objective: parameters -> nats, to be minimised, and at its minimum in `params`.
      params: P numbers, a pytree.
      directions: [M, P], in the order of `jax.flatten_util.ravel_pytree`.
      tolerance, max_iterations: of the conjugate gradients that solve where P is over 400.

    Returns:
      [M, P]; nan where H is not positive definite, or a solve did not converge: `params` is then no
      minimum.
    """
    flat, unravel = ravel_pytree(params)

    def slope(p: Array) -> Array:
        return jax.grad(lambda p: objective(unravel(p)))(p)

    if flat.size <= DENSE_UP_TO:
        hessian = jax.lax.map(
            lambda v: jax.jvp(slope, (flat,), (v,))[1],
            jnp.eye(flat.size, dtype=flat.dtype),
            batch_size=16,
        )
        factor = linalg.cholesky(0.5 * (hessian + hessian.T))
        return linalg.cho_solve((factor, True), directions.T).T
    _, product = jax.linearize(slope, flat)
    return jax.lax.map(lambda d: _solve(product, d, tolerance, max_iterations), directions)


def _solve(
    product: Callable[[Array], Array], b: Array, tolerance: float, max_iterations: int
) -> Array:
    """x of H x = b by conjugate gradients; nan where H shows a direction of no curvature, or it
    takes too long.
    """
    limit = tolerance**2 * (b @ b)

    def going(carry: Any) -> Array:
        _, _, _, rr, k, bad = carry
        return (rr > limit) & (k < max_iterations) & ~bad

    def iterate(carry: Any) -> Any:
        x, r, p, rr, k, _ = carry
        hp = product(p)
        curvature = p @ hp
        alpha = rr / curvature
        x = x + alpha * p
        r = r - alpha * hp
        new = r @ r
        return x, r, r + (new / rr) * p, new, k + 1, ~(curvature > 0)

    start = (jnp.zeros_like(b), b, b, b @ b, jnp.int32(0), jnp.bool_(False))
    x, _, _, rr, _, bad = jax.lax.while_loop(going, iterate, start)
    return jnp.where(bad | ~(rr <= limit), jnp.nan, x)


def linear_response_of_draws(
    log_density: LogDensity, u: Array, which: Array | None = None
) -> Array:
    """The posterior's covariance by linear response of any guide at its optimum, from its samples
    only.

    The guide is moved along with its samples, u -> m + e^b (u - m) + a with a shift a and a factor
    e^b for each latent, and the ELBO of what it becomes is -mean log p(...) - sum b up to a
    constant; how its optimum in (a, b) moves when the log density is tilted is the covariance
    (Giordano, Broderick & Jordan 2018), the block of a of the inverse Hessian. For the mean-field
    Gaussian these are its own parameters; for any other guide they are a part of what it can do,
    and for one that is not Gaussian (a flow, a mixture) a small one. Exact where the posterior is
    Gaussian, whatever the guide's own covariance.

    Args:
      log_density: u [D] -> nats.
      u: samples of the guide, [N, D]; 50 will do.
      which: latents [M] whose rows to return; all if not given.

    Returns:
      [M, D], at a cost of 2 N evaluations of the gradient for each of 2 D parameters, or from D
      over 200 on for each step of conjugate gradients; nan where the guide is at no optimum.
    """
    mean = u.mean(0)
    sd = u.std(0)
    eps = (u - mean) / sd
    size = mean.size
    which = jnp.arange(size) if which is None else jnp.asarray(which)

    def objective(params: Array) -> Array:
        a, b = jnp.split(params, 2)
        moved = mean + sd * (a + jnp.exp(b) * eps)
        return -jnp.mean(jax.vmap(log_density)(moved)) - b.sum()

    directions = jax.nn.one_hot(which, 2 * size, dtype=u.dtype)
    rows = response(objective, jnp.zeros(2 * size, u.dtype), directions)[:, :size]
    return sd[which][:, None] * rows * sd
