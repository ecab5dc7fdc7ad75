"""Topic models of many documents from sparse counts.

    counts = vi.topics.from_csr(indptr, indices, data, num_words=V)  # or from_scipy(matrix)
    fit = vi.topics.fit_lda(jax.random.key(0), counts, num_topics=50)
    print(fit)  # the bound, topics used, twins, seconds
    fit.top_words(vocab, 10)
    fit.shares(counts)  # [N, K]
    vi.topics.completion(fit, h1, h2)  # perplexity of the second halves of documents

A bound is called `elbo`; what is called perplexity is one, of words that were held out.
"""

from vi_jax.topics.assignments import anneal, bracket, exact
from vi_jax.topics.coherence import (
    Match,
    c_v,
    diversity,
    hellinger,
    match,
    npmi,
    top_words,
    twins,
)
from vi_jax.topics.corpus import Check, Finding, check
from vi_jax.topics.counts import Counts, as_rows, from_csr, from_scipy, take, to_csr
from vi_jax.topics.ctm import CTM, CTMState, fit_ctm
from vi_jax.topics.defaults import METHODS
from vi_jax.topics.evaluate import Completion, completion, of_nll, score
from vi_jax.topics.evidence import Evidence, dirichlets, evidence
from vi_jax.topics.exports import to_arviz, to_gensim, to_sklearn
from vi_jax.topics.hdp import fit_hdp
from vi_jax.topics.lda import Progress, fit_lda
from vi_jax.topics.result import LDA, USED_TOKENS
from vi_jax.topics.simulate import Calibration, Simulated, calibration, simulate
from vi_jax.topics.stream import StreamProgress, fit_stream
from vi_jax.topics.svi import Schedule, svi_step

__all__ = [
    "CTM",
    "LDA",
    "METHODS",
    "USED_TOKENS",
    "CTMState",
    "Calibration",
    "Check",
    "Completion",
    "Counts",
    "Evidence",
    "Finding",
    "Match",
    "Progress",
    "Schedule",
    "Simulated",
    "StreamProgress",
    "anneal",
    "as_rows",
    "bracket",
    "c_v",
    "calibration",
    "check",
    "completion",
    "dirichlets",
    "diversity",
    "evidence",
    "exact",
    "fit_ctm",
    "fit_hdp",
    "fit_lda",
    "fit_stream",
    "from_csr",
    "from_scipy",
    "hellinger",
    "match",
    "npmi",
    "of_nll",
    "score",
    "simulate",
    "svi_step",
    "take",
    "to_arviz",
    "to_csr",
    "to_gensim",
    "to_sklearn",
    "top_words",
    "twins",
]
