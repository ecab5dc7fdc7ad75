"""What stands in for a target where a result was loaded without it."""

from dataclasses import dataclass, field
from typing import Any, NoReturn

import jax
import numpy as np

from vi_jax.fitting import _reliability
from vi_jax.fitting._codec import Unknown
from vi_jax.fitting.result import Result
from vi_jax.targets.target import Target
from vi_jax.types import Array

NUM_COMPARED = 8  # samples at which a target's log density is compared with the saved one's
HOW = "vi.load_result(folder, target)"
NO_MODEL = f"this result was loaded without its model, which predicts: {HOW}."


@dataclass(frozen=True)
class LoadedResult(Result):
    """A result without its target. The sites that only a model can compute, deterministic ones, are
    known at the weighted samples.
    """

    # a pytree [S, ...] at the weighted samples, and the moments; None where the latents are all
    sites: Any = field(repr=False, default=None)
    known_moments: Any = field(repr=False, default=None)
    known: Any = field(repr=False, default=None)  # what the folder had of the target

    def moments(self) -> dict[str, Any]:
        """As `Result.moments`."""
        if self.known_moments is None:
            return super().moments()
        _require_known(self.known_moments)
        return dict(self.known_moments)

    def predictive(
        self, key: Array, *args: Any, num_draws: int = 1000, **kwargs: Any
    ) -> dict[str, Array]:
        """Raises ValueError: a result without its target has no model."""
        if self.target.observed is None:
            return super().predictive(key, *args, num_draws=num_draws, **kwargs)
        raise ValueError(NO_MODEL)

    def resample(self, key: Array, num_draws: int = 1000) -> Any:
        """As `Result.resample`."""
        if self.sites is None:
            return super().resample(key, num_draws)
        _require_known(self.sites)
        rows = self._resampled_rows(key, num_draws)
        return jax.tree.map(lambda leaf: leaf[rows], self.sites)


def described(result: Result) -> dict[str, Any]:
    """What a folder has of a target: its latents, its log density at a few samples, and, where the
    latents are not all that its `constrain` gives, those sites at the weighted samples.
    """
    if isinstance(result, LoadedResult):
        return dict(result.known)
    target = result.target
    u = result.weighted.u[:NUM_COMPARED]
    is_all = target.latents is not None and target.latents.is_all
    sites = None
    moments = None
    if not is_all:
        sites = jax.jit(jax.vmap(target.constrain))(result.weighted.u)
        moments = result.moments()
    return {
        "names": target.names,
        "shapes": shapes_of(target, u),
        "u": u,
        "values": np.asarray(jax.lax.map(target.log_density, u)),
        "latents": target.latents,
        "sites": sites,
        "moments": moments,
        "nan_site": _reliability.nan_site(result),
        "has_data": target.observed is not None,
    }


def shapes_of(target: Target, u: Array) -> list[tuple[str, tuple[int, ...]]]:
    """The name and shape of every site that `constrain` gives, of u [S, D]."""
    sites = jax.eval_shape(target.constrain, jax.ShapeDtypeStruct(u.shape[1:], u.dtype))
    leaves = jax.tree_util.tree_leaves_with_path(sites)
    return [(jax.tree_util.keystr(path), tuple(leaf.shape)) for path, leaf in leaves]


def nothing_of(known: dict[str, Any]) -> Target:
    """A target without a density, of what `described` tells."""
    latents = known["latents"]
    site = known["nan_site"]
    target = Target(_refuse_density, _refuse_sites, _refuse_sites, known["names"], latents=latents)
    if latents is not None and _first_unknown(latents.tree) is None:
        target = target._replace(unconstrain=latents.unconstrain)
        if latents.is_all:
            target = target._replace(constrain=latents.constrain)
    if known["has_data"]:
        no_model: Any = NoModel()
        target = target._replace(observed=no_model)
    return target._replace(explain=lambda u: site)


class NoModel:
    """Stands for `targets.observed.Observed` where there is no model."""

    def replicate(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises ValueError: the model is needed."""
        raise ValueError(NO_MODEL)

    def log_likelihood(self, z: Any) -> dict[str, Array]:
        """None are known."""
        del z
        return {}

    def values(self) -> dict[str, Array]:
        """None are known."""
        return {}


def _refuse_density(u: Array) -> Array:
    del u
    raise ValueError(f"this result was loaded without its log density: {HOW}.")


def _refuse_sites(u: Any) -> Any:
    del u
    raise ValueError(
        "this result was loaded without its target, which computes some of its sites; use "
        f"moments() and resample(), or {HOW}."
    )


def _first_unknown(tree: Any) -> Any:
    return next((leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, Unknown)), None)


def _require_known(tree: Any) -> None:
    found = _first_unknown(tree)
    if found is not None:
        raise ValueError(
            f"the latents of this result are in a pytree of {found.name}, which a folder does not "
            f"hold: {HOW}."
        )
