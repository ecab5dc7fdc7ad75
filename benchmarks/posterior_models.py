"""What the parts of benchmarks.posterior_scale share: a line of its table, and models."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

Line = tuple[str, str, str]  # what, measured, how
EFFECTS = jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12])
STDERRS = jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def scalar_sites(num: int) -> Callable[[], None]:
    """A model of `num` scalar latents, half of them positive, and one observation of their sum."""

    def model() -> None:
        total: Any = 0.0
        for i in range(num):
            total = total + numpyro.sample(
                f"s{i}", dist.HalfNormal(1.0) if i % 2 else dist.Normal(0.0, 1.0)
            )
        numpyro.sample("y", dist.Normal(total, 1.0), obs=jnp.asarray(1.0))

    return model


def schools(*, centered: bool) -> Callable[[], None]:
    """Eight schools (Rubin 1981)."""

    def model() -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        if centered:
            theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([8]).to_event(1))
        else:
            theta = mu + tau * numpyro.sample("raw", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
        numpyro.sample("y", dist.Normal(theta, STDERRS).to_event(1), obs=EFFECTS)

    return model


def steps_of(result: Any) -> str:
    """How an ADVI result ended."""
    return (
        f"ADVI, {result.num_steps:,} steps, "
        f"{'converged' if result.converged else 'not converged'}, {result.seconds:.0f} s"
    )
