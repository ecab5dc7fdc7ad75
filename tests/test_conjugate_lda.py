"""Latent Dirichlet allocation by coordinate ascent: enumeration, the paper's updates, laws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln, logsumexp, psi

from vi_jax.conjugate import cavi, engine, factors, lda

TINY = {"ids": [[0, 1, 0], [1, 2, 3], [3, 0, 0]], "counts": [[2, 1, 0], [1, 1, 1], [1, 0, 0]]}
ALPHA = (0.3, 0.8)
ETA = 0.4


def data(x=TINY):
    return {"ids": jnp.asarray(x["ids"], jnp.int32), "counts": jnp.asarray(x["counts"], float)}


def polya(counts, alpha):
    """log of the chance of one sequence of these counts under a Dirichlet-multinomial."""
    alpha = np.broadcast_to(np.asarray(alpha, float), np.shape(counts))
    total = gammaln(alpha.sum()) - gammaln(alpha.sum() + np.sum(counts))
    return total + np.sum(gammaln(alpha + counts) - gammaln(alpha))


def evidence(x, alpha, eta, num_words):
    """log p(words) by all assignments of tokens to topics."""
    tokens = [
        (d, w)
        for d, (ids, counts) in enumerate(zip(x["ids"], x["counts"], strict=True))
        for w, n in zip(ids, counts, strict=True)
        for _ in range(n)
    ]
    terms = []
    for z in itertools.product(range(len(alpha)), repeat=len(tokens)):
        by_doc = np.zeros((len(x["ids"]), len(alpha)))
        by_topic = np.zeros((len(alpha), num_words))
        for (d, w), k in zip(tokens, z, strict=True):
            by_doc[d, k] += 1
            by_topic[k, w] += 1
        terms.append(
            sum(polya(row, alpha) for row in by_doc) + sum(polya(row, eta) for row in by_topic)
        )
    return logsumexp(terms)


def tiny_model(**settings):
    return lda.model(2, 5, alpha=ALPHA, eta=ETA, **settings)


@pytest.mark.integration
def test_the_elbo_is_below_the_evidence_and_rises(x64):
    exact = evidence(TINY, ALPHA, ETA, 5)
    model = tiny_model()
    start = jax.tree.map(lambda leaf: leaf[0], lda.init(jax.random.key(0), model))
    state = cavi.init(start)
    step = jax.jit(lambda state: cavi.step(model, data(), state))
    elbos = []
    for _ in range(20):
        state = step(state)
        elbos.append(float(state.elbo))
    assert np.all(np.diff(elbos) >= -1e-9)
    assert elbos[-1] > elbos[0] + 0.1
    assert float(engine.elbo(model, state.natural, data())) <= exact
    assert exact - elbos[-1] < 3.0  # a bound, and not a loose one


@pytest.mark.integration
def test_with_one_topic_the_elbo_is_the_evidence(x64):
    model = lda.model(1, 5, alpha=0.7, eta=ETA)
    fit = cavi.fit(model, data(), lda.init(jax.random.key(1), model), num_sweeps=5)
    np.testing.assert_allclose(fit.elbo, evidence(TINY, (0.7,), ETA, 5), rtol=1e-10)
    np.testing.assert_allclose(
        factors.as_dirichlet(fit.natural["topics"]).concentration[0],
        ETA + np.bincount([0, 0, 1, 1, 2, 3, 3], minlength=5),
        rtol=1e-10,
    )


@pytest.mark.integration
def test_an_update_is_that_of_blei_et_al(x64):
    """Fig. 6 and eq. 9 of Blei et al. (2003), typed as they stand."""
    model = tiny_model(tolerance=1e-12, num_iterations=2000)
    start = jax.tree.map(lambda leaf: leaf[0], lda.init(jax.random.key(2), model))
    lam = np.asarray(start["topics"]["log"]) + 1
    log_beta = psi(lam) - psi(lam.sum(1, keepdims=True))
    new = np.full_like(lam, ETA)
    for ids, counts in zip(TINY["ids"], TINY["counts"], strict=True):
        gamma = np.array(ALPHA) + sum(counts) / 2
        for _ in range(2000):
            phi = np.exp(psi(gamma)[:, None] + log_beta[:, ids])
            phi /= phi.sum(0)
            gamma = np.array(ALPHA) + phi @ np.array(counts)
        np.add.at(new.T, ids, (phi * np.array(counts)).T)
    found = engine.optimum(model, start, data())["topics"]["log"] + 1
    np.testing.assert_allclose(found, new, rtol=1e-8)


def test_documents_without_words_change_nothing(x64):
    model = tiny_model()
    start = jax.tree.map(lambda leaf: leaf[0], lda.init(jax.random.key(3), model))
    more = {"ids": [*TINY["ids"], [4, 4, 4]], "counts": [*TINY["counts"], [0, 0, 0]]}
    elbo = jax.jit(lambda x: engine.elbo(model, start, x))
    np.testing.assert_allclose(elbo(data(more)), elbo(data()), rtol=1e-12)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="num_topics"):
        lda.model(0, 5)
    with pytest.raises(ValueError, match="num_words"):
        lda.model(2, 0)


@pytest.mark.integration
def test_topics_are_found():
    rng = np.random.default_rng(0)
    topics = np.kron(np.eye(3), np.full(4, 0.25))
    shares = rng.dirichlet([0.2] * 3, 150)
    counts = np.stack([rng.multinomial(40, row @ topics) for row in shares])
    x = {"ids": jnp.tile(jnp.arange(12), (150, 1)), "counts": jnp.asarray(counts, float)}
    fit = lda.fit(jax.random.key(0), x, num_topics=3, num_words=12, num_starts=4, num_sweeps=100)
    assert fit.converged
    found = np.asarray(factors.as_dirichlet(fit.natural["topics"]).mean)
    order = np.argsort(found.argmax(1))
    np.testing.assert_allclose(found[order], topics, atol=0.05)
