"""Topic models of many documents: counts, the fast path against the conjugate engine in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array
from scipy.special import digamma, gammaln, polygamma

import vi_jax as vi
from vi_jax.conjugate import cavi, lda
from vi_jax.topics import blocks, defaults, local, memoized, priors, special

NUM_WORDS = 30
ETA = 0.3
ALPHA = np.array([0.2, 0.7, 1.1])


def corpus(num_docs=40, seed=0, num_words=NUM_WORDS):
    """Documents of 0 to some 40 distinct words, one of them empty."""
    rng = np.random.default_rng(seed)
    dense = rng.poisson(rng.gamma(0.3, 1.5, (num_docs, num_words)))
    dense[3] = 0
    return dense


def as_counts(dense, **settings):
    return vi.topics.from_scipy(csr_array(dense), **settings)


# Counts


@pytest.mark.parametrize("width", [None, 4, 16, 64])
def test_counts_hold_what_they_are_given(width):
    dense = corpus()
    counts = as_counts(dense, width=width)
    assert (counts.num_docs, counts.num_words, counts.num_tokens) == (40, NUM_WORDS, dense.sum())
    assert counts.num_cells == np.count_nonzero(dense)
    np.testing.assert_array_equal(counts.lengths, dense.sum(1))
    np.testing.assert_array_equal(counts.totals, dense.sum(0))
    (indptr, indices, data) = vi.topics.to_csr(counts)
    again = csr_array((data, indices, indptr), shape=dense.shape).toarray()
    np.testing.assert_array_equal(again, dense)
    some = vi.topics.take(counts, [5, 3, 0])
    np.testing.assert_array_equal(some.lengths, dense[[5, 3, 0]].sum(1))


def test_repeated_words_are_added_up_and_said():
    with pytest.warns(UserWarning, match="2 words were listed again"):
        counts = vi.topics.from_csr([0, 4, 5], [1, 0, 1, 1, 2], [1, 2, 3, 1, 1], num_words=3)
    np.testing.assert_array_equal(vi.topics.to_csr(counts)[2], [2, 5, 1])


@pytest.mark.parametrize(
    ("indptr", "indices", "data", "message"),
    [
        ([0, 1], [0], [-1], "negative"),
        ([0, 1], [0], [0.5], "whole numbers.*tf-idf"),
        ([0, 1], [0], [np.nan], "finite"),
        ([0, 1], [3], [1], "0 to 2"),
        ([0, 1, 3], [1, 2, 3], [1, 1, 1], "count from 1"),
        ([0, 1], [-1], [1], "0 to 2"),
        ([0, 2], [0], [1], "indptr has to rise"),
        ([0, 2, 1], [0], [1], "indptr has to rise"),
        ([0, 1], [0, 1], [1], "each word needs its count"),
        ([0], [], [], "there has to be a document"),
        ([0, 1], [[0]], [1], "one axis"),
    ],
)
def test_wrong_counts_are_refused(indptr, indices, data, message):
    with pytest.raises(ValueError, match=message):
        vi.topics.from_csr(indptr, indices, data, num_words=3)


def test_objects_are_refused():
    with pytest.raises(TypeError, match="objects"):
        vi.topics.from_csr([0, 1], [0], np.array([1], object), num_words=3)
    with pytest.raises(TypeError, match="sparse"):
        vi.topics.from_scipy(np.eye(3))


def test_a_coordinate_matrix_is_read():
    counts = vi.topics.from_scipy(coo_array(([2, 1], ([1, 0], [0, 2])), shape=(3, 3)))
    np.testing.assert_array_equal(counts.lengths, [1, 2, 0])


# Blocks


def test_blocks_hold_every_document_once():
    dense = corpus()
    counts = as_counts(dense, width=4)
    made = blocks.make_blocks(counts, num_topics=3, least=5)
    assert made.num_blocks == 5
    found = np.zeros((41, NUM_WORDS + 1))
    transposed = np.zeros((41, NUM_WORDS + 1))
    for block in zip(*made, strict=True):
        b = blocks.Blocks(*block)
        np.add.at(found, (b.docs[b.doc][:, None], b.words[b.ids]), b.counts)
        flat = np.append(b.counts.ravel(), 0)
        words = np.append(b.words, NUM_WORDS)[b.cell_word]
        np.add.at(transposed, (b.docs[b.cell_doc], words[:, None]), flat[b.cell])
    np.testing.assert_array_equal(found[:40, :NUM_WORDS], dense)
    np.testing.assert_array_equal(transposed[:40, :NUM_WORDS], dense)
    docs = np.sort(made.docs[made.docs < 40])
    np.testing.assert_array_equal(docs, np.arange(40))


# Special functions


@pytest.mark.integration
def test_special_functions(x64):
    x = np.concatenate([np.geomspace(1e-4, 1e6, 200), np.linspace(0.5, 12, 50)])
    np.testing.assert_allclose(special.psi(jnp.asarray(x)), digamma(x), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(special.trigamma(jnp.asarray(x)), polygamma(1, x), rtol=1e-7)
    np.testing.assert_allclose(special.log_gamma(jnp.asarray(x)), gammaln(x), rtol=1e-9, atol=1e-9)
    y = jnp.asarray(np.linspace(-500, 10, 60))
    np.testing.assert_allclose(special.psi(priors.inverse_psi(y)), y, rtol=1e-7, atol=1e-9)


# The fast path against the conjugate engine


def engine_rows(dense):
    ids = np.tile(np.arange(NUM_WORDS), (len(dense), 1))
    return {"ids": jnp.asarray(ids), "counts": jnp.asarray(dense, float)}


def start_of(rng, num_topics=3):
    return rng.gamma(1.0, 2.0, (NUM_WORDS, num_topics))


@pytest.fixture(scope="module")
def fitted():
    """A state of the fast path after sweeps to convergence, and what came before."""
    with jax.enable_x64(True):
        dense = corpus()
        made = jax.tree.map(
            jnp.asarray, blocks.make_blocks(as_counts(dense, width=4), num_topics=3, least=4)
        )
        state = memoized.init(
            made,
            jnp.asarray(ALPHA),
            jnp.full(NUM_WORDS, ETA),
            jnp.asarray(start_of(np.random.default_rng(1))),
        )
        num_docs = float(np.sum(dense.sum(1) > 0))

        @jax.jit
        def step(state):
            new = memoized.sweep(local.VB, made, state, num_iterations=200, tolerance=1e-13)
            return new, memoized.bound(local.VB, new, num_docs)[0]

        states = [state]
        elbos = []
        for _ in range(40):
            (state, elbo) = step(states[-1])
            states.append(state)
            elbos.append(float(elbo))
    return dense, states, elbos


@pytest.mark.integration
def test_the_elbo_never_falls(fitted):
    (_, _, elbos) = fitted
    assert np.all(np.diff(elbos) > -1e-9)
    assert elbos[-1] > elbos[0] + 1.0


@pytest.mark.integration
def test_a_sweep_is_one_of_the_engine(fitted, x64):
    """Topics that move after all documents: coordinate ascent, value and update."""
    (dense, states, _) = fitted
    made = jax.tree.map(
        jnp.asarray, blocks.make_blocks(as_counts(dense, width=4), num_topics=3, least=4)
    )
    model = lda.model(3, NUM_WORDS, alpha=tuple(ALPHA), eta=ETA, tolerance=1e-13)
    natural = {"topics": {"log": states[0].stats.T + ETA - 1.0}}
    rows = engine_rows(dense)
    exact = jax.jit(lambda state: cavi.step(model, rows, state))(cavi.init(natural))
    found = jax.jit(
        lambda state: memoized.sweep(
            local.VB, made, state, num_iterations=500, tolerance=1e-13, incremental=False
        )
    )(states[0])
    np.testing.assert_allclose(
        found.stats.T + ETA, np.asarray(exact.natural["topics"]["log"]) + 1.0, rtol=1e-6
    )
    num_docs = float(np.sum(dense.sum(1) > 0))
    elbo = memoized.bound(local.VB, found, num_docs)[0]
    np.testing.assert_allclose(elbo, exact.elbo, rtol=1e-9)


def test_the_memo_adds_up(fitted):
    (dense, states, _) = fitted
    stats = np.asarray(states[-1].stats)
    np.testing.assert_allclose(stats.sum(1), dense.sum(0), rtol=1e-10)
    memo = np.asarray(states[-1].memo)
    np.testing.assert_allclose(memo.sum((0, 1)), stats.sum(0), rtol=1e-10)


def test_learning_alpha_raises_its_part_of_the_elbo(x64):
    rng = np.random.default_rng(0)
    truth = np.array([0.3, 1.0, 2.5])
    log_shares = np.log(rng.dirichlet(truth, 20_000))
    found = priors.learn_alpha(
        jnp.ones(3), jnp.asarray(log_shares.sum(0)), jnp.asarray(20_000.0), num_iterations=400
    )
    np.testing.assert_allclose(found, truth, rtol=0.03)


def test_learning_eta_raises_the_elbo(x64):
    rng = np.random.default_rng(0)
    lam = jnp.asarray(rng.gamma(0.5, 3.0, (30, 4)) + 0.2)
    base = jnp.asarray(rng.uniform(0.5, 1.5, 30))

    def elbo(scale):
        eta = np.asarray(base) * scale
        mean = digamma(lam) - digamma(np.sum(lam, 0))
        return 4 * (gammaln(eta.sum()) - gammaln(eta).sum()) + np.sum(eta[:, None] * mean)

    found = priors.learn_eta(base, lam, num_iterations=30)
    scale = float(found[0] / base[0])
    np.testing.assert_allclose(found / base, scale, rtol=1e-10)
    assert elbo(scale) > max(elbo(scale * 1.01), elbo(scale * 0.99))


@pytest.mark.integration
def test_a_collapsed_step_of_eta_keeps_its_proportions():
    rng = np.random.default_rng(0)
    base = jnp.asarray(rng.uniform(0.5, 1.5, 30))
    found = priors.learn_eta_collapsed(base, jnp.asarray(rng.gamma(0.5, 3.0, (30, 4))))
    np.testing.assert_allclose(found / base, float(found[0] / base[0]), rtol=1e-5)


def test_collapsed_alpha_of_whole_counts_is_found(x64):
    rng = np.random.default_rng(0)
    truth = np.array([0.1, 0.4, 0.2])
    counts = np.stack([rng.multinomial(30, row) for row in rng.dirichlet(truth, 5_000)])
    alpha = jnp.ones(3)
    step = jax.jit(priors.learn_alpha_collapsed)
    for _ in range(200):
        alpha = step(alpha, jnp.asarray(counts, float), jnp.full(5_000, 30.0))
    np.testing.assert_allclose(alpha, truth, rtol=0.15)


# Evaluation


def test_completion_is_the_perplexity_typed_out():
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(NUM_WORDS, 0.3), 3)
    shares = rng.dirichlet(np.ones(3), 40)
    h1 = as_counts(corpus(seed=1))
    dense = corpus(seed=2)
    dense[7] = 0
    found = vi.topics.score(shares, topics, h1, as_counts(dense))
    nll = -(dense * np.log(shares @ topics)).sum(1)
    scored = (h1.lengths > 0) & (dense.sum(1) > 0)
    size = dense.sum(1)[scored]
    np.testing.assert_allclose(found.ppl_tok, np.exp(nll[scored].sum() / size.sum()))
    np.testing.assert_allclose(found.ppl_doc, np.exp((nll[scored] / size).mean()))
    assert (found.num_docs, found.skipped_docs) == (38, 2)
    assert found.num_tokens == size.sum()
    # bootstrap over documents
    chosen = rng.integers(len(size), size=(2000, len(size)))
    tokens = np.exp(nll[scored][chosen].sum(1) / size[chosen].sum(1))
    docs = np.exp((nll[scored] / size)[chosen].mean(1))
    np.testing.assert_allclose(found.ppl_tok_stderr, tokens.std(), rtol=0.15)
    np.testing.assert_allclose(found.ppl_doc_stderr, docs.std(), rtol=0.15)


def test_the_unigram_has_the_perplexity_of_its_entropy():
    dense = corpus()
    counts = as_counts(dense)
    unigram = dense.sum(0) / dense.sum()
    found = vi.topics.score(np.ones((40, 1)), unigram[None], counts, counts)
    used = unigram[unigram > 0]
    np.testing.assert_allclose(found.ppl_tok, np.exp(-np.sum(used * np.log(used))))


def test_what_is_no_distribution_is_not_scored():
    counts = as_counts(corpus())
    with pytest.raises(ValueError, match="sum to 1"):
        vi.topics.score(np.ones((40, 1)), np.full((1, NUM_WORDS), 0.01), counts, counts)
    with pytest.raises(ValueError, match="same documents"):
        vi.topics.score(np.ones((40, 1)), np.ones((1, 3)), counts, as_counts(corpus(20)))


def test_npmi_by_hand():
    dense = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]])
    topics = np.array([[0.5, 0.4, 0.1, 0.0], [0.05, 0.05, 0.0, 0.9]])
    found = vi.topics.npmi(topics, as_counts(dense), num_words=2)
    together = np.log(0.5 / (0.75 * 0.5)) / -np.log(0.5)
    np.testing.assert_allclose(found, [together, -1.0])
    assert vi.topics.diversity(topics, num_words=2) == 0.75


def test_topics_match_whatever_their_order():
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(NUM_WORDS, 0.2), 6)
    order = rng.permutation(6)
    found = vi.topics.match(topics, topics[order])
    np.testing.assert_array_equal(order[found.order], np.arange(6))
    np.testing.assert_allclose(found.distance, 0, atol=1e-7)
    assert vi.topics.twins(np.concatenate([topics, topics[2:3]])) == [(2, 6)]


def test_check_finds_what_is_there():
    dense = corpus()
    dense[9] = dense[8]
    dense[:, 4] = 0
    dense[20, 5] = 300
    vocab = [f"w{i}" for i in range(NUM_WORDS)]
    vocab[11] = "caf\u00c3\u00a9"
    vocab[12] = "w1"
    found = vi.topics.check(as_counts(dense), vocab, num_topics=20)
    kinds = {each.kind: each for each in found.findings}
    assert {"empty", "duplicates", "boilerplate", "unused", "debris"} <= set(kinds)
    assert {"repeated_words", "num_topics"} <= set(kinds)
    assert kinds["duplicates"].where.tolist() == [9]
    assert "'w5' 300 times" in kinds["boilerplate"].sentence
    with pytest.raises(ValueError, match="vocabulary has 2"):
        vi.topics.check(as_counts(dense), ["a", "b"])
    assert str(vi.topics.check(as_counts(np.eye(3, dtype=int)))) == "nothing to look at"


# Fits


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_topics": 0}, "num_topics"),
        ({"num_topics": 41}, "more topics than documents"),
        ({"method": "gibbs"}, "partly, memoized, svi, cvb0, cavi"),
        ({"alpha": -1.0}, "alpha has to be positive"),
        ({"alpha": "auto"}, 'alpha has to be "learn"'),
        ({"alpha": [0.1, 0.2]}, "one number or 3"),
        ({"schedule": vi.topics.Schedule(kappa=0.4)}, "kappa"),
        ({"eta": 0.0}, "eta has to be positive"),
        ({"eta": [0.1, 0.2]}, "one number or 30"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        vi.topics.fit_lda(jax.random.key(0), as_counts(corpus()), **{"num_topics": 3, **settings})


def planted(num_docs=200):
    rng = np.random.default_rng(0)
    topics = np.kron(np.eye(4), np.full(5, 0.2))
    shares = rng.dirichlet(np.full(4, 0.2), num_docs)
    return topics, shares, np.stack([rng.multinomial(40, row @ topics) for row in shares])


@pytest.mark.cases(rest=None, slow=["partly"])
@pytest.mark.integration
@pytest.mark.parametrize("method", ["partly", "memoized", "cvb0", "cavi"])
def test_planted_topics_are_found(method):
    (topics, shares, dense) = planted()
    counts = as_counts(dense)
    seen = []
    fit = vi.topics.fit_lda(
        jax.random.key(1),
        counts,
        num_topics=4,
        method=method,
        eta=0.2,
        num_starts=2,
        valid=(counts, counts),
        callback=seen.append,
    )
    found = vi.topics.match(topics, fit.topics_mean)
    assert found.distance.max() < 0.15
    assert np.abs(fit.shares(counts)[:, found.order] - shares).mean() < 0.06
    assert fit.starts.shape == (2,)
    assert len(seen) == len(fit.history)
    assert fit.unused == fit.twins == []
    assert "4 topics of 20 words" in str(fit)
    assert repr(fit) == str(fit)
    assert len(fit.top_words(num_words=5)) == 4
    if method != "cvb0":
        assert np.all(np.diff(fit.history[16:]) > -1e-4)
        assert np.isfinite(fit.elbo)


@pytest.mark.cases(rest=None, slow=["schedule1"])
@pytest.mark.integration
@pytest.mark.parametrize("schedule", [{}, {"alternations": 2, "average_from": 20}])
def test_stochastic_steps_find_planted_topics(schedule):
    (topics, _, dense) = planted(1_000)
    fit = vi.topics.fit_lda(
        jax.random.key(0),
        as_counts(dense),
        num_topics=4,
        method="svi",
        num_starts=1,
        eta=0.2,
        batch_size=100,
        schedule=vi.topics.Schedule(tau0=4.0, **schedule),
    )
    assert vi.topics.match(topics, fit.topics_mean).distance.max() < 0.15
    assert fit.history[-1] > fit.history[0]


@pytest.mark.integration
def test_a_stream_finds_planted_topics_and_resumes_to_the_bit():
    (topics, _, dense) = planted(2_400)
    parts = [as_counts(dense[begin : begin + 30]) for begin in range(0, 2_400, 30)]
    seen = []

    def fit(**more):
        return vi.topics.fit_stream(
            jax.random.key(0),
            parts.__getitem__,
            num_steps=80,
            num_topics=4,
            num_docs=2_400,
            eta=0.2,
            schedule=vi.topics.Schedule(tau0=2.0, average_from=60),
            **more,
        )

    whole = fit(callback=seen.append)
    assert vi.topics.match(topics, whole.topics_mean).distance.max() < 0.2
    assert len(seen) == len(whole.history) == 80
    assert np.mean(whole.history[-5:]) > whole.history[0]
    resumed = fit(resume=seen[70].state)
    np.testing.assert_array_equal(whole.topics, resumed.topics)
    np.testing.assert_array_equal(whole.alpha, resumed.alpha)


@pytest.mark.cases(rest=None, slow=["memoized", "cvb0"])
@pytest.mark.integration
@pytest.mark.parametrize("method", ["partly", "memoized", "cvb0", "svi"])
def test_a_fit_that_is_resumed_has_the_same_numbers(method):
    (_, _, dense) = planted(300)
    counts = as_counts(dense)
    settings = {
        "num_topics": 4,
        "method": method,
        "batch_size": 100,
        "tolerance": 0.0,
        "num_starts": 1,
    }

    def fit(num_sweeps, **more):
        key = jax.random.key(2)
        return vi.topics.fit_lda(key, counts, num_sweeps=num_sweeps, **settings, **more)

    whole = fit(9)
    seen = []
    fit(4, callback=seen.append)
    resumed = fit(9, resume=seen[-1].state)
    np.testing.assert_array_equal(whole.topics, resumed.topics)
    np.testing.assert_array_equal(whole.alpha, resumed.alpha)


@pytest.mark.integration
@pytest.mark.parametrize("method", ["partly", "svi"])
def test_a_resumed_fit_ends_by_its_tolerance_at_the_same_sweep(method):
    (_, _, dense) = planted(300)
    settings = {"num_topics": 4, "method": method, "num_starts": 2, "batch_size": 100}
    settings.update(tolerance=0.02, num_warm=0, num_sweeps=60)

    def fit(**more):
        return vi.topics.fit_lda(jax.random.key(2), as_counts(dense), **settings, **more)

    seen = []
    whole = fit(callback=seen.append)
    assert whole.converged
    assert len(whole.history) < 60
    for before_the_end in (1, 0):
        state = seen[-1 - before_the_end].state
        resumed = fit(resume=state)
        assert resumed.converged
        np.testing.assert_array_equal(whole.topics, resumed.topics)
        np.testing.assert_allclose(whole.elbo, resumed.elbo, rtol=1e-12)


def test_a_prior_of_our_own_does_not_outweigh_the_words_of_a_document():
    counts = as_counts(np.tile([2, 1, 1, 0], (40, 1)))
    (alpha, learns, _, warm, *_) = defaults.priors_of(counts, 16, "partly", "learn", None)
    assert learns
    np.testing.assert_allclose([alpha.sum(), warm.sum()], 4.0)
    (alpha, _, _, warm, *_) = defaults.priors_of(counts, 4, "partly", "learn", None)
    np.testing.assert_allclose([alpha, warm], 0.5)
    (alpha, learns, _, warm, *_) = defaults.priors_of(counts, 16, "partly", 0.7, None)
    assert not learns
    np.testing.assert_allclose([alpha, warm], 0.7)


@pytest.mark.integration
def test_topics_of_short_documents_stay_apart():
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(200, 0.05), 10)
    topics = 0.6 * topics + 0.4 * rng.dirichlet(np.full(200, 1.0))
    dense = np.stack([rng.multinomial(5, topics[doc % 10]) for doc in range(600)])
    fit = vi.topics.fit_lda(
        jax.random.key(0), as_counts(dense), num_topics=30, num_starts=1, num_sweeps=40
    )
    assert not fit.twins  # 435 pairs, and a sum of alpha of 181, where alpha began at 0.5
    assert np.sum(fit.alpha) < 5


@pytest.mark.integration
def test_wide_first_sweeps_find_better_optima_under_small_priors():
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(100, 0.05), 8)
    shares = rng.dirichlet(np.full(8, 0.3), 150)
    counts = as_counts(np.stack([rng.multinomial(60, row @ topics) for row in shares]))

    def elbo(num_warm):
        return vi.topics.fit_lda(
            jax.random.key(0),
            counts,
            num_topics=8,
            method="memoized",
            alpha=0.1,
            eta=0.02,
            num_warm=num_warm,
            num_starts=4,
        ).starts.mean()

    assert elbo(15) > elbo(0) + 0.02


@pytest.mark.integration
def test_small_priors_do_not_underflow():
    (_, _, dense) = planted(100)
    fit = vi.topics.fit_lda(
        jax.random.key(3),
        as_counts(dense),
        num_topics=4,
        method="memoized",
        eta=0.001,
        num_sweeps=20,
    )
    assert np.isfinite(fit.elbo)
    assert np.min(fit.alpha) >= 0.0149
    with pytest.raises(ValueError, match="at least 0"):
        vi.topics.fit_lda(
            jax.random.key(3),
            as_counts(dense),
            num_topics=4,
            method="memoized",
            eta=0.001,
            alpha=0.001,
        )
