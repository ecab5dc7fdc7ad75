"""Diagnostics of guides and models, before and after training.

`check`: a linter for an ELBO (`vi_jax.checks`). `amortised`: of models with an encoder (per-example
terms, log p(x), active units, the aggregate posterior). `imputation`: what a row of a table lacks,
given what is observed of it; `missing_pixels`: what an image lacks; `conformal`: intervals
calibrated by hidden values. `ais`: log p(x) between annealed bounds. `psis`: Pareto-smoothed
weights and k-hat. `posterior`: importance weights of a guide against its log density, and a
verdict. `optimum`: convergence, by the ELBO's gradient and by R-hat. `bracket`: the log evidence
between bounds. `calibrate`: simulation-based calibration, of marginals (SBC) and of means (VSBC);
`calibrate_fits`: of `vi.fit` and of any other Python. `annealed`: log p(x) of one example of a
model between annealed bounds. `reciprocal_evidence`: log p(x) from posterior samples alone.
`adaptive_evidence`: log p(x) of a handful of latents by adaptive importance sampling.
`spikes`: bits per spike, R^2 of rates. `decoding`: behaviour from rates. `copying`: bins that a
model predicts because it was shown them.
"""

import importlib
from typing import Any

from vi_jax.checks import CHECKS, FINDINGS, Finding, Report, check
from vi_jax.diagnostics import (
    adaptive,
    ais,
    annealed,
    conformal,
    decoding,
    optimum,
    posterior,
    spikes,
)
from vi_jax.diagnostics.adaptive import Adaptive, adaptive_evidence
from vi_jax.diagnostics.bracket import bracket
from vi_jax.diagnostics.calibration import calibrate, calibrate_fits
from vi_jax.diagnostics.copying import Copying, copying
from vi_jax.diagnostics.psis import k_threshold, psis
from vi_jax.diagnostics.reciprocal import Reciprocal, reciprocal_evidence

__all__ = [
    "CHECKS",
    "FINDINGS",
    "Adaptive",
    "Copying",
    "Finding",
    "Reciprocal",
    "Report",
    "adaptive",
    "adaptive_evidence",
    "ais",
    "amortised",
    "annealed",
    "bracket",
    "calibrate",
    "calibrate_fits",
    "check",
    "conformal",
    "copying",
    "decoding",
    "imputation",
    "k_threshold",
    "missing_pixels",
    "optimum",
    "posterior",
    "psis",
    "reciprocal_evidence",
    "spikes",
]

# they import models, with Flax, which no fit of a posterior needs: 0.5 s of its start
_OF_MODELS = ("amortised", "imputation", "missing_pixels")


def __getattr__(name: str) -> Any:
    if name in _OF_MODELS:
        return importlib.import_module(f"vi_jax.diagnostics.{name}")
    raise AttributeError(f"vi_jax.diagnostics has no {name!r}; it has {', '.join(__all__)}.")
