"""Optimisation: L-BFGS, automatic step sizes, iterate averaging, preconditioning, row optimisers.

    lbfgs             a search up a log density, and the inverse Hessian that it learns
    step_size         stages of halved step sizes and a stopping rule (RAABBVI)
    averaging         averages of iterates in fixed memory, and their split R-hat
    own_units         gradients and updates in the units of a Gaussian guide
    row_optimisers    an optimiser for each row of a table
    curvature         sparse Hessians from a few Hessian-vector products
    smoothness        kinks and steps of a log density

The modules are plain functions over NamedTuples; `vi_jax.methods` is built on them.
"""

from vi_jax.optimise import (
    averaging,
    curvature,
    lbfgs,
    own_units,
    row_optimisers,
    smoothness,
    step_size,
)

__all__ = [
    "averaging",
    "curvature",
    "lbfgs",
    "own_units",
    "row_optimisers",
    "smoothness",
    "step_size",
]
