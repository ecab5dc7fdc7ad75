"""Hierarchical Dirichlet process: sticks against quadrature, the ELBO, the number of topics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.sparse import csr_array
from scipy.special import gammaln
from scipy.stats import beta

import vi_jax as vi
from vi_jax.topics import hdp, sticks


def seen(num_sticks=4, seed=0):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(num_sticks + 1, 0.7), 50)
    return sticks.Seen(50.0, 0.8, 5.0, np.log(np.maximum(shares, 1e-6)).sum(0))


def some_sticks(num_sticks=4, seed=1):
    rng = np.random.default_rng(seed)
    return sticks.Sticks(rng.gamma(3.0, 4.0, num_sticks), rng.gamma(3.0, 9.0, num_sticks))


def test_the_surrogate_is_below_the_normaliser():
    rng = np.random.default_rng(0)
    for _ in range(200):
        weights = rng.dirichlet(np.full(rng.integers(2, 20), 0.1 + rng.gamma(1.0)))
        a = rng.gamma(1.0) + 1e-3
        exact = gammaln(a) - gammaln(a * weights).sum()
        surrogate = (len(weights) - 1) * np.log(a) + np.log(weights).sum()
        assert surrogate <= exact + 1e-8 * abs(exact)


def test_the_bound_is_its_expectation_by_samples():
    broken = some_sticks()
    told = seen()
    rng = np.random.default_rng(2)
    u = rng.beta(broken.ones, broken.zeros, (200_000, 4))
    left = np.cumprod(1 - u, 1)
    weights = np.append(u, np.ones((len(u), 1)), 1) * np.append(np.ones((len(u), 1)), left, 1)
    value = told.num_docs * (4 * np.log(told.concentration) + np.log(weights).sum(1))
    value += told.concentration * weights @ told.log_shares
    value += beta(1, told.gamma).logpdf(u).sum(1)
    value -= beta(broken.ones, broken.zeros).logpdf(u).sum(1)
    stderr = value.std() / np.sqrt(len(u))
    assert abs(sticks.bound(broken, told) - value.mean()) < 5 * stderr
    np.testing.assert_allclose(broken.weights, weights.mean(0), rtol=0.02)


def test_the_slope_is_that_of_the_bound():
    told = seen()
    point = np.concatenate([[-0.5, 0.3, 0.1, -1.0], [2.0, 3.0, 4.0, 3.5]])
    off = check_grad(
        lambda at: sticks.bound(sticks._at(at), told),
        lambda at: sticks._slope(at, sticks._at(at), told),
        point,
    )
    assert off < 1e-3


def test_the_optimum_is_one_and_so_is_the_concentration():
    told = seen()
    start = some_sticks()
    best = sticks.optimum(start, told)
    value = sticks.bound(best, told)
    assert value > sticks.bound(start, told)
    for factor in (0.95, 1.05):
        assert sticks.bound(best._replace(ones=best.ones * factor), told) <= value + 1e-6
        assert sticks.bound(best._replace(zeros=best.zeros * factor), told) <= value + 1e-6
    told = told._replace(concentration=sticks.best_concentration(best, told))
    value = sticks.bound(best, told)
    for factor in (0.9, 1.1):
        other = told._replace(concentration=told.concentration * factor)
        assert sticks.bound(best, other) < value


def test_the_share_of_further_topics_is_that_of_a_dirichlet_of_one_more():
    """KL of Dirichlet(gamma, r) from its prior, against that of Dirichlet(gamma) and the change."""
    from scipy.special import digamma

    gamma = np.array([[0.3, 4.2, 1.6], [2.3, 0.2, 0.1]])
    alpha = np.array([0.3, 0.2, 0.1])
    r = 0.4
    lengths = gamma.sum(1) - alpha.sum()

    def terms(gamma, counts):
        """E[log p] of the assignments, entropy of the shares, but for the prior's normaliser."""
        log_shares = digamma(gamma) - digamma(gamma.sum(1))[:, None]
        value = (counts * log_shares).sum() - (gamma * log_shares).sum()
        return value + gammaln(gamma).sum() - gammaln(gamma.sum(1)).sum(), log_shares.sum(0)

    counts = gamma - alpha
    (before, log_before) = terms(gamma, counts)
    more = np.append(gamma, np.full((2, 1), r), 1)
    (after, log_after) = terms(more, np.append(counts, np.zeros((2, 1)), 1))
    (change, falls, log_rest) = hdp._rest(lengths, alpha.sum(), r)
    np.testing.assert_allclose(before + change, after, rtol=1e-10)
    np.testing.assert_allclose(np.append(log_before - falls, log_rest), log_after, rtol=1e-10)


def planted(num_topics, num_docs, seed=0):
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(60, 0.1), num_topics)
    shares = rng.dirichlet(np.full(num_topics, 0.15), num_docs)
    dense = np.stack([rng.multinomial(60, row @ topics) for row in shares])
    return topics, vi.topics.from_scipy(csr_array(dense))


@pytest.mark.integration
def test_the_number_of_topics_is_found():
    (topics, counts) = planted(4, 200)
    fit = vi.topics.fit_hdp(jax.random.key(0), counts, num_topics=10, eta=0.1, num_sweeps=80)
    assert fit.method == "hdp"
    assert fit.num_topics == 4
    assert vi.topics.match(topics, fit.topics_mean).distance.max() < 0.15
    assert "topics of 60 words" in str(fit)
    assert np.isfinite(vi.topics.completion(fit, counts, counts).ppl_tok)


@pytest.mark.integration
def test_the_elbo_rises_and_merges_are_kept_where_it_does(x64):
    (_, counts) = planted(3, 60)
    fit = vi.topics.fit_hdp(
        jax.random.key(1),
        counts,
        num_topics=6,
        eta=0.1,
        num_warm=0,
        num_iterations=50,
        num_sweeps=40,
    )
    assert fit.num_topics < 6
    assert np.all(np.diff(fit.history[6:]) > -1e-5)


def test_wrong_settings_are_refused():
    (_, counts) = planted(2, 10)
    with pytest.raises(ValueError, match="positive"):
        vi.topics.fit_hdp(jax.random.key(0), counts, num_topics=3, gamma=0.0)
    with pytest.raises(ValueError, match="more topics than documents"):
        vi.topics.fit_hdp(jax.random.key(0), counts, num_topics=30)
    with pytest.raises(TypeError, match="key"):
        vi.topics.fit_hdp(0, counts, num_topics=3)
    assert jnp.asarray(counts.lengths).sum() == counts.num_tokens
