"""What no weights of one guide can see: another mode, numbers without digits, densities
without a maximum.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from vi_jax.targets import TargetError

LOW = np.log(0.3)


def two_places(z):  # 0.7 at (4, 4), 0.3 at (-4, -4)
    here, there = (dist.Normal(at, 1.0).log_prob(z).sum() for at in (4.0, -4.0))
    return jnp.logaddexp(np.log(0.7) + here, LOW + there)


def fit(density, size=2, method=None, **options):
    return vi.fit(
        jax.random.key(0),
        vi.targets.from_log_density(density, size),
        method,
        num_draws=1000,
        **options,
    )


@pytest.mark.integration
def test_one_start_tells_of_the_place_that_another_ascent_came_by():
    result = fit(two_places)
    assert result.diagnostics.verdict == "not reliable"
    assert "one of the paths passed a location 8." in result.diagnostics.advice
    assert result.fallback == ""  # no flow about one place finds another
    assert not result.moments()["corrected"]


@pytest.mark.integration
def test_starts_of_the_default_keep_to_their_own_places():
    best = fit(two_places, num_starts=8)
    assert best.diagnostics.verdict == "not reliable"
    assert "a start ended 8." in best.diagnostics.advice
    assert max(best.start_distances) > 7
    stacked = fit(two_places, num_starts=8, combine="stack")
    assert stacked.diagnostics.verdict == "reliable"
    assert abs(stacked.diagnostics.log_evidence) < 0.05
    assert abs(stacked.moments()["mean"][0] - 1.6) < 0.4


@pytest.mark.integration
def test_a_place_far_below_is_not_told_of():
    def density(z):
        return jnp.logaddexp(
            dist.Normal(4.0, 1.0).log_prob(z).sum(),
            -12.0 + dist.Normal(-4.0, 1.0).log_prob(z).sum(),
        )

    assert fit(density).diagnostics.verdict == "reliable"


@pytest.mark.cases(rest=None, slow=["default"])
@pytest.mark.integration
@pytest.mark.parametrize("method", [None, vi.methods.pathfinder()], ids=["default", "pathfinder"])
def test_a_density_that_rises_far_out_is_unbounded(method):
    with pytest.raises(TargetError, match="unbounded above"):
        fit(lambda z: jnp.sum(z**2), method=method)
    with pytest.raises((TargetError, FloatingPointError), match="proper prior"):
        fit(lambda z: jnp.sum(z), method=method)


@pytest.mark.integration
def test_heavy_tails_and_far_places_are_not_unbounded():
    cauchy = fit(lambda z: -jnp.log1p(z**2).sum(), fallback=0)
    assert 2 * np.log(np.pi) - 1 < cauchy.diagnostics.elbo < 2 * np.log(np.pi)
    assert fit(lambda z: -0.5 * jnp.sum((z - 300.0) ** 2)).diagnostics.verdict == "reliable"


@pytest.mark.integration
def test_numbers_without_digits_are_not_called_reliable():
    result = fit(lambda z: -0.5 * jnp.sum(((z - 1e6) / 0.1) ** 2))
    assert result.diagnostics.verdict == "not reliable"
    assert "jax_enable_x64" in result.diagnostics.advice
    with jax.enable_x64(True):
        assert (
            fit(lambda z: -0.5 * jnp.sum(((z - 1e6) / 0.1) ** 2)).diagnostics.verdict == "reliable"
        )


@pytest.mark.integration
def test_an_edge_is_told_as_one():
    with pytest.raises(FloatingPointError, match="needs a constraint"):
        fit(lambda z: jnp.where(z[0] > 1, -jnp.inf, -0.5 * jnp.sum(z**2)))


@pytest.mark.integration
def test_nan_at_draws_names_the_site():
    def model():
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(jnp.sqrt(a + 0.8), 1.0), obs=1.0)

    result = vi.fit(jax.random.key(0), vi.targets.from_numpyro(model), num_draws=1000)
    assert result.diagnostics.num_bad > 0
    assert "'y' (Normal)" in result.diagnostics.advice


@pytest.mark.integration
def test_the_table_gives_k_hat_and_the_evidence_their_reliability():
    near = fit(lambda z: -0.5 * jnp.sum(z**2))
    assert "nan" not in str(near)
    assert "not to be trusted" not in str(near)
    assert "not to be trusted" in str(fit(two_places))


@pytest.mark.integration
def test_dadvi_tells_what_its_few_draws_cost():
    result = fit(
        lambda z: -0.5 * jnp.sum(z**2) + 0.1 * jnp.sum(jnp.sin(z)), method=vi.methods.dadvi()
    )
    error = result.details.draws_error
    direct = vi.methods.frequentist_stderr(result.target.log_density, result.state) / jnp.exp(
        result.state.log_scale
    )
    np.testing.assert_allclose(error, direct, rtol=1e-5)
    assert "few samples" in str(result.details)
    assert result.report()["details"]["draws_error"] == error.tolist()
    assert fit(lambda z: -0.5 * jnp.sum(z**2)).details.draws_error.size == 0
