"""What a Result hands on: predictions, Markov chains, ArviZ, xarray, and a folder."""

from typing import Any

import jax

from vi_jax.diagnostics.inference_data import data_tree
from vi_jax.files import StrPath
from vi_jax.fitting._coordinates import as_fitted
from vi_jax.fitting._inference_data import as_inference, attributes_of
from vi_jax.fitting._prior import sample_prior
from vi_jax.fitting.sampling import Chains, continue_with_nuts
from vi_jax.fitting.warm_start import WarmStart, begin_chains
from vi_jax.types import Array


class HandsOver:
    """The methods of a Result that are for other libraries and for later."""

    def predictive(
        self: Any, key: Array, *args: Any, num_draws: int = 1000, **kwargs: Any
    ) -> dict[str, Array]:
        """Draws of what a NumPyro model says of data, given the posterior.

        Args:
          key: of the draws.
          args, kwargs: what the model is called with, such as new covariates with None for what is
            to be predicted; if none are given, those of the fit, whose observed sites are drawn
            anew (replicates, for posterior predictive checks).
          num_draws: how many; the weighted samples are resampled where k-hat allows, else the guide
            is sampled.

        Returns:
          {site: [num_draws, ...]}, deterministic sites included.

        Raises:
          ValueError: the target is no NumPyro model, or one of minibatches.
        """
        observed = self.target.observed
        if observed is None:
            raise ValueError(
                "predictive wants the target of a NumPyro model that sees all its rows "
                "(vi.targets.from_numpyro); this one has only a density."
            )
        key_latents, key_data = jax.random.split(key)
        z = self._best_draws(key_latents, num_draws)
        draws: dict[str, Array] = observed.replicate(key_data, z, *args, **kwargs)
        return draws

    def continue_with(self: Any, sampler: str, key: Array, **options: Any) -> Chains:
        """Markov chains from where the guide has come to, with their own verdict, and how far the
        guide was from them.

        Args:
          sampler: "nuts".
          key: of the chains.
          options: num_chains, num_warmup, num_draws, target_accept of
            `vi_jax.fitting.sampling.continue_with_nuts`.

        Raises:
          ValueError: another sampler.
        """
        if sampler != "nuts":
            raise ValueError(f"continue_with knows the sampler 'nuts'; got {sampler!r}.")
        fitted = as_fitted(self)  # where the density is nearest to a Gaussian
        return continue_with_nuts(fitted.target, fitted.weighted.u, key, **options)

    def warm_start(self: Any, key: Array, num_chains: int = 4) -> WarmStart:
        """Positions and an inverse mass matrix for a sampler of NumPyro, of BlackJAX, or of your
        own, where `continue_with` is not what is wanted.

        Args:
          key: of the choice of the positions.
          num_chains: C, each from a draw of the guide of its own.

        Raises:
          ValueError: no chain, or more than there are weighted samples.
        """
        return begin_chains(self.target, self.weighted.u, key, num_chains)

    def as_prior(self: Any, name: str = "earlier") -> Any:
        """The latents of this posterior as a prior within another NumPyro model, all of them
        together: one sample site of the guide, and a deterministic one for each latent.

        The guide itself is the prior, as it is: look at the verdict first.

        Args:
          name: of the sample site, over the unconstrained coordinates u [D].

        Returns:
          {site: value}, or the pytree of latents of a log density.

        Raises:
          ValueError: the supports depend on other latents, or the target is not one of vi.targets.
        """
        return sample_prior(name, self.guide, self.target.latents)

    def to_arviz(
        self: Any, key: Array | None = None, num_draws: int = 1000, *, predictive: bool = False
    ) -> Any:
        """An ArviZ InferenceData with samples as one chain, the log likelihood of each observed
        number where the target is a NumPyro model, and the diagnostics as its attributes.

        Args:
          key: of the samples, `jax.random.key(0)` if not given; the weighted samples are resampled
            where k-hat allows, else the guide is sampled.
          num_draws: how many.
          predictive: whether with the observed data and replicates of them.

        Raises:
          ImportError: there is no ArviZ.
          ValueError: predictive, and the target is no NumPyro model.
        """
        groups = self._groups(key, num_draws, predictive)
        return as_inference(groups, self.method, self.diagnostics)

    def to_xarray(
        self: Any, key: Array | None = None, num_draws: int = 1000, *, predictive: bool = False
    ) -> Any:
        """An xarray DataTree of the groups of `to_arviz`, with dimensions chain, draw and
        SITE_dim_0, ...

        Args:
          key, num_draws, predictive: as for `to_arviz`.

        Raises:
          ImportError: there is no xarray.
          ValueError: predictive, and the target is no NumPyro model.
        """
        groups = self._groups(key, num_draws, predictive)
        return data_tree(groups, attributes_of(self.method, self.diagnostics))

    def save(self: Any, folder: StrPath) -> None:
        """Writes the result into a folder, whole or not at all; `vi.load_result` reads it.

        The folder is made where it is not there. An earlier result in it is replaced. It holds JSON
        and plain arrays, no pickle.

        Raises:
          OSError: it cannot be written.
        """
        from vi_jax.fitting.saving import save_result

        save_result(self, folder)

    def _groups(self: Any, key: Array | None, num_draws: int, predictive: bool) -> dict[str, Any]:
        """{group: {site: [S, ...]}} of ArviZ's names; "observed_data" without the axis of draws."""
        key = jax.random.key(0) if key is None else key
        z = self._best_draws(key, num_draws)
        groups: dict[str, Any] = {"posterior": z if isinstance(z, dict) else {"z": z}}
        observed = self.target.observed
        if predictive and observed is None:
            raise ValueError(
                "predictive wants the target of a NumPyro model that sees all its rows "
                "(vi.targets.from_numpyro); this one has only a density."
            )
        if observed is None:
            return groups
        log_likelihood = observed.log_likelihood(z)
        if log_likelihood:
            groups["log_likelihood"] = log_likelihood
        if predictive:
            draws = observed.replicate(jax.random.fold_in(key, 1), z)
            data = observed.values()
            groups["posterior_predictive"] = {name: draws[name] for name in data}
            groups["observed_data"] = data
        return groups
