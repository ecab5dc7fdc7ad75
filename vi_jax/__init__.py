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
        arguments,
        attributes,
        bounds,
        chains,
        checks,
        conjugate,
        control_variates,
        diagnostics,
        distributions,
        divergences,
        draws,
        estimators,
        evidence,
        families,
        files,
        fitting,
        gaussian,
        hmc,
        kl,
        linalg,
        local,
        losses,
        methods,
        models,
        optimise,
        replicas,
        sampling,
        shard,
        sparse,
        targets,
        topics,
        training,
        types,
        weights,
    )
    from vi_jax.checks.check import check
    from vi_jax.evidence import analytic_elbo, elbo, iwae
    from vi_jax.files import load_safetensors, save_safetensors
    from vi_jax.fitting import Result, fit, load_result
    from vi_jax.kl import kl_divergence, kl_monte_carlo, kl_standard_normal
    from vi_jax.training import State, init_state, make_run, make_step, make_stepwise_run
    from vi_jax.training.train import train
    from vi_jax.types import Densities, Family, Guide, Method, Model, Prior, Terms, freeze

# public name -> the module that it is, or that has it
_HOMES = {
    "arguments": "arguments",
    "attributes": "attributes",
    "bounds": "bounds",
    "chains": "chains",
    "checks": "checks",
    "conjugate": "conjugate",
    "control_variates": "control_variates",
    "diagnostics": "diagnostics",
    "distributions": "distributions",
    "divergences": "divergences",
    "draws": "draws",
    "estimators": "estimators",
    "evidence": "evidence",
    "families": "families",
    "files": "files",
    "fitting": "fitting",
    "gaussian": "gaussian",
    "hmc": "hmc",
    "kl": "kl",
    "linalg": "linalg",
    "local": "local",
    "losses": "losses",
    "methods": "methods",
    "models": "models",
    "optimise": "optimise",
    "replicas": "replicas",
    "sampling": "sampling",
    "shard": "shard",
    "sparse": "sparse",
    "targets": "targets",
    "topics": "topics",
    "training": "training",
    "types": "types",
    "weights": "weights",
    # functions and types
    "analytic_elbo": "evidence",
    "check": "checks",
    "elbo": "evidence",
    "fit": "fitting",
    "load_result": "fitting",
    "load_safetensors": "files",
    "save_safetensors": "files",
    "iwae": "evidence",
    "kl_divergence": "kl",
    "kl_monte_carlo": "kl",
    "kl_standard_normal": "kl",
    "init_state": "training",
    "make_run": "training",
    "make_step": "training",
    "make_stepwise_run": "training",
    "train": "training",
    "freeze": "types",
    "Densities": "types",
    "Family": "types",
    "Guide": "types",
    "Method": "types",
    "Model": "types",
    "Prior": "types",
    "Terms": "types",
    "Result": "fitting",
    "State": "training",
}
_OLD = ("draws",)  # names that still work, and warn

__all__ = ["__version__", *(name for name in _HOMES if name not in _OLD)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"vi_jax has no {name!r}; it has {', '.join(sorted(__all__))}.")
    module = importlib.import_module(f"vi_jax.{_HOMES[name]}")
    return module if _HOMES[name] == name else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
