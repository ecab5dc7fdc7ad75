"""Variational inference in JAX as pure functions: everything is a function of log-weights.

For one example, draw z_1..z_K from a guide q and form log w_k = log p(x, z_k) - log q(z_k). A
*bound* turns log_w [K] into a scalar; an *estimator* says how gradients flow through the draws; a
*family* makes guides; a *model* makes log p(x, z).

    import vi_jax as vi
    value = vi.elbo(key, log_joint, q, num_samples=8)  # a scalar to maximise; differentiate it

Names are loaded when they are first used, so that `import vi_jax` costs nothing that is not needed.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vi_jax._version import __version__

if TYPE_CHECKING:
    from vi_jax import (
        bounds,
        conjugate,
        diagnostics,
        distributions,
        draws,
        estimators,
        families,
        kl,
        losses,
        methods,
        models,
        replicas,
        shard,
        targets,
        training,
        types,
    )
    from vi_jax.diagnostics.check import check
    from vi_jax.evidence import analytic_elbo, elbo, iwae
    from vi_jax.fitting import Result, fit
    from vi_jax.kl import kl_divergence, kl_monte_carlo, kl_standard_normal
    from vi_jax.training import State, init_state, make_run, make_step, make_stepwise_run, train
    from vi_jax.types import Family, Guide, Method, Model, freeze

_MODULES = (
    "bounds",
    "conjugate",
    "diagnostics",
    "distributions",
    "draws",
    "estimators",
    "evidence",
    "families",
    "kl",
    "losses",
    "methods",
    "models",
    "replicas",
    "shard",
    "targets",
    "training",
    "types",
)
_NAMES = {
    "analytic_elbo": "evidence",
    "check": "diagnostics",
    "elbo": "evidence",
    "fit": "fitting",
    "iwae": "evidence",
    "kl_divergence": "kl",
    "kl_monte_carlo": "kl",
    "kl_standard_normal": "kl",
    "Result": "fitting",
    "State": "training",
    "init_state": "training",
    "make_run": "training",
    "make_step": "training",
    "make_stepwise_run": "training",
    "train": "training",
    "Family": "types",
    "Guide": "types",
    "Method": "types",
    "Model": "types",
    "freeze": "types",
}

__all__ = [
    "Family",
    "Guide",
    "Method",
    "Model",
    "Result",
    "State",
    "__version__",
    "analytic_elbo",
    "bounds",
    "check",
    "conjugate",
    "diagnostics",
    "distributions",
    "draws",
    "elbo",
    "estimators",
    "families",
    "fit",
    "freeze",
    "init_state",
    "iwae",
    "kl",
    "kl_divergence",
    "kl_monte_carlo",
    "kl_standard_normal",
    "losses",
    "make_run",
    "make_step",
    "make_stepwise_run",
    "methods",
    "models",
    "replicas",
    "shard",
    "targets",
    "train",
    "training",
    "types",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"vi_jax.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"vi_jax.{_NAMES[name]}"), name)
    raise AttributeError(
        f"vi_jax has no {name!r}; it has {', '.join(sorted([*_MODULES, *_NAMES]))}."
    )


def __dir__() -> list[str]:
    return sorted(__all__)
