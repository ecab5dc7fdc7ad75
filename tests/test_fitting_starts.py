"""Many starts: the best of them or all of them stacked, against a posterior whose two masses are
known.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from vi_jax.fitting import stack_weights

SHARE = 0.9  # of the mass around 4; the rest around -4
MODES = ((SHARE, 4.0), (1 - SHARE, -4.0), (np.exp(-70.0), 40.0))
EVIDENCE = np.log(2 * np.pi)


def two_modes(u):
    """And a third at 40, of mass e^-70, whose guide is made to fail."""
    return jax.nn.logsumexp(
        jnp.stack([jnp.log(share) - 0.5 * jnp.sum((u - loc) ** 2) for share, loc in MODES])
    )


TARGET = vi.targets.from_log_density(two_modes, 2)
# most where a tenth of the mass is
STARTS = jnp.array([[-4.0, -4.0], [-3.0, -5.0], [-5.0, -4.0], [3.0, 3.0], [40.0, 41.0]])
PATH = vi.methods.pathfinder()
METHOD = PATH._replace(
    guide=lambda s: jax.tree.map(lambda leaf: jnp.where(s.best.loc[0] > 20, jnp.nan, leaf), s.best)
)


def fit(**kwargs):
    return vi.fit(jax.random.key(0), TARGET, METHOD, num_starts=5, start=STARTS, **kwargs)


@pytest.mark.integration
def test_the_best_start_is_kept_and_what_it_leaves_out_is_said():
    result = fit()
    assert np.all(np.asarray(result.guide.mean) > 2)
    np.testing.assert_allclose(np.ptp(result.starts[:4]), np.log(SHARE / (1 - SHARE)), atol=1e-3)
    np.testing.assert_allclose(result.start_distances[:4], [8, 8, 8, 0], atol=0.7)
    assert result.start_weights == (0, 0, 0, 1, 0)
    assert result.starts[4] == -np.inf
    assert "5: ELBO" in str(result)
    assert result.diagnostics.k_hat < 0.5  # of one mode, no weight shows the other
    assert result.diagnostics.verdict == "not reliable"
    assert "combine='stack'" in result.diagnostics.advice
    assert not result.moments()["corrected"]


@pytest.mark.integration
def test_stacked_starts_weigh_modes_by_their_mass_and_a_failed_one_by_nothing():
    result = fit(combine="stack")
    np.testing.assert_allclose(sum(result.start_weights[:3]), 1 - SHARE, atol=1e-3)
    assert result.start_weights[4] == 0
    assert result.diagnostics.verdict == "reliable"
    assert (
        abs(result.diagnostics.log_evidence - EVIDENCE)
        < 1e-3 + 5 * result.diagnostics.log_evidence_stderr
    )
    moments = result.moments()
    sd = np.sqrt(1 + 64 * SHARE * (1 - SHARE))
    np.testing.assert_allclose(moments["mean"], 8 * SHARE - 4, atol=5 * sd / 4000**0.5)
    np.testing.assert_allclose(moments["sd"], sd, rtol=0.05)
    for draws in (result.resample(jax.random.key(1), 4000), result.sample(jax.random.key(2), 4000)):
        assert abs(np.mean(draws[:, 0] > 0) - SHARE) < 5 * np.sqrt(2 * SHARE * (1 - SHARE) / 4000)
    # through the mixture's density
    np.testing.assert_allclose(result.details.location_gradient, 0, atol=1e-3)
    assert "none for a guide that is not one Gaussian" in str(result.details)
    with pytest.raises(ValueError, match="a mixture of several starts"):
        result.linear_response(jax.random.key(3))
    u = jnp.array([[4.0, 3.0], [-4.0, -5.0]])
    np.testing.assert_allclose(
        jax.vmap(result.guide.log_prob)(u), jax.vmap(two_modes)(u) - EVIDENCE, atol=2e-3
    )
    np.testing.assert_allclose(
        result.guide.log_prob(u), jax.vmap(result.guide.log_prob)(u), rtol=1e-6
    )


@pytest.mark.integration
def test_weights_of_guides_that_make_up_the_posterior_are_their_masses_and_others_weigh_nothing():
    guides = [dist.Normal(4.0, 1.0), dist.Normal(-4.0, 1.0), dist.Normal(30.0, 0.1)]
    masses = jnp.array([0.7, 0.3])
    u = jnp.concatenate([q.sample(jax.random.key(i), (2000,)) for i, q in enumerate(guides)])
    log_q = jnp.stack([q.log_prob(u) for q in guides])
    # 3 nats: not normalised
    log_p = 3.0 + jax.nn.logsumexp(log_q[:2] + jnp.log(masses)[:, None], axis=0)
    weights = jnp.exp(jax.jit(stack_weights)(log_p, log_q))
    stderr = np.sqrt(0.7 * 0.3 / 4000)
    np.testing.assert_allclose(weights, [0.7, 0.3, 0.0], atol=5 * stderr)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)


def test_another_way_to_combine_is_refused():
    with pytest.raises(ValueError, match="combine is one of best, stack; got 'mean'"):
        fit(combine="mean")
