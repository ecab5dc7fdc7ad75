"""vi.fit: what it returns, what it says, and what it refuses."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from vi_jax.fitting import NUM_CANDIDATES
from vi_jax.targets import TargetError

Y = jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SIGMA = jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def eight_schools(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        raw = numpyro.sample("raw", dist.Normal(0.0, 1.0))
        numpyro.sample(
            "y", dist.Normal(numpyro.deterministic("theta", mu + tau * raw), SIGMA), obs=y
        )


@pytest.fixture(scope="module")
def result():
    return vi.fit(jax.random.key(0), vi.targets.from_numpyro(eight_schools, Y))


@pytest.mark.integration
def test_the_moments_are_those_of_the_reference_draws(result):
    moments = result.moments()  # against posteriordb's reference: mu 4.42 (3.32), tau 3.59 (3.21)
    assert moments["corrected"]
    assert abs(moments["mean"]["mu"] - 4.42) < 0.15 * 3.32
    assert abs(moments["sd"]["mu"] / 3.32 - 1) < 0.1
    assert abs(moments["mean"]["tau"] - 3.59) < 0.15 * 3.21
    draws = result.resample(jax.random.key(1), 2000)
    assert draws["theta"].shape == (2000, 8)
    assert abs(draws["mu"].mean() - moments["mean"]["mu"]) < 0.4
    assert set(result.sample(jax.random.key(1), 10)) == {"mu", "tau", "raw", "theta"}


@pytest.mark.integration
def test_it_says_what_it_did(result):
    text = str(result)
    assert repr(result) == text  # the last line of a notebook's cell
    assert text.startswith("method               bam (full rank, for 10 latents)")
    for word in ("k-hat", "gradient evaluations", "verdict", "next", "nats"):
        assert word in text
    report = result.report()
    assert report["verdict"] in ("reliable", "corrected only")
    assert report["evaluations"] == result.history["evaluations"][-1] + NUM_CANDIDATES < 5000
    assert len(result.history["value"]) == report["num_steps"]
    assert result.converged


def test_steps_that_were_skipped_are_said_and_most_of_them_are_no_answer(result):
    few, most = (replace(result, skipped=int(share * result.num_steps)) for share in (0.4, 0.6))
    assert few.diagnostics.verdict == result.diagnostics.verdict
    assert f"{few.skipped} steps skipped" in str(few)
    assert most.diagnostics.verdict == "not reliable"
    assert f"{most.skipped} of {most.num_steps} steps were not finite" in most.diagnostics.advice


@pytest.mark.integration
def test_details_say_how_far_the_guide_is_from_its_optimum(result):
    details = result.details
    assert details.names == result.target.names
    assert (
        details.location_gradient.shape
        == details.log_scale_z.shape
        == details.response_ratio.shape
        == (10,)
    )
    assert 0.9 < details.r_hat < 1.2
    assert details.mcse_units == "nats"
    assert details.evaluations == 1000 + 2 * 50 * 20
    assert np.all(np.abs(details.location_gradient) < 0.3)
    ratio = dict(zip(details.names, details.response_ratio, strict=True))
    assert 0.8 < ratio["mu"] < 1.2
    for word in ("location", "log scale", "R-hat", "linear response", "3,000 gradients"):
        assert word in str(details)
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    assert report["details"]["r_hat"] == details.r_hat
    assert "details" not in result.report(details=False)
    failed = replace(
        result,
        starts=(-np.inf, result.starts[0]),
        start_distances=(np.nan, 0.0),
        start_weights=(0.0, 1.0),
    )
    assert json.loads(json.dumps(failed.report(), allow_nan=False))["starts"] == [
        None,
        result.starts[0],
    ]


@pytest.mark.integration
def test_linear_response_mends_the_scales_of_mean_field():
    def density(u):  # precision 1 / 0.19 [[1, -0.9], [-0.9, 1]]: variances 1, correlation 0.9
        return -0.5 * (u[0] ** 2 + u[1] ** 2 - 1.8 * u[0] * u[1]) / 0.19

    result = fit(density, method=vi.methods.dadvi())
    assert result.diagnostics.verdict != "reliable"
    u = np.asarray(result.weighted.u)
    with pytest.warns(DeprecationWarning, match=r"now called Result\.weighted"):
        assert result.weighed is result.weighted
    # exact: the posterior is Gaussian
    np.testing.assert_allclose(result.details.response_ratio * u.std(0), 1, rtol=1e-3)
    assert np.all(result.details.response_ratio > 1.7)
    mended = result.linear_response(jax.random.key(1))
    assert mended.method == "dadvi with linear response"
    assert mended.evaluations == result.evaluations + 2 * 50 * 4
    assert mended.diagnostics.verdict == "reliable"
    draws = mended.sample(jax.random.key(2), 4000)
    np.testing.assert_allclose(np.cov(draws.T), [[1, 0.9], [0.9, 1]], rtol=0.15)


@pytest.mark.integration
def test_a_run_is_a_function_of_its_key_and_reports_do_not_change_it(result):
    seen = []
    target = vi.targets.from_numpyro(eight_schools, Y)
    again = vi.fit(
        jax.random.key(0),
        target,
        report=lambda step, value: seen.append((step, value)),
        report_every=40,
    )
    np.testing.assert_allclose(again.guide.mean, result.guide.mean, rtol=1e-5, atol=1e-5)
    assert [step for step, _ in seen[:2]] == [40, 80]
    assert seen[-1][0] == again.num_steps


@pytest.mark.integration
def test_the_draws_go_to_arviz(result):
    arviz = pytest.importorskip("arviz")
    data = result.to_arviz(jax.random.key(2), 500)
    assert data.posterior["theta"].shape == (1, 500, 8)
    assert data.attrs["method"] == "bam"
    assert float(arviz.ess(data)["mu"]) > 250


@pytest.mark.integration
def test_a_nan_at_a_draw_is_never_a_silent_number():
    result = fit(
        lambda u: jnp.where(u[0] > 2.5, jnp.nan, -0.5 * jnp.sum(u**2)),
        method=vi.methods.pathfinder(),
    )
    assert result.diagnostics.num_bad > 0
    assert result.diagnostics.verdict == "not reliable"
    assert "nan at" in str(result)
    assert not result.moments()["corrected"]


def fit(log_density, size=2, **kwargs):
    return vi.fit(jax.random.key(0), vi.targets.from_log_density(log_density, size), **kwargs)


@pytest.mark.integration
def test_bad_densities_are_errors():
    with pytest.raises(TargetError, match="is nan at the start"):
        fit(lambda u: jnp.sum(u) * jnp.nan)
    with pytest.raises(TargetError, match="is -inf at the start"):
        fit(lambda u: jnp.where(u[0] > 100, 0.0, -jnp.inf))
    with pytest.raises(TargetError, match=r"gradient .* not finite at the start, in z\[1\]"):
        fit(lambda u: -jnp.sum(u**2) - jnp.sqrt(u[1] * 0.0))
    with pytest.raises(TargetError, match="exactly 0 at the start"):
        fit(lambda u: -jnp.sum(jnp.round(u) ** 2))
    with pytest.raises(TargetError, match="unbounded above"):
        fit(lambda u: jnp.sum(jnp.exp(0.1 * u)), method=vi.methods.pathfinder())
    with pytest.raises(TargetError, match=r"the observed site .y. .* has log density (nan|-inf)"):
        vi.fit(jax.random.key(0), vi.targets.from_numpyro(eight_schools, Y.at[2].set(jnp.nan)))
    with pytest.raises(ValueError, match="num_starts has to be a whole number of at least 1"):
        fit(lambda u: -jnp.sum(u**2), num_starts=0)
    with pytest.raises(ValueError, match="start expects shape"):
        fit(lambda u: -jnp.sum(u**2), start=jnp.zeros(3))


@pytest.mark.parametrize("method", ["advi", vi.methods.advi], ids=["by name", "not called"])
def test_a_method_that_was_not_made_is_told_how(method):
    local = vi.targets.from_local_rows(
        lambda t: -t @ t, lambda t, z, rows: -(z[:, 0] ** 2), jnp.ones(4), 2, 1, batch_size=2
    )
    for target in (vi.targets.from_log_density(lambda z: -z @ z, 2), local):
        with pytest.raises(TypeError, match=r"vi.methods.advi\(\)"):
            vi.fit(jax.random.key(0), target, method)


def test_the_value_is_looked_at_before_the_gradient():
    target = vi.targets.from_log_density(lambda z: -z @ z, 2)
    for density, words in [
        (lambda z: z @ jnp.ones(3), "cannot be evaluated: "),
        (lambda z: z, r"one floating-point number, nats; got shape \(2,\)"),
        (
            lambda z: jax.lax.while_loop(lambda x: x > 1, lambda x: x / 2, z @ z),
            "cannot be differentiated: Reverse-mode",
        ),
    ]:
        with pytest.raises(TargetError, match=words):
            vi.fit(jax.random.key(0), target._replace(log_density=density))


@pytest.mark.integration
def test_averaged_parameters_are_what_is_at_rest():
    details = fit(
        lambda u: -0.5 * jnp.sum(u**2 * jnp.array([1.0, 9.0])), method=vi.methods.advi()
    ).details
    assert details.iterates == "the parameters that are averaged"
    assert 0.9 < details.r_hat < 1.1  # the method's own thresholds
    assert 0 < details.mcse < 0.05
    assert "SD, of the parameters" in str(details)
