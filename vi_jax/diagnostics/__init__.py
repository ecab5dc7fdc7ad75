"""Can this guide be trusted, and what does it use: measures of a trained model, reduction left to the caller.

`amortised`: of models with an encoder (per-example terms, log p(x), active units, the aggregate posterior). `ais`: log p(x) between
annealed bounds.
"""

from vi_jax.diagnostics import ais, amortised

__all__ = ["ais", "amortised"]
