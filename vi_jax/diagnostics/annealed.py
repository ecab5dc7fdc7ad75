"""log p(x) of one example between two annealed bounds, from the guide of a model."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from vi_jax.diagnostics import ais
from vi_jax.diagnostics.bracket import (
    LEAPFROG_STEP,
    NUM_LEAPFROG,
    Raveled,
    Whitened,
    require_real,
)
from vi_jax.types import Array, Guide, LogJoint, Model, Params

NUM_SAMPLES = 100  # of the guide, whose standard deviations the chains are measured in


SPREAD = 5.0  # of the steps, where chains do not begin at the guide
RESAMPLE_BELOW = 0.5  # share of the chains, there


class Sides(NamedTuple):
    """Bounds of log p(x), nats."""

    lower: Array
    upper: Array
    acceptance: Array  # of the transitions from below, their mean


def annealed_lower(
    key: Array,
    log_joint: LogJoint,
    q: Guide,
    *,
    start: Guide | None = None,
    num_chains: int = 16,
    num_temperatures: int = 100,
) -> tuple[Array, Array]:
    """A lower bound of log p(x) by annealing from the guide to the posterior, and the acceptance
    rate of its transitions (Neal 2001; Wu et al. 2017).

    The chains move in coordinates in which the guide's standard deviations are one. Costs
    6 C T gradients of the joint. A guide that is far from the posterior, or narrow beside it, has
    chains that do not come to all of it: `start` is where they begin instead, steps are of several
    sizes, and chains are drawn anew where their weights part (`ais.forward`).

    Args:
      key: one typed PRNG key.
      log_joint: z -> log p(x, z), nats, differentiable; z a pytree of reals.
      q: a guide of it.
      start: such as the prior, as Wu et al. have it; q if not given.
      num_chains: C.
      num_temperatures: T.

    Raises:
      ValueError: a latent is not real, or a count is not positive.
    """
    key_samples, key_chains = jax.random.split(key)
    white, unravel = _begun(key_samples, q, start)
    resample_below = 0.0 if start is None else RESAMPLE_BELOW
    found = ais.forward(
        key_chains,
        lambda row: log_joint(unravel(white.place(row))),
        white,
        num_chains=num_chains,
        resample_below=resample_below,
        **_settings(white, start, num_temperatures),
    )
    return found.lower, found.acceptance.mean()


def annealed_upper(
    key: Array,
    log_joint: LogJoint,
    q: Guide,
    posterior_draw: Any,
    *,
    start: Guide | None = None,
    num_chains: int = 16,
    num_temperatures: int = 100,
) -> Array:
    """An upper bound of log p(x) by annealing back to the guide from one exact posterior draw, such
    as the latents that a simulated x was made from (Grosse et al. 2015).

    Args:
      posterior_draw: z, a draw of p(z | x); every chain starts there.
      key, log_joint, q, start, num_chains, num_temperatures: as of `annealed_lower`.

    Raises:
      ValueError: a latent is not real, or a count is not positive.
    """
    key_samples, key_chains = jax.random.split(key)
    white, unravel = _begun(key_samples, q, start)
    row = ravel_pytree(posterior_draw)[0]
    ends = jnp.broadcast_to(white.whiten(row[None])[0], (num_chains, row.size))
    found = ais.reverse(
        key_chains,
        lambda row: log_joint(unravel(white.place(row))),
        white,
        ends,
        **_settings(white, start, num_temperatures),
    )
    return found.upper


def simulated_sides(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    *,
    from_prior: bool = False,
    num_chains: int = 16,
    num_temperatures: int = 100,
) -> Sides:
    """Both bounds of an example that the model simulates: z from its prior, and an x of it, so that
    z is an exact draw of p(z | x).

    Their distance, over examples, bounds the error of the annealed lower bound on data like those
    that the model makes (bidirectional Monte Carlo, Grosse et al. 2015).

    Args:
      key: one typed PRNG key.
      model, params: with densities.
      x: one example, for its context and its shape.
      from_prior: the chains between the prior and the posterior, not those between the guide and
        it.
      num_chains, num_temperatures: as of `annealed_lower`.

    Raises:
      ValueError: the model has no densities, or a latent is not real.
    """
    key_z, key_x, key_lower, key_upper = jax.random.split(key, 4)
    densities = _densities(model)
    z = densities.prior(params, x).sample(key_z)
    x = densities.decode(params, x, z).sample(key_x)
    q = densities.guide(params, x)
    prior = densities.prior(params, x)

    def log_joint(z: Any) -> Array:
        return prior.log_prob(z) + densities.log_lik(params, x, z)

    start = prior if from_prior else None
    counts: dict[str, Any] = {"num_chains": num_chains, "num_temperatures": num_temperatures}
    lower, acceptance = annealed_lower(key_lower, log_joint, q, start=start, **counts)
    upper = annealed_upper(key_upper, log_joint, q, z, start=start, **counts)
    return Sides(lower, upper, acceptance)


def _densities(model: Model) -> Any:
    if model.densities is None:
        raise ValueError(
            "annealing expects a model with densities, and this one has its terms alone."
        )
    return model.densities


def whiten(key: Array, q: Guide) -> tuple[Whitened, Any]:
    """The guide in coordinates in which its standard deviations are one, and what lays a row of
    them out as z.

    Raises:
      ValueError: a latent is not real.
    """
    if getattr(getattr(q, "support", None), "is_discrete", False):  # one-hot codes are floats
        raise ValueError(
            f"annealing moves real latents, and those of {type(q).__name__} are discrete."
        )
    z = q.sample(key, (NUM_SAMPLES,))
    require_real(z)
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], z))
    rows = jax.vmap(lambda one: ravel_pytree(one)[0])(z)
    return Whitened(Raveled(q, unravel), rows.mean(0), rows.std(0)), unravel


def _begun(key: Array, q: Guide, start: Guide | None) -> tuple[Whitened, Any]:
    """`whiten`, with `start` in the place of the guide where there is one."""
    white, unravel = whiten(key, q)
    if start is not None:
        white = white._replace(base=Raveled(start, unravel))
    return white, unravel


def _settings(white: Whitened, start: Guide | None, num_temperatures: int) -> dict[str, Any]:
    return {
        "num_temperatures": num_temperatures,
        "step_size": LEAPFROG_STEP / white.loc.size**0.25,
        "step_spread": 1.0 if start is None else SPREAD,
        "num_leapfrog": NUM_LEAPFROG,
    }
