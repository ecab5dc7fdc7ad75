"""The correlated topic model: its bound against quadrature, and planted correlations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_array

import vi_jax as vi
from configs.topics.lda import get_config
from experiments.cli import UserError
from experiments.topics.config import validate
from vi_jax.topics import correlated

BETA = np.array([[0.6, 0.1], [0.3, 0.2], [0.1, 0.7]])  # three words, two topics
COUNTS = np.array([5.0, 2.0, 3.0])
MEAN = np.array([0.4, -0.3])
COVARIANCE = np.array([[1.2, -0.5], [-0.5, 0.8]])


def exact_log_evidence():
    """log p(words) by quadrature over z [2]."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    tril = np.linalg.cholesky(COVARIANCE)
    grid = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    z = MEAN + grid @ tril.T
    theta = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    log_lik = np.log(theta @ BETA.T) @ COUNTS
    return np.log(np.sum(np.outer(weights, weights).ravel() * np.exp(log_lik)) / (2 * np.pi))


def bound(q):
    prior = correlated.prior_of(jnp.asarray(MEAN), jnp.asarray(COVARIANCE))
    return correlated.document_bound(prior, jnp.asarray(COUNTS), jnp.asarray(BETA), q)


def fitted(num_rounds):
    """Bounds of each round from a start far off, and the slopes at the end."""
    prior = correlated.prior_of(jnp.asarray(MEAN), jnp.asarray(COVARIANCE))

    @jax.jit
    def program(q):
        def step(q, _):
            q = correlated.ascend(prior, jnp.asarray(COUNTS), jnp.asarray(BETA), q)
            return q, bound(q)

        q, bounds = jax.lax.scan(step, q, None, length=num_rounds)
        return q, bounds, jax.grad(bound)(q)

    far = correlated.Posterior(jnp.array([-3.0, 4.0]), jnp.array([2.0, -4.0]), jnp.zeros(2))
    return program(far)


@pytest.mark.integration
def test_the_bound_rises_to_a_stationary_point_below_the_evidence(x64):
    q, bounds, slopes = fitted(80)
    assert np.all(np.diff(bounds) >= -1e-12)
    for slope in slopes:
        np.testing.assert_allclose(slope, 0.0, atol=1e-6)
    exact = exact_log_evidence()
    assert exact - 0.6 < bounds[-1] < exact
    untilted = bound(q._replace(tilt=jnp.zeros(2)))  # Blei & Lafferty's at the same q
    assert untilted < bounds[-1]


def test_the_bound_is_tight_where_the_prior_is_a_point(x64):
    tiny = 1e-10
    prior = correlated.prior_of(jnp.asarray(MEAN), tiny * jnp.eye(2))
    q = correlated.start_at(jnp.asarray(MEAN))._replace(log_v=jnp.full(2, np.log(tiny)))
    found = correlated.document_bound(prior, jnp.asarray(COUNTS), jnp.asarray(BETA), q)
    theta = np.exp(MEAN) / np.exp(MEAN).sum()
    np.testing.assert_allclose(found, COUNTS @ np.log(BETA @ theta), rtol=1e-8)


def planted(num_docs):
    """Documents of three topics of five words, the first two of which go together."""
    rng = np.random.default_rng(0)
    topics = np.kron(np.eye(3), np.full(5, 0.2))
    covariance = np.array([[4.0, 2.4, -1.0], [2.4, 4.0, -1.0], [-1.0, -1.0, 3.0]])
    z = rng.multivariate_normal([0.2, 0.0, -0.2], covariance, num_docs)
    theta = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    dense = np.stack([rng.multinomial(120, row @ topics) for row in theta])
    return topics, z, theta, vi.topics.from_scipy(csr_array(dense))


@pytest.mark.integration
def test_planted_correlations_are_found_and_the_criterion_never_falls(x64):
    (topics, z, theta, counts) = planted(400)
    seen = []
    fit = vi.topics.fit_ctm(
        jax.random.key(0), counts, num_topics=3, eta=0.1, num_sweeps=40, callback=seen.append
    )
    criteria = np.array([float(each.state.criterion) for each in seen])
    assert np.all(np.diff(criteria) > -1e-6)
    found = vi.topics.match(topics, fit.topics_mean)
    assert found.distance.max() < 0.1
    order = np.asarray(found.order)
    assert np.abs(fit.shares(counts)[:, order] - theta).mean() < 0.04
    centring = np.eye(3) - 1 / 3
    expected = centring @ np.cov(z.T) @ centring  # of these documents
    within = centring @ np.asarray(fit.covariance)[np.ix_(order, order)] @ centring
    # a normal q without correlations, and a bound, make the variances some 15 % small
    ratio = np.diagonal(within) / np.diagonal(expected)
    assert np.all((ratio > 0.75) & (ratio < 1.05))
    correlation = np.asarray(fit.correlation)[np.ix_(order, order)]
    scale = np.sqrt(np.diagonal(expected))
    np.testing.assert_allclose(correlation, expected / scale / scale[:, None], atol=0.1)
    assert fit.twins == fit.unused == []
    assert "3 topics of 15 words" in repr(fit)
    again = vi.topics.fit_ctm(
        jax.random.key(9),
        counts,
        num_topics=3,
        eta=0.1,
        num_sweeps=len(seen),
        resume=seen[4].state,
    )
    np.testing.assert_array_equal(again.covariance, fit.covariance)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("alpha", 0.5, "config.model.alpha is 0.5, and the method ctm"),
        ("num_starts", 3, "config.model.num_starts is 3, and the method ctm"),
        ("num_topics", 1, "it has to be at least 2"),
    ],
)
def test_the_command_refuses_what_the_model_has_not(field, value, message):
    config = get_config("ctm")
    validate(config)
    config.model = {**config.model.to_dict(), field: value}
    with pytest.raises(UserError, match=message):
        validate(config)


def test_a_config_of_lda_says_that_ctm_measures_no_single_documents():
    config = get_config()
    config.model.method = "ctm"
    with pytest.raises(UserError, match=r"fit.evidence_docs is 300, and the method ctm"):
        validate(config)


def test_wrong_numbers_are_refused():
    counts = planted(5)[-1]
    with pytest.raises(ValueError, match="num_topics"):
        vi.topics.fit_ctm(jax.random.key(0), counts, num_topics=1)
    with pytest.raises(ValueError, match="eta has to be positive"):
        vi.topics.fit_ctm(jax.random.key(0), counts, num_topics=2, eta=0.0)
