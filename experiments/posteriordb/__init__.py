"""The posteriors of posteriordb that have reference draws (Magnusson et al. 2025), as NumPyro
models.

    posterior = posteriordb.load("arK-arK", root)            # root: a clone of stan-dev/posteriordb
    target = vi.targets.from_numpyro(posterior.model)
    posterior.flatten(sites)  # [S, D], in the order of posterior.names, .mean and .sd

Models are written from their mathematics, in the parameters of the Stan programs; data are read
from the folder. Every model is held against the reference draws by a score identity (`score`) and
by NUTS (`check`).
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.base import DataError, did_you_mean
from experiments.posteriordb import (
    database,
    dynamics,
    earnings,
    gaussian_processes,
    hierarchical,
    kidscore,
    mesquite,
    mixtures,
    regressions,
    time_series,
)

__all__ = ["MEANS_ONLY", "Posterior", "load", "names", "reference_draws"]

MODELS: dict[str, Callable[..., None]] = {
    "arK-arK": time_series.arK,
    "arma-arma11": time_series.arma11,
    "bball_drive_event_0-hmm_drive_0": mixtures.hmm_drive_0,
    "bball_drive_event_1-hmm_drive_1": mixtures.hmm_drive_1,
    "diamonds-diamonds": regressions.diamonds,
    "earnings-earn_height": earnings.earn_height,
    "earnings-log10earn_height": earnings.log10earn_height,
    "earnings-logearn_height": earnings.logearn_height,
    "earnings-logearn_height_male": earnings.logearn_height_male,
    "earnings-logearn_interaction": earnings.logearn_interaction,
    "earnings-logearn_interaction_z": earnings.logearn_interaction_z,
    "earnings-logearn_logheight_male": earnings.logearn_logheight_male,
    "eight_schools-eight_schools_centered": hierarchical.eight_schools_centered,
    "eight_schools-eight_schools_noncentered": hierarchical.eight_schools_noncentered,
    "garch-garch11": time_series.garch11,
    "gp_pois_regr-gp_pois_regr": gaussian_processes.gp_pois_regr,
    "gp_pois_regr-gp_regr": gaussian_processes.gp_regr,
    "hmm_example-hmm_example": mixtures.hmm_example,
    "hudson_lynx_hare-lotka_volterra": dynamics.lotka_volterra,
    "kidiq-kidscore_interaction": kidscore.kidscore_interaction,
    "kidiq-kidscore_momhs": kidscore.kidscore_momhs,
    "kidiq-kidscore_momhsiq": kidscore.kidscore_momhsiq,
    "kidiq-kidscore_momiq": kidscore.kidscore_momiq,
    "kidiq_with_mom_work-kidscore_interaction_c": kidscore.kidscore_interaction_c,
    "kidiq_with_mom_work-kidscore_interaction_c2": kidscore.kidscore_interaction_c2,
    "kidiq_with_mom_work-kidscore_interaction_z": kidscore.kidscore_interaction_z,
    "kidiq_with_mom_work-kidscore_mom_work": kidscore.kidscore_mom_work,
    "kilpisjarvi_mod-kilpisjarvi": regressions.kilpisjarvi,
    "low_dim_gauss_mix-low_dim_gauss_mix": mixtures.low_dim_gauss_mix,
    "mcycle_gp-accel_gp": gaussian_processes.accel_gp,
    "mesquite-logmesquite": mesquite.logmesquite,
    "mesquite-logmesquite_logva": mesquite.logmesquite_logva,
    "mesquite-logmesquite_logvas": mesquite.logmesquite_logvas,
    "mesquite-logmesquite_logvash": mesquite.logmesquite_logvash,
    "mesquite-logmesquite_logvolume": mesquite.logmesquite_logvolume,
    "mesquite-mesquite": mesquite.mesquite,
    "nes1972-nes": regressions.nes,
    "nes1976-nes": regressions.nes,
    "nes1980-nes": regressions.nes,
    "nes1984-nes": regressions.nes,
    "nes1988-nes": regressions.nes,
    "nes1992-nes": regressions.nes,
    "nes1996-nes": regressions.nes,
    "nes2000-nes": regressions.nes,
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": dynamics.one_comp_mm_elim_abs,
    "sblrc-blr": regressions.blr,
    "sblri-blr": regressions.blr,
}
MEANS_ONLY = ("mcycle_gp-accel_gp",)  # reference moments, no draws; not among `names()`
# reference parameters -> the sites that the model samples, where the two differ
LATENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "eight_schools-eight_schools_noncentered": hierarchical.noncentered_latents,
    "garch-garch11": time_series.garch_latents,
    "gp_pois_regr-gp_pois_regr": gaussian_processes.gp_pois_latents,
}


class Posterior(NamedTuple):
    """A posterior and what is known of it. D reference parameters, S draws."""

    name: str  # "data-model"
    model: Callable[[], None]  # a NumPyro model of no arguments
    data: dict[str, np.ndarray]  # what the model was given
    names: tuple[str, ...]  # reference parameters, "beta[1]"
    mean: np.ndarray  # [D]
    sd: np.ndarray  # [D]
    flatten: Callable[
        [Mapping[str, Any]], np.ndarray
    ]  # {site: [S, ...]}, deterministic sites too -> [S, D]
    unflatten: Callable[
        [Any], dict[str, jax.Array]
    ]  # [S, D] -> {site that the model samples: [S, ...]}


def names() -> tuple[str, ...]:
    """The 46 posteriors that have reference draws, as "data-model", sorted."""
    return tuple(name for name in MODELS if name not in MEANS_ONLY)


def load(name: str, root: str | Path) -> Posterior:
    """The posterior called "data-model" with its data and reference moments.

    Args:
      name: one of `names()` or `MEANS_ONLY`.
      root: a clone of https://github.com/stan-dev/posteriordb, or the posterior_database folder in
        it.

    Raises:
      DataError: an unknown name, or a folder that lacks what is wanted.
    """
    function = _model(name)
    available = database.read_data(database.read_posterior(name, root)["data_name"], root)
    data = {key: available[key] for key in _parameters(function)}
    reference = database.read_reference(name, root)
    return Posterior(
        name,
        partial(function, **data),
        data,
        *reference,
        partial(_flatten, _groups(reference.names)),
        partial(_unflatten, _groups(reference.names), LATENTS.get(name), data),
    )


def reference_draws(name: str, root: str | Path) -> np.ndarray:
    """Reference draws [S, D] in the order of `load(name, root).names`: 10,000 of a clone, else a
    thinned thousand.
    """
    _model(name)
    if (found := database.read_draws(name, root)) is not None:
        return found[1]
    draws = database.read_thinned_draws(name, root)
    if draws is None:
        raise DataError(
            f"{root} holds no reference draws of {name}; {database.CLONE} and give its folder."
        )
    return draws


def _model(name: str) -> Callable[..., None]:
    """The model of a posterior; raises DataError for one that is not here."""
    if name not in MODELS:
        raise DataError(
            f"no posterior is called {name!r}.{did_you_mean(name, MODELS)} posteriordb.names() "
            f"lists all {len(names())}."
        )
    return MODELS[name]


def _parameters(function: Callable[..., None]) -> list[str]:
    return [
        key
        for key, p in inspect.signature(function).parameters.items()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]


def _groups(reference_names: tuple[str, ...]) -> dict[str, Any]:
    """{site: its column, or its columns for a vector}; reference names are 'mu' or 'beta[2]', in
    order.
    """
    groups: dict[str, Any] = {}
    for column, name in enumerate(reference_names):
        if "[" in name:
            groups.setdefault(name.split("[")[0], []).append(column)
        else:
            groups[name] = column
    return groups


def _flatten(groups: dict[str, Any], sites: Mapping[str, Any]) -> np.ndarray:
    if missing := sorted(set(groups) - set(sites)):
        raise ValueError(
            f"flatten wants the sites {sorted(groups)}; {missing} are missing. Deterministic "
            "sites are wanted too."
        )
    num_draws = len(sites[next(iter(groups))])
    flat = np.empty((num_draws, sum(np.size(columns) for columns in groups.values())))
    for site, columns in groups.items():
        flat[:, columns] = np.asarray(sites[site]).reshape((num_draws, *np.shape(columns)))
    return flat


def _unflatten(groups: dict[str, Any], latents, data, draws) -> dict[str, jax.Array]:
    draws = jnp.asarray(draws)
    sites = {site: draws[:, np.asarray(columns)] for site, columns in groups.items()}
    return sites if latents is None else jax.vmap(partial(latents, **data))(sites)
