"""Simulation-based calibration of guides whose errors are known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import vi_jax as vi
from vi_jax.diagnostics.calibration import brownian_supremum, calibrate, calibrate_fits, kolmogorov


def simulate(key):  # z ~ N(0, I), x | z ~ N(z, 1): the posterior is N(x / 2, 1/2)
    key_z, key_x = jax.random.split(key)
    z = jax.random.normal(key_z, (2,))
    return z, z + jax.random.normal(key_x, (2,))


def infer(shift, scale):
    return lambda key, x: dist.Normal(x / 2 + shift, scale * 0.5**0.5 * jnp.ones(2)).to_event(1)


@pytest.mark.cases(rest=None, slow=["0.4-1.0-False-False"])
@pytest.mark.integration
@pytest.mark.parametrize(
    ("shift", "scale", "uniform", "symmetric"),
    [
        (0.0, 1.0, True, True),
        (0.0, 0.5, False, True),
        (0.4, 1.0, False, False),
        (0.4, 0.5, False, False),
    ],
)
def test_narrow_guides_are_not_uniform_and_shifted_ones_not_symmetric(
    shift, scale, uniform, symmetric
):
    result = calibrate(jax.random.key(0), simulate, infer(shift, scale))
    assert bool(jnp.all(result.uniform_p > 0.005)) == uniform
    assert bool(jnp.all(result.symmetric_p > 0.005)) == symmetric
    if shift:
        assert np.all(result.mean_share < 0.45)


def model(x):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.deterministic("twice", 2 * z)
    numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def named(key):
    z, x = simulate(key)
    return {"z": z}, x


METHOD = vi.methods.bam()
TRACED = []


@jax.jit
def looped(key, x):  # as the docstring of calibrate_fits has it
    TRACED.append(x.shape)
    target = vi.targets.from_numpyro(model, x)
    key_init, key_steps, key_draws = jax.random.split(key, 3)

    def advance(carry):
        number, state, _ = carry
        state, info = METHOD.step(jax.random.fold_in(key_steps, number), target.log_density, state)
        return number + 1, state, info.done

    start = METHOD.init(key_init, target.log_density, jnp.zeros(target.size))
    unfinished = lambda carry: (carry[0] < METHOD.num_steps) & ~carry[2]  # noqa: E731
    _, state, _ = jax.lax.while_loop(unfinished, advance, (jnp.int32(0), start, jnp.bool_(False)))
    return jax.vmap(target.constrain)(METHOD.guide(state).sample(key_draws, (200,)))


@pytest.mark.integration
def test_a_fit_for_each_data_set_compiles_once_under_jit():
    seen = []
    result = calibrate_fits(
        jax.random.key(3),
        named,
        looped,
        num_simulations=300,
        report=lambda *counts: seen.append(counts),
    )
    assert TRACED == [(2,)]  # 300 data sets, one program
    assert seen == [(number, 300) for number in range(1, 301)]
    assert result.share.shape == (300, 2)
    assert float(result.uniform_p.min()) > 0.005
    assert float(result.symmetric_p.min()) > 0.005
    shifted = lambda key, x: infer(0.4, 1.0)(key, x)  # noqa: E731 -- a guide, and z no dict
    assert (
        float(
            calibrate_fits(
                jax.random.key(3), simulate, shifted, num_simulations=200
            ).symmetric_p.max()
        )
        < 0.005
    )


@pytest.mark.integration
def test_results_of_fit_are_ranked_by_the_guides_draws():
    fit = lambda key, x: vi.fit(key, vi.targets.from_numpyro(model, x), num_draws=100)  # noqa: E731
    result = calibrate_fits(jax.random.key(4), named, fit, num_simulations=2, num_draws=400)
    for number, share in enumerate(np.asarray(result.share)):
        z, x = simulate(jax.random.split(jax.random.fold_in(jax.random.key(4), number), 3)[0])
        exact = stats.norm.cdf(z, x / 2, 0.5**0.5)  # the share of the posterior that lies below z
        np.testing.assert_allclose(share, exact, atol=5 * 0.5 / 400**0.5)


@pytest.mark.integration
def test_a_fit_that_cannot_be_traced_is_sent_to_calibrate_fits():
    fit = lambda key, x: vi.fit(key, vi.targets.from_numpyro(model, x))  # noqa: E731
    for infer in (fit, lambda key, x: dist.Normal(np.asarray(x), 1.0)):
        with pytest.raises(TypeError, match=r"calibrate_fits\(key, simulate, fit\)"):
            calibrate(jax.random.key(0), simulate, infer, num_simulations=4)
    # a fault of infer's own stays what it is
    with pytest.raises(TypeError, match="unsupported operand"):
        calibrate(jax.random.key(0), simulate, lambda key, x: None + x, num_simulations=4)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("draws", "error", "words"),
    [
        ({"z": jnp.zeros((5, 3))}, ValueError, r"\(5, 3\)} for z of {'z': \(2,\)}"),
        ({"y": jnp.zeros((5, 2))}, ValueError, "z has z, of which fit gave no samples; it gave y"),
        (jnp.zeros((5, 2)), ValueError, "samples have to be of the shapes of z"),
        ({"z": jnp.zeros((5, 2)).at[3, 1].set(jnp.nan)}, FloatingPointError, "not numbers"),
    ],
)
def test_draws_that_do_not_fit_end_it_and_name_the_simulation(draws, error, words):
    with pytest.raises(error, match=words) as caught:
        calibrate_fits(jax.random.key(0), named, lambda key, x: draws, num_simulations=4)
    assert "in simulation 0 of 4" in caught.value.__notes__[0]
    spoilt = calibrate(jax.random.key(0), simulate, infer(jnp.nan, 1.0), num_simulations=4)
    assert np.all(np.isnan(spoilt.share))
    assert np.all(np.isnan(spoilt.uniform_p))


@pytest.mark.integration
def test_p_values_are_uniform_where_the_posterior_is_exact():
    keys = jax.random.split(jax.random.key(1), 60)
    results = [
        calibrate(key, simulate, infer(0.0, 1.0), num_simulations=200, num_draws=100)
        for key in keys[:3]
    ]
    assert min(float(result.uniform_p.min()) for result in results) > 1e-3
    shares = jax.random.uniform(jax.random.key(2), (400, 300))
    from vi_jax.diagnostics import calibration

    for p_value in (calibration._uniform_p, calibration._symmetric_p):
        p = np.asarray(jax.vmap(p_value)(shares))
        assert abs(np.mean(p < 0.05) - 0.05) < 5 * (0.05 * 0.95 / 400) ** 0.5
        # the statistic is a step function of 300 signs
        assert abs(np.mean(p < 0.5) - 0.5) < 5 * (0.25 / 400) ** 0.5 + 0.03


@pytest.mark.integration
def test_the_laws_are_scipys():
    x = np.linspace(0.3, 2.0, 10)
    np.testing.assert_allclose([kolmogorov(v) for v in x], stats.kstwobign.sf(x), atol=1e-5)
    walk = np.cumsum(np.random.default_rng(0).choice([-1.0, 1.0], (20_000, 400)), axis=1) / 20
    np.testing.assert_allclose(
        brownian_supremum(jnp.asarray(1.55)), np.mean(np.abs(walk).max(1) > 1.549), atol=0.015
    )
