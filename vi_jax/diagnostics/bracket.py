"""The log evidence between bounds: one call, each with its standard error."""

from typing import Any, NamedTuple

import jax

from vi_jax import bounds
from vi_jax.diagnostics.posterior import CHUNK
from vi_jax.types import Array, LogDensity


class Side(NamedTuple):
    """One bound of log p(x), nats."""

    value: Array
    stderr: Array  # over groups of draws
    side: str  # "lower", "upper", or "upper, biased down": its estimate from finitely many draws lies below it on average


LOWER = {"elbo": bounds.elbo, "tvo": bounds.tvo, "iwae": bounds.iwae}
UPPER = {"tvo_upper": bounds.tvo_upper, "eubo": bounds.eubo, "cubo": bounds.cubo}


def bracket(key: Array, log_density: LogDensity, q: Any, *, num_draws: int = 4000, num_groups: int = 20) -> dict[str, Side]:
    """log p(x) from below (ELBO, TVO, IWAE) and from above (TVO's right sum, EUBO, CUBO_2), by one set of draws of a guide.

    Draws are dealt into groups of K; each bound is the mean of its value on every group. Those from above are expectations under
    the posterior, or of the squared weights, which K weighted draws reach from below: where the bracket's ends touch the answer
    is good, and a k-hat that is bad says that the upper end is not one (Masrani et al. 2019; Ji & Shen 2019; Dieng et al. 2017).
    `vi.diagnostics.ais` brackets where posterior draws are at hand.

    Args:
      key: one typed PRNG key.
      log_density: u [D] -> log p(x, u), nats, normalised in x.
      q: a guide over u.
      num_draws: S.
      num_groups: of S / num_groups draws, K; standard errors are over groups.

    Returns:
      {name: Side}, from the lowest kind to the highest.

    Raises:
      ValueError: fewer than 2 groups, or they do not divide the draws.
    """
    if num_groups < 2 or num_draws % num_groups:
        raise ValueError(f"bracket wants 2 groups or more that divide num_draws; got {num_groups} and {num_draws}.")
    u = q.sample(key, (num_draws,))
    log_w = jax.lax.map(log_density, u, batch_size=min(CHUNK, num_draws)) - jax.vmap(q.log_prob)(u)
    groups = log_w.reshape(num_groups, -1)

    def side(bound: Any, name: str) -> Side:
        values = jax.vmap(bound)(groups)
        return Side(values.mean(), values.std(ddof=1) / num_groups**0.5, name)

    below = {name: side(bound, "lower") for name, bound in LOWER.items()}
    return below | {name: side(bound, "upper, biased down") for name, bound in UPPER.items()}
