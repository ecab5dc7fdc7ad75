"""Fitted topics as scikit-learn, ArviZ and gensim hold them."""

import sys

import jax
import numpy as np
import pytest
from scipy.sparse import csr_array
from test_topics_evidence import documents, model

import vi_jax as vi


def counts_of(dense):
    return vi.topics.from_scipy(csr_array(dense))


def test_scikit_learn_finds_the_shares_of_variational_bayes():
    fit = model(np.full(3, 0.5, np.float32))
    dense = documents(20, 30)
    exported = vi.topics.to_sklearn(fit)
    exported.set_params(max_doc_update_iter=500, mean_change_tol=1e-6)
    theta = exported.transform(dense)
    assert theta.shape == (20, 3)
    np.testing.assert_allclose(theta.sum(1), 1.0, rtol=1e-6)
    # scikit-learn's topics are at exp(E[log beta]), ours at their means: near, not equal
    assert np.abs(theta - fit.shares(counts_of(dense))).mean() < 0.1


@pytest.mark.integration
def test_arviz_has_the_moments_of_the_dirichlets():
    arviz = pytest.importorskip("arviz")
    fit = model()
    counts = counts_of(documents(6))
    settings = {"num_samples": 4_000, "num_words": 3}
    found = vi.topics.to_arviz(jax.random.key(0), fit, counts, **settings)
    del arviz
    theta = np.asarray(found.posterior["theta"])[0]
    beta = np.asarray(found.posterior["beta"])[0]
    gamma = vi.topics.dirichlets(fit, counts)
    np.testing.assert_allclose(theta.mean(0), gamma / gamma.sum(1, keepdims=True), atol=0.03)
    words = vi.topics.top_words(fit.topics_mean, 3)
    means = np.take_along_axis(np.asarray(fit.topics_mean), words, 1)
    np.testing.assert_allclose(beta.mean(0), means, atol=0.02)
    total = np.asarray(fit.topics).sum(1, keepdims=True)
    variance = means * (1 - means) / (total + 1)
    np.testing.assert_allclose(beta.var(0), variance, rtol=0.2)


def test_gensim_is_asked_for_by_name(monkeypatch):
    fit = model()
    with pytest.raises(ValueError, match="vocabulary has 2 words"):
        vi.topics.to_gensim(fit, ["a", "b"])
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(ImportError, match="pip install gensim"):
        vi.topics.to_gensim(fit, [f"w{i}" for i in range(8)])


def test_gensim_has_the_same_topics():
    pytest.importorskip("gensim")
    fit = model()
    exported = vi.topics.to_gensim(fit, [f"w{i}" for i in range(8)])
    np.testing.assert_allclose(exported.get_topics(), fit.topics_mean, rtol=1e-5)
    np.testing.assert_allclose(exported.alpha, fit.alpha)
    (gamma, _) = exported.inference([[(0, 3.0), (4, 2.0)]])
    np.testing.assert_allclose(gamma.sum(), float(np.sum(fit.alpha)) + 5.0, rtol=1e-3)
