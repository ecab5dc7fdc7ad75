"""The methods that a posterior's config may name: those of vi_jax.methods, and `default`."""

from vi_jax.methods import (
    advi,
    bam,
    bam_low_rank,
    boosting,
    dadvi,
    flow,
    gsm,
    laplace,
    natural_gradient,
    nested_laplace,
    pathfinder,
    svgd,
    variational_newton,
)
from vi_jax.types import Method

__all__ = [
    "advi",
    "bam",
    "bam_low_rank",
    "boosting",
    "dadvi",
    "default",
    "flow",
    "gsm",
    "laplace",
    "natural_gradient",
    "nested_laplace",
    "pathfinder",
    "svgd",
    "variational_newton",
]


def default() -> Method | None:
    """The choice of `vi.fit`, by the number of latents and the smoothness of the density."""
    return None
