"""Is this the density that these draws came from? The score identity answers in seconds, without a
sampler.

For u ~ p on R^D with a density that vanishes at infinity, E[grad log p(u)] = 0 and E[(u - c) grad
log p(u)'] = -I. Both are taken in whitened coordinates, u = m + L w with LL' the draws' covariance,
where a weak direction counts like a strong one.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import potential_energy


class Score(NamedTuple):
    """Distances from the two identities in standard errors."""

    first: np.ndarray  # [D], of E[g] = 0
    second: np.ndarray  # [D, D], of E[w g'] = -I

    @property
    def worst(self) -> float:
        """The largest of all."""
        return float(max(np.abs(self.first).max(), np.abs(self.second).max()))


def unconstrain(model: Callable[[], None], sites: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Values of the sampled sites, [S, ...] each -> their unconstrained values, as NumPyro's
    transforms have them.
    """
    one = {name: value[0] for name, value in sites.items()}
    trace = handlers.trace(handlers.substitute(handlers.seed(model, 0), data=one)).get_trace()
    latent = {
        name: site["fn"].support
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    return {
        name: jax.vmap(biject_to(support).inv)(jnp.asarray(sites[name]))
        for name, support in latent.items()
    }


def scores(
    model: Callable[[], None], unconstrained: Mapping[str, jax.Array]
) -> tuple[np.ndarray, np.ndarray]:
    """Flat unconstrained draws u [S, D] and grad log p(u) [S, D], the transforms' Jacobians
    included.
    """
    _, unravel = ravel_pytree({name: value[0] for name, value in unconstrained.items()})
    flat = jax.vmap(lambda draw: ravel_pytree(draw)[0])(dict(unconstrained))
    gradient = jax.jit(jax.vmap(jax.grad(lambda u: -potential_energy(model, (), {}, unravel(u)))))
    return np.asarray(flat), np.asarray(gradient(flat))


def score_identity(u: np.ndarray, g: np.ndarray) -> Score:
    """How far draws u [S, D] with scores g [S, D] are from the identities, draws taken as
    independent.
    """
    root = np.linalg.cholesky(np.atleast_2d(np.cov(u, rowvar=False)))
    w = np.linalg.solve(root, (u - u.mean(0)).T).T
    h = g @ root
    products = w[:, :, None] * h[:, None, :]  # [S, D, D]
    return Score(_standard_errors(h, 0.0), _standard_errors(products, -np.eye(u.shape[1])))


def _standard_errors(samples: np.ndarray, expected) -> np.ndarray:
    return (samples.mean(0) - expected) / (samples.std(0, ddof=1) / len(samples) ** 0.5)
