"""Posterior approximation in one call, `vi.fit`, and its result.

    target = vi.targets.from_numpyro(model, data)
    result = vi.fit(key, target)
    print(result)
    z = result.sample(key, 1_000)

Targets with local latent variables give a `LocalResult`.
"""

from vi_jax.fitting._fit import fit
from vi_jax.fitting._stack import Stack, stack_weights
from vi_jax.fitting._starts import NUM_CANDIDATES
from vi_jax.fitting.details import Details
from vi_jax.fitting.local import fit_local
from vi_jax.fitting.local_result import LocalDiagnostics, LocalResult
from vi_jax.fitting.result import Diagnostics, Result
from vi_jax.fitting.saving import load_result
from vi_jax.fitting.warm_start import WarmStart

__all__ = [
    "NUM_CANDIDATES",
    "Details",
    "Diagnostics",
    "LocalDiagnostics",
    "LocalResult",
    "Result",
    "Stack",
    "WarmStart",
    "fit",
    "fit_local",
    "load_result",
    "stack_weights",
]
