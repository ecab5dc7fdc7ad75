"""Models of benchmarks.against_nuts beside those of posteriordb, with simulated data of seed 0."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.posterior_models import schools

NUM_GROUPS = 12
NUM_ROWS = 240  # of the groups
NUM_TRIALS = 20_000  # of the logistic regression
NUM_WEIGHTS = 25


def slopes() -> Callable[[], None]:
    """Twelve groups whose intercepts and slopes are correlated, non-centred; 30 latents."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, NUM_GROUPS, NUM_ROWS)
    x = rng.normal(size=NUM_ROWS)
    root = np.linalg.cholesky(np.array([[1.0, 0.4], [0.4, 0.6]]))
    effects = np.array([1.0, -0.5]) + rng.normal(size=(NUM_GROUPS, 2)) @ root.T
    y = effects[group, 0] + effects[group, 1] * x + 0.7 * rng.normal(size=NUM_ROWS)

    def model() -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
        scale = numpyro.sample("scale", dist.HalfNormal(2.0).expand([2]).to_event(1))
        corr = numpyro.sample("corr", dist.LKJCholesky(2, 2.0))
        raw = numpyro.sample("raw", dist.Normal(0.0, 1.0).expand([NUM_GROUPS, 2]).to_event(2))
        sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
        effect = mean + raw @ (scale[:, None] * corr).T
        at_row = effect[group, 0] + effect[group, 1] * x
        numpyro.sample("y", dist.Normal(at_row, sigma), obs=jnp.asarray(y))

    return model


def logistic() -> Callable[[], None]:
    """A logistic regression of 20,000 rows on 25 covariates."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(NUM_TRIALS, NUM_WEIGHTS)))
    weights = 0.3 * rng.normal(size=NUM_WEIGHTS)
    y = rng.uniform(size=NUM_TRIALS) < 1 / (1 + np.exp(-np.asarray(x) @ weights))

    def model() -> None:
        b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([NUM_WEIGHTS]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=x @ b), obs=jnp.asarray(y.astype(int)))

    return model


MODELS: dict[str, Callable[[], Callable[[], None]]] = {
    "eight schools, non-centred": partial(schools, centered=False),
    "twelve groups, correlated slopes": slopes,
    "logistic regression, 20,000 x 25": logistic,
}
