"""Many rows integrated out by common random numbers, against a Gaussian hierarchy in closed
form.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from vi_jax.diagnostics import many_rows, rows
from vi_jax.fitting import local, local_result
from vi_jax.local.guide import LocalGuide

NUM_ROWS = 700
BATCH = 256  # does not divide the rows
NOISE = 0.7
X = np.random.default_rng(0).normal(1.0, (1 + NOISE**2) ** 0.5, NUM_ROWS).astype(np.float32)
# mu ~ N(0, 5^2), z_n ~ N(mu, 1), x_n ~ N(z_n, NOISE^2)
MARGINAL = 1 + NOISE**2
VARIANCE = 1 / (1 / 25 + NUM_ROWS / MARGINAL)
MEAN = VARIANCE * X.astype(np.float64).sum() / MARGINAL


def log_prior(u):
    return dist.Normal(0.0, 5.0).log_prob(u[0])


TARGET = vi.targets.from_local_rows(
    log_prior,
    lambda u, z, x: (
        dist.Normal(u[0], 1.0).log_prob(z[:, 0]) + dist.Normal(z[:, 0], NOISE).log_prob(x)
    ),
    jnp.asarray(X),
    1,
    1,
    batch_size=BATCH,
)
ROW_VARIANCE = 1 / (1 + 1 / NOISE**2)


def log_weights(key, u, index, pull, num):
    """Of the posterior of z_n given mu, whose mean moves `pull` times as fast as it should."""
    x = jnp.asarray(X)[index]
    loc = ROW_VARIANCE * (MEAN + pull * (u[0] - MEAN) + x / NOISE**2)
    q = dist.Normal(loc, ROW_VARIANCE**0.5)
    v = q.sample(key, (num,))
    log_p = jax.vmap(lambda v: TARGET.log_rows(u, v[:, None], index))(v)
    return log_p - q.log_prob(v)


def guide():
    """Of mu, half a standard deviation off."""
    sd = VARIANCE**0.5
    return dist.MultivariateNormal(jnp.array([MEAN + 0.5 * sd]), scale_tril=jnp.array([[1.2 * sd]]))


def weighted(key, pull, num_draws=200, num_row_draws=8):
    return many_rows.weigh_many_rows(
        key,
        TARGET.log_global,
        lambda key, u, index, num: log_weights(key, u, index, pull, num),
        guide(),
        TARGET.batches(),
        num_draws=num_draws,
        num_row_draws=num_row_draws,
    )


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(weighted)


def exact_evidence():
    """log N(x; 0, MARGINAL I + 25 1 1^T), nats."""
    total = X.astype(np.float64).sum()
    quadratic = (X.astype(np.float64) ** 2).sum() / MARGINAL - VARIANCE * (total / MARGINAL) ** 2
    log_det = NUM_ROWS * np.log(2 * np.pi * MARGINAL) + np.log(25 / VARIANCE)
    return -0.5 * (quadratic + log_det)


def off_in_sd(samples):
    """How far the weighted mean of mu is from the posterior's, and its standard error, in SDs."""
    w = np.exp(np.asarray(samples.log_weights, np.float64))
    u = np.asarray(samples.u[:, 0], np.float64)
    mean = w @ u
    stderr = np.sqrt((w**2) @ (u - mean) ** 2)
    return abs(mean - MEAN) / VARIANCE**0.5, stderr / VARIANCE**0.5


@pytest.mark.integration
def test_exact_guides_of_rows_give_the_marginal_itself(compiled):
    found = compiled(jax.random.key(0), 1.0)
    assert float(found.row_stderr[0]) < 1e-3
    u = np.asarray(found.samples.u[:, 0], np.float64)
    log_posterior = -0.5 * ((u - MEAN) ** 2 / VARIANCE + np.log(2 * np.pi * VARIANCE))
    log_q = np.asarray(jax.vmap(guide().log_prob)(found.samples.u))
    expected = np.mean(exact_evidence() + log_posterior - log_q)
    assert abs(float(found.samples.elbo) - expected) < 0.01
    off, stderr = off_in_sd(found.samples)
    assert off < 5 * stderr


@pytest.mark.integration
def test_rows_that_follow_mu_badly_move_its_mean_by_what_is_told(compiled):
    """Over twelve sets of row samples the error is what `row_stderr` says, on average."""
    errors = []
    told = []
    for seed in range(12):
        found = compiled(jax.random.key(seed), 0.0)
        errors.append(off_in_sd(found.samples)[0])
        told.append(float(found.row_stderr[0]))
    rms = np.sqrt(np.mean(np.square(errors)))
    typical = np.sqrt(np.mean(np.square(told)))
    assert 0.05 < typical < 1.0
    assert 0.5 * typical < rms < 2.0 * np.hypot(typical, 0.08)


