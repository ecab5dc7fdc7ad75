"""A fitted guide as the prior of a NumPyro model."""

from typing import Any

import numpyro

from vi_jax.distributions import from_guide
from vi_jax.targets.latents import Latents


def sample_prior(name: str, guide: Any, latents: Latents | None) -> Any:
    """`Result.as_prior`."""
    if latents is None:
        raise ValueError(
            "as_prior needs latents whose supports are known; those of this target are not: sample "
            "vi.distributions.from_guide(result.guide), and constrain what it gives."
        )
    u = numpyro.sample(name, from_guide(guide))
    z = latents.constrain(u)
    if isinstance(z, dict):
        for site, value in z.items():
            if not isinstance(value, dict):
                numpyro.deterministic(site, value)
    return z
