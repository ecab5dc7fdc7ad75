"""Tighter bounds are not necessarily better: the slopes of the signal-to-noise ratio against K
(Rainforth et al. 2018).

Their toy: z ~ N(mu, I), x | z ~ N(z, I), q = N(A x + b, 2/3 I), the parameters near the optimum.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vi_jax as vi

DIMS = 20
DRAWS = 4_000
NUM_SAMPLES = np.array([8, 32, 128, 512])
X = np.random.default_rng(0).normal(size=DIMS).astype(np.float32) * 2**0.5
NEAR = 0.01 * np.random.default_rng(1).normal(size=(2, DIMS)).astype(np.float32)
PARAMS = {"mu": jnp.asarray(NEAR[0]), "b": jnp.asarray(NEAR[1])}


def gradients(estimator, num_samples):
    """[DRAWS, DIMS] of the guide's b and of the model's mu."""

    def value(params, key):
        q = dist.Normal(0.5 * X + params["b"], (2.0 / 3.0) ** 0.5).to_event(1)

        def log_joint(z):
            return (
                dist.Normal(params["mu"], 1.0).log_prob(z).sum()
                + dist.Normal(z, 1.0).log_prob(X).sum()
            )

        return estimator(key, vi.bounds.iwae, log_joint, q, num_samples=num_samples)

    run = jax.jit(
        lambda keys: jax.lax.map(lambda key: jax.grad(value)(PARAMS, key), keys, batch_size=100)
    )
    return jax.device_get(run(jax.random.split(jax.random.key(2), DRAWS)))


@functools.cache
def signal(name, num_samples):
    """The mean gradient of each coordinate, squared, [DIMS], without the part that noise adds.

    Under DReG, whose mean is that of the plain estimator (test_matrix) and is known to a few per
    cent from DRAWS of them: at K = 512 the plain one's is 1,000 times below its noise, and would
    take 1e8 draws.
    """
    sample = gradients(vi.estimators.dreg, num_samples)[name].astype(np.float64)
    return sample.mean(0) ** 2 - sample.var(0) / len(sample)


def slope(estimator, name):
    """Of log SNR against log K, the SNR in squares averaged over coordinates."""
    ratios = []
    for num_samples in map(int, NUM_SAMPLES):
        noise = gradients(estimator, num_samples)[name].var(0)
        ratios.append(np.sqrt(np.mean(signal(name, num_samples) / noise)))
    return np.polyfit(np.log(NUM_SAMPLES), np.log(ratios), 1)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "name", "expected"),
    [
        (vi.estimators.reparam, "b", -0.5),
        (vi.estimators.dreg, "b", 0.5),
        (vi.estimators.reparam, "mu", 0.5),
    ],
    ids=["iwae-guide", "dreg-guide", "iwae-model"],
)
def test_slope_against_the_number_of_draws(estimator, name, expected):
    found = slope(estimator, name)
    assert abs(found - expected) < 0.1, (
        f"the signal-to-noise ratio goes as K^{found:.3f}, not K^{expected}"
    )
