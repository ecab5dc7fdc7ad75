"""Evidence of single documents: enumeration, quadrature, bounds on the right side."""

import itertools

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.sparse import csr_array
from scipy.special import gammaln, logsumexp
from scipy.stats import beta as beta_distribution

import vi_jax as vi
from vi_jax.topics.result import LDA

ALPHA = np.array([0.3, 0.7, 0.2], np.float32)


def model(alpha=ALPHA, num_words=8, seed=0):
    rng = np.random.default_rng(seed)
    topics = rng.gamma(0.5, 20.0, (len(alpha), num_words)).astype(np.float32) + 0.1
    none = np.zeros(0)
    return LDA(
        topics=jax.numpy.asarray(topics),
        alpha=jax.numpy.asarray(alpha),
        eta=jax.numpy.ones(num_words),
        weights=jax.numpy.ones(len(alpha)),
        history=none,
        perplexity=none,
        starts=none,
        found=none,
        method="partly",
        num_tokens=1,
        num_docs=1,
        converged=True,
        seconds=0.0,
    )


def documents(num_docs=12, most=5, num_words=8, seed=1):
    rng = np.random.default_rng(seed)
    dense = np.zeros((num_docs, num_words), int)
    for row in dense[1:]:
        np.add.at(row, rng.integers(num_words, size=rng.integers(1, most + 1)), 1)
    return dense


def by_all_assignments(fit, row):
    alpha = np.asarray(fit.alpha, float)
    topics = np.asarray(fit.topics_mean, float)
    tokens = np.repeat(np.arange(len(row)), row)
    terms = []
    for z in itertools.product(range(len(alpha)), repeat=len(tokens)):
        counts = np.bincount(z, minlength=len(alpha))
        polya = gammaln(alpha.sum()) - gammaln(alpha.sum() + len(z))
        polya += np.sum(gammaln(alpha + counts) - gammaln(alpha))
        terms.append(polya + np.sum(np.log(topics[list(z), tokens])))
    return logsumexp(terms)


def test_the_recursion_is_the_sum_over_all_assignments():
    fit = model()
    dense = documents()
    found = vi.topics.exact(fit, vi.topics.from_scipy(csr_array(dense)))
    assert found[0] == 0.0
    expected = [by_all_assignments(fit, row) for row in dense[1:]]
    np.testing.assert_allclose(found[1:], expected, rtol=1e-6)


def test_two_topics_are_a_quadrature():
    fit = model(np.array([0.8, 1.7], np.float32))
    row = documents()[5]
    topics = np.asarray(fit.topics_mean, float)

    def integrand(share):
        chances = share * topics[0] + (1 - share) * topics[1]
        return np.prod(chances**row) * beta_distribution.pdf(share, 0.8, 1.7)

    expected = np.log(quad(integrand, 0, 1, epsabs=0, epsrel=1e-9, limit=200)[0])
    found = vi.topics.exact(fit, vi.topics.from_scipy(csr_array(row[None])))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_long_documents_are_not_enumerated():
    dense = documents()
    dense[3, 2] = 9
    with pytest.raises(ValueError, match="at most 8 tokens"):
        vi.topics.exact(model(), vi.topics.from_scipy(csr_array(dense)))
    with pytest.raises(ValueError, match="of 9 words, the topics of 8"):
        vi.topics.exact(model(), vi.topics.from_scipy(csr_array(documents(num_words=9))))


@pytest.mark.integration
def test_bounds_are_below_and_near():
    fit = model()
    counts = vi.topics.from_scipy(csr_array(documents(16)))
    exact = vi.topics.exact(fit, counts)
    found = vi.topics.evidence(jax.random.key(0), fit, counts, num_samples=2000)
    assert np.all(found.elbo <= exact + 1e-4)
    assert np.all(found.elbo <= found.iwae + 0.05)
    assert found.k_hat.max() < found.threshold
    np.testing.assert_allclose(found.iwae, exact, atol=0.1)
    assert np.all(found.gap > -0.1)
    assert 0 < found.readable.sum() < 16  # words of several topics have several modes
    assert "of 16 documents can be read" in found.verdict
    annealed = vi.topics.anneal(jax.random.key(1), fit, counts, num_chains=1000)
    np.testing.assert_allclose(annealed, exact, atol=0.05)
