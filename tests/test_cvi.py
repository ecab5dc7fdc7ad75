"""The fixed point of spike counts where a full step overshoots: large counts, wide priors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_jax as vi
from vi_jax import chains
from vi_jax.chains import Chain, Emission, cvi, linear_sites
from vi_jax.models.table_vae import Column

N = 50
NOISE = 0.0025


def rotation(angle=0.25, decay=0.998):
    return decay * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def rotating(base, *, loading, num=1, num_steps=40, num_units=N, seed=0):
    """Counts [num, T, N] that follow a point which turns, and what they were made by."""
    rng = np.random.default_rng(seed)
    z = np.empty((num, num_steps, 2))
    z[:, 0] = 1.5 * rng.standard_normal((num, 2))
    for step in range(1, num_steps):
        noise = NOISE**0.5 * rng.standard_normal((num, 2))
        z[:, step] = z[:, step - 1] @ rotation().T + noise
    loadings = loading * rng.standard_normal((num_units, 2))
    counts = rng.poisson(base * np.exp(z @ loadings.T))
    return counts, loadings, np.full(num_units, np.log(base))


def of_float(counts, loadings, offset, dtype, *, transition=None, cov=1.0):
    turn = rotation() if transition is None else transition
    chain = Chain(np.zeros(2), cov * np.eye(2), turn, NOISE * np.eye(2))
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, dtype), (chain, Emission(loadings, offset), counts)
    )


def expected_of(counts):
    return chains.by_closed_form(
        lambda mean, variance: (
            counts * mean - jnp.exp(mean + 0.5 * variance) - jax.scipy.special.gammaln(counts + 1.0)
        )
    )


@functools.partial(jax.jit, static_argnums=3)
def found_of(chain, emission, counts, num_passes=6):
    observed = jnp.ones(counts.shape, bool)
    return cvi.fit_sites(chain, emission, expected_of(counts), observed, num_passes=num_passes)


@jax.jit
def plain_elbo(chain, emission, counts):
    """After each of 40 steps of length 1 from the prior's moments, whatever they do, [40]."""
    observed = jnp.ones(counts.shape, bool)
    expected = expected_of(counts)

    def one(moments, _):
        sites = linear_sites.sites_of(
            emission, linear_sites.at_predictors(emission, expected, observed, moments), moments
        )
        moments, _ = chains.smooth(chain, sites)
        value = linear_sites.at_predictors(emission, expected, observed, moments).value.sum()
        kl = chains.expected_log_sites(sites, moments) - moments.log_z
        return moments, value - kl

    start = chains.gaussian_chain(chain, num_steps=len(counts)).moments
    return jax.lax.scan(one, start, None, length=40)[1]


@pytest.mark.cases(rest=None, integration=["0.02"])
@pytest.mark.parametrize("base", [0.02, 0.5, 5.0])
def test_passes_that_work_are_left_as_they_are(base):
    """Six full steps, where they do not overshoot, and their limit."""
    counts, *own = rotating(base, loading=0.3)
    given = of_float(counts[0], *own, jnp.float32)
    plain = plain_elbo(*given)
    found = found_of(*given)
    assert np.all(np.diff(plain[:6]) > -1e-2)
    np.testing.assert_allclose(found.elbo, plain[5], rtol=1e-5)
    np.testing.assert_allclose(found.elbo, plain[-1], rtol=1e-5)
    assert abs(found.gain) < 1e-2


@pytest.mark.cases(rest=None, integration=["large counts"])
@pytest.mark.parametrize("case", ["large counts", "wide prior", "growing prior"])
def test_a_full_step_that_overshoots_is_mended(case):
    """Rates far above, or beyond all numbers, at the prior's moments; in float32 the optimum is
    that of float64, from where more passes gain nothing.
    """
    options = {
        "large counts": {"cov": 0.25},
        "wide prior": {"cov": 60.0},
        "growing prior": {"transition": 1.2 * rotation()},
    }[case]
    counts, loadings, offset = rotating(2.0 if case == "large counts" else 0.1, loading=1.2)
    if case == "large counts":
        offset = offset - 5.0
    own = (loadings, offset)
    given = of_float(counts[0], *own, jnp.float32, **options)
    found = found_of(*given)
    plain = plain_elbo(*given)[5]
    assert not plain > 2.0 * found.elbo  # the fault: nan, or below by magnitudes
    with jax.enable_x64(True):
        exact = of_float(counts[0], *own, jnp.float64, **options)
        longer = found_of(*exact, 60)
        assert 0.0 <= longer.gain < 1e-6
        np.testing.assert_allclose(found.elbo, longer.elbo, rtol=1e-4)


@pytest.mark.integration
def test_learning_of_rotations_never_descends():
    """Expectation-maximisation from principal components at three rates, the last of which made
    every step nan.
    """
    num_units = 20
    model = functools.partial(vi.models.poisson_lds, [Column("poisson")] * num_units, num_latents=2)
    loss = vi.losses.negative_elbo(model(forget=1.0))

    @jax.jit
    def step(params, x):
        value, info = loss(params, jax.random.key(1), x, jnp.int32(0))
        return info.params, -value

    for base, loading in ((0.05, 0.6), (5.0, 0.6), (0.02, 1.5)):
        counts, *_ = rotating(base, loading=loading, num=6, num_steps=60, num_units=num_units)
        x = {"values": counts.astype(np.float32), "observed": np.ones(counts.shape, bool)}
        params = model(forget=1.0, trials=x).init(jax.random.key(0))
        elbos = []
        for _ in range(12):
            params, elbo = step(params, x)
            elbos.append(float(elbo))
        rounding = 1e-5 * np.abs(elbos[1:])
        assert (np.diff(elbos) > -rounding).all(), (base, elbos)
