"""Evidence of single documents: enumeration, quadrature, bounds on the right side."""

import itertools
from dataclasses import replace

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


@pytest.mark.integration
def test_a_document_has_the_numbers_that_it_has_beside_others():
    fit = model()
    counts = vi.topics.from_scipy(csr_array(documents(16)))
    whole = vi.topics.evidence(jax.random.key(0), fit, counts, num_samples=2000)
    few = vi.topics.evidence(
        jax.random.key(0), fit, vi.topics.take(counts, np.arange(5)), num_samples=2000
    )
    for one, other in zip(whole[:4], few[:4], strict=True):
        assert other.shape == (5,)
        np.testing.assert_allclose(other, one[:5], rtol=1e-4, atol=1e-4)  # float32


@pytest.mark.integration
def test_simulated_documents_lie_between_the_bounds():
    fit = model()
    lengths = np.array([1, 3, 5] * 5)

    def bracket(num_chains, num_temperatures):
        settings = {"num_chains": num_chains, "num_temperatures": num_temperatures}
        return vi.topics.bracket(jax.random.key(2), fit, lengths, **settings)

    (below, above) = bracket(500, 20)
    made = vi.topics.simulate(jax.random.split(jax.random.key(2), 3)[0], fit, lengths)
    exact = vi.topics.exact(fit, made.counts)
    np.testing.assert_allclose(below, exact, atol=0.05)
    # all chains of a document begin at the same assignments: more noise than from below
    np.testing.assert_allclose(above, exact, atol=0.25)
    assert abs(np.mean(above - exact)) < 0.05
    # with few temperatures they part, each to its side
    (below, above) = bracket(1, 2)
    assert np.mean(below - exact) < -0.05
    assert np.mean(above - exact) > 0.05


@pytest.mark.integration
def test_documents_are_made_by_the_model():
    fit = model()
    made = vi.topics.simulate(jax.random.key(0), fit, np.full(4_000, 6))
    assert made.tokens.shape == made.assignments.shape == (4_000, 6)
    np.testing.assert_array_equal(made.counts.lengths, 6)
    expected = ALPHA / ALPHA.sum()
    np.testing.assert_allclose(made.shares.mean(0), expected, atol=0.03)
    topics = np.asarray(fit.topics_mean)
    np.testing.assert_allclose(
        made.counts.totals / made.counts.num_tokens, expected @ topics, atol=0.02
    )
    of_first = made.tokens[made.assignments == 0]
    np.testing.assert_allclose(np.bincount(of_first) / len(of_first), topics[0], atol=0.02)
    with pytest.raises(ValueError, match="lengths"):
        vi.topics.simulate(jax.random.key(0), fit, [3, 0])


@pytest.mark.integration
def test_shares_of_topics_that_share_no_word_are_calibrated():
    apart = np.kron(np.eye(3), np.full(4, 0.25)).astype(np.float32)
    fit = model(np.full(3, 0.8, np.float32), num_words=12)
    fit = replace(fit, topics=jax.numpy.asarray(apart * 1e6 + 1e-3))
    for row in vi.topics.calibration(jax.random.key(0), fit, lengths=(5, 40), num_docs=1_000):
        # assignments are certain, so that Dirichlet(gamma) is the posterior
        assert np.all(np.abs(row.coverage - row.level) < 4 * row.stderr + 0.01)
    fit = model()  # topics that overlap: the mean field is too sure
    (short,) = vi.topics.calibration(jax.random.key(0), fit, lengths=(20,), num_docs=500)
    assert short.coverage[1] < 0.88