def test_the_jackknife_leaves_out_a_group_at_a_time():
    log_w = np.random.default_rng(1).normal(size=(8, 5))
    pseudo = np.asarray(jax.jit(many_rows.pseudo_values)(jnp.asarray(log_w, jnp.float32)))
    for g in range(4):
        kept = np.exp(np.delete(log_w, [2 * g, 2 * g + 1], axis=0))
        expected = 4 * np.log(np.exp(log_w).mean(0)) - 3 * np.log(kept.mean(0))
        np.testing.assert_allclose(pseudo[g], expected, rtol=1e-4)


def test_the_jackknife_is_nearly_unbiased_for_the_log_of_a_mean():
    """log of a mean of M weights exp(s e - s^2 / 2) has mean about -(exp(s^2) - 1) / (2 M)."""
    noise = np.random.default_rng(2).normal(size=(8, 50_000))
    log_w = jnp.asarray(0.5 * noise - 0.125, jnp.float32)
    plain = np.asarray(jax.nn.logsumexp(log_w, axis=0) - np.log(8))
    mended = np.asarray(jax.jit(many_rows.pseudo_values)(log_w)).mean(0)
    stderr = mended.std() / len(mended) ** 0.5
    assert plain.mean() < -0.015
    assert abs(mended.mean()) < 0.002 + 5 * stderr


@pytest.mark.parametrize(("num_draws", "num_row_draws"), [(3, 8), (4, 6), (4, 4)])
def test_numbers_of_samples_that_do_not_divide_are_refused(num_draws, num_row_draws):
    with pytest.raises(ValueError, match="expects"):
        weighted(jax.random.key(0), 1.0, num_draws, num_row_draws)


def test_samples_of_theta_are_as_many_as_the_rows_allow():
    assert local.affordable_draws(4000, 1_000) == 4000
    assert local.affordable_draws(4000, 10_000) == 500
    assert local.affordable_draws(4000, 100_000) == 200
    assert local.affordable_draws(101, 100_000) == 100
    assert local.affordable_draws(4000, 100_001) == 0


def test_noise_of_the_rows_that_is_too_large_leaves_theta_unchecked():
    good = (0.1, 180.0, 200)
    word, advice = local_result._verdict(0.0, good, 0.05, True, 10_000)
    assert word == "reliable"
    word, advice = local_result._verdict(0.0, None, 0.3, True, 10_000)
    assert word == "rows reliable, theta not checked"
    assert "0.30 SD" in advice


def test_weights_that_are_nearly_equal_have_no_bad_tail():
    noise = np.random.default_rng(0).normal(size=(1_000, 2))
    log_w = np.stack([0.002 * noise[:, 0] ** 4, 2.0 * np.abs(noise[:, 1]) ** 1.5], 1)

    found = jax.jit(jax.vmap(rows._k_hat, 1))(jnp.asarray(log_w, jnp.float32))
    assert found[0] == -jnp.inf
    assert found[1] > 0.7


@pytest.mark.integration
def test_even_samples_of_rows_are_less_noisy_than_independent_ones():
    """The mean of w over 8 samples of a row whose guide is wider than its posterior."""
    guides = vi.methods.table()
    loc = ROW_VARIANCE * (MEAN + X[:, None] / NOISE**2)
    wide = np.full((NUM_ROWS, 1), np.log(1.2 * ROW_VARIANCE**0.5))
    params = {"loc": jnp.asarray(loc), "log_scale": jnp.asarray(wide, jnp.float32)}
    shared = vi.families.full_rank(1).guide(vi.families.full_rank(1).init(jax.random.key(0)))
    q = LocalGuide(shared, params, jnp.ones(NUM_ROWS, bool), guides, 1)
    u = jnp.array([MEAN], jnp.float32)
    index = jnp.arange(32)

    def spread(weigh):
        keys = jax.random.split(jax.random.key(1), 100)
        means = jax.jit(jax.vmap(lambda key: jnp.mean(jnp.exp(weigh(key)), 0)))(keys)
        return float(np.var(np.asarray(means), axis=0).mean())

    def independent(key):
        def one(key):
            v = q.sample_rows(key, TARGET, u, index)
            log_q = jax.vmap(lambda q, v: q.log_prob(v))(q.of_rows(TARGET, u, index), v)
            return TARGET.log_rows(u, v, index) - log_q

        return jax.vmap(one)(jax.random.split(key, 8))

    even = spread(lambda key: q.weigh_rows(key, TARGET, u, index, 8))
    assert even < 0.6 * spread(independent)
