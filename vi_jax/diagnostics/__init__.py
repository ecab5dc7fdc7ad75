"""Can this guide be trusted, and what does it use: measures of a trained model, reduction left to the caller.

`amortised`: of models with an encoder (per-example terms, log p(x), active units, the aggregate posterior).
"""

from vi_jax.diagnostics import amortised

__all__ = ["amortised"]
