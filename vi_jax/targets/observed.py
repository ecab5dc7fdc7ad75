"""What a NumPyro model says of its observed sites, given draws of its latents."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_likelihood

from vi_jax.types import Array


class Observed(NamedTuple):
    """A model with the arguments that its posterior was made of."""

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    is_summed: bool = False  # whether it has discrete latents, which are summed out

    def replicate(
        self, key: Array, z: dict[str, Array], *args: Any, **kwargs: Any
    ) -> dict[str, Array]:
        """Draws of every site that is no latent, one for each draw of the latents.

        Args:
          key: of the draws.
          z: {site: [S, ...]} of the latents; deterministic sites in it are computed anew.
          args, kwargs: what the model is called with; if none are given, what its posterior was
            made of, whose observed sites are drawn anew.

        Returns:
          {site: [S, ...]}, deterministic sites included.
        """
        is_new = bool(args or kwargs)
        model = self.model if is_new else _Replicated(self.model)
        predictive = Predictive(model, posterior_samples=z)
        draws: dict[str, Array] = (
            predictive(key, *args, **kwargs)
            if is_new
            else predictive(key, *self.args, **self.kwargs)
        )
        return draws

    def log_likelihood(self, z: dict[str, Array]) -> dict[str, Array]:
        """log p(x_i | z) of each observed number, {site: [S, ...]}, nats: what leave-one-out
        cross-validation asks for; empty for a model with summed sites, which NumPyro would draw.
        """
        if self.is_summed:
            return {}
        values: dict[str, Array] = log_likelihood(self.model, z, *self.args, **self.kwargs)
        return values

    def values(self) -> dict[str, Array]:
        """{site: value} of the observed sites."""
        seeded = handlers.seed(self.model, jax.random.key(0))
        trace = handlers.trace(seeded).get_trace(*self.args, **self.kwargs)
        return {
            name: jnp.asarray(site["value"])
            for name, site in trace.items()
            if site["type"] == "sample" and site["is_observed"]
        }


class _Replicated(handlers.uncondition):  # type: ignore[misc]
    """Draws observed sites anew, as many numbers as were observed: a distribution of one number
    under an array of data, outside of a plate, stands for independent ones.
    """

    def process_message(self, msg: dict[str, Any]) -> None:
        """Expands the distribution of an observed site, then has it drawn."""
        if msg["type"] == "sample" and msg["is_observed"]:
            fn = msg["fn"]
            observed = jnp.shape(msg["value"])
            batch = observed[: len(observed) - len(fn.event_shape)]
            shape = jnp.broadcast_shapes(batch, fn.batch_shape)
            msg["fn"] = fn if shape == fn.batch_shape else fn.expand(shape)
        super().process_message(msg)
