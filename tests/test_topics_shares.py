"""Shares of documents given topics: the collapsed fixed point to its end, in float64 by NumPy."""

import numpy as np
from scipy.sparse import csr_array

import vi_jax as vi
from vi_jax.topics.result import shares_of

ALPHA = np.array([0.2, 0.7, 1.1])


def some_documents():
    """30 documents of 20 words, one of them empty, and three topics that overlap."""
    rng = np.random.default_rng(0)
    dense = rng.poisson(1.0, (30, 20))
    dense[3] = 0
    return dense, rng.dirichlet(np.full(20, 0.4), 3)


def fixed_point(row, topics):
    """gamma_k = alpha_k + sum_w n_w gamma_k beta_kw / sum_j gamma_j beta_jw (Asuncion et al. 2009),
    iterated until nothing moves, normalised.
    """
    gamma = ALPHA + row.sum() / len(ALPHA)
    for _ in range(5000):
        chances = gamma[:, None] * topics
        gamma = ALPHA + (chances / chances.sum(0)) @ row
    return gamma / gamma.sum()


def test_shares_are_the_end_of_the_collapsed_fixed_point():
    (dense, topics) = some_documents()
    found = shares_of(vi.topics.from_scipy(csr_array(dense)), topics, ALPHA)
    reference = np.stack([fixed_point(row, topics) for row in dense])
    np.testing.assert_allclose(found, reference, atol=2e-3)
    np.testing.assert_allclose(found[3], ALPHA / ALPHA.sum(), rtol=1e-5)  # of an empty one, alpha's
