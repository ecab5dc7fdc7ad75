"""The method for a posterior whose Hessian has structure: what `vi.fit` picks between tens and
thousands of latents.
"""

from typing import NamedTuple

import numpy as np

from vi_jax.methods.nested_laplace import MAX_HYPERS, nested_laplace
from vi_jax.methods.variational_newton import variational_newton
from vi_jax.optimise import curvature as hessians
from vi_jax.targets.target import Target
from vi_jax.types import Array, Method

FROM = 50  # latents; below, a dense Gaussian is cheap
UP_TO = 2_000
HUB_SHARE = 0.25  # of all latents that a hyperparameter touches, at least
DENSE_UP_TO = 1_000  # Hessian-vector products of a Hessian
MORE_DRAWS = 16_000  # samples to weigh
MAX_NUMBERS = 8e6  # of all those samples
MAX_NAMES = 4  # that are listed


class Structured(NamedTuple):
    """A method, None where no structure was found that one is for, and why."""

    method: Method | None
    why: str
    evaluations: int  # gradients that it took
    num_draws: int | None = None  # samples to weigh, where they should be more than usual


def structured(key: Array, target: Target, centre: Array) -> Structured:
    """`nested_laplace` where a few latents touch many and the Hessian of the rest is sparse;
    `variational_newton` where more do, or none, and where it is dense, for up to 1,000 latents.

    Args:
      key: of the locations where the Hessian is looked at.
      centre: u [D] about which they lie.
    """
    found = hessians.find(key, target.log_density, centre)
    hypers = hubs(found.pattern)
    if 1 <= len(hypers) <= MAX_HYPERS:
        rest = np.setdiff1d(np.arange(target.size), hypers)
        made = hessians.curvature(found.pattern[np.ix_(rest, rest)])
        if not made.arrow.is_dense:
            why = (
                f"a Gaussian of {len(rest):,} latents given {_listed(target, hypers)}; {found.why}"
            )
            return Structured(nested_laplace(hypers.tolist(), made), why, found.evaluations)
    made = hessians.curvature(found.pattern)
    if made.colouring.num_colours > DENSE_UP_TO:
        return Structured(None, found.why, found.evaluations)
    kind = "full" if made.arrow.is_dense else "sparse"
    why = f"a {kind} precision, for {target.size:,} latents; {found.why}"
    # the worst of hundreds of means by weights is some three of its standard errors off, which has
    # to be below a tenth of a standard deviation
    num_draws = min(MORE_DRAWS, int(MAX_NUMBERS / target.size))
    return Structured(variational_newton(made), why, found.evaluations, num_draws)


def _listed(target: Target, hypers: np.ndarray) -> str:
    """The latents that touch many, in words."""
    names = ", ".join(target.names[hub] for hub in hypers[:MAX_NAMES])
    more = ", ..." if len(hypers) > MAX_NAMES else ""
    return f"{len(hypers)} that touch many ({names}{more})"


def hubs(pattern: np.ndarray) -> np.ndarray:
    """Latents that touch many others, where the rest do not."""
    degree = pattern.sum(0)
    return np.flatnonzero(degree > HUB_SHARE * len(pattern))
