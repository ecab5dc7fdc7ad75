"""Neural topic models: what is decoded, typed out, and planted topics found."""

from functools import partial

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import optax
import pytest
from helpers import normal
from scipy.sparse import csr_array
from scipy.special import log_softmax, softmax

import vi_jax as vi
from vi_jax.conjugate import lda

V = 7
K = 3
X = {"ids": jnp.array([4, 1, 0, 0]), "counts": jnp.array([2.0, 1.0, 3.0, 0.0])}
Z = np.array([0.3, -1.0, 2.0])
BACKGROUND = np.arange(1.0, V + 1)


def decoded(model, params):
    return np.asarray(model.densities.decode(params, X, jnp.asarray(Z)).log_probs)


def made(factory, **settings):
    model = factory(num_words=V, num_latents=K, hidden=4, background=BACKGROUND, **settings)
    return model, model.init(jax.random.key(0))


@pytest.mark.integration
def test_prodlda_is_a_product_of_topics():
    (model, params) = made(vi.models.documents.prodlda, alpha=0.5)
    topics = np.asarray(params["decoder"]["topics"])
    log_m = np.log(BACKGROUND / BACKGROUND.sum())
    np.testing.assert_allclose(
        decoded(model, params), log_softmax(softmax(Z) @ topics + log_m), rtol=1e-5
    )
    # Srivastava & Sutton (2017), eq. 4, typed as it stands
    a = np.full(K, 0.5)
    mean = np.log(a) - np.log(a).mean()
    variance = (1 / a) * (1 - 2 / K) + (1 / a).sum() / K**2
    prior = model.densities.prior(params, X)
    np.testing.assert_allclose(prior.mean, mean, atol=1e-6)
    np.testing.assert_allclose(prior.variance, variance, rtol=1e-5)


@pytest.mark.parametrize("shares", [False, True])
def test_nvdm_is_a_softmax_of_latents(shares):
    (model, params) = made(vi.models.documents.nvdm, shares=shares)
    decoder = jax.tree.map(np.asarray, params["decoder"])
    weights = softmax(Z @ decoder["mix"]) if shares else Z
    logits = weights @ decoder["topics"] + np.log(BACKGROUND / BACKGROUND.sum())
    np.testing.assert_allclose(decoded(model, params), log_softmax(logits), rtol=1e-5)


@pytest.mark.cases(rest=None, integration=["False"])
@pytest.mark.parametrize("is_fixed", [False, True])
def test_etm_is_a_mixture_of_softmax_topics(is_fixed):
    rho = normal(3, V, 5)
    settings = {"embeddings": rho} if is_fixed else {"embedding_size": 5}
    (model, params) = made(vi.models.documents.etm, **settings)
    decoder = jax.tree.map(np.asarray, params["decoder"])
    assert ("words" in decoder) != is_fixed
    words = rho if is_fixed else decoder["words"]
    beta = softmax(decoder["topics"] @ words.T + np.log(BACKGROUND / BACKGROUND.sum()), axis=1)
    np.testing.assert_allclose(np.exp(decoded(model, params)), softmax(Z) @ beta, rtol=1e-4)
    found = vi.models.documents.topics(model, params, K)
    np.testing.assert_allclose(found, beta, rtol=1e-4)


def amortised(num_iterations):
    settings = {"num_iterations": num_iterations, "alpha": 0.4}
    return made(vi.models.documents.amortised_lda, **settings)


@pytest.mark.integration
def test_the_bound_at_the_end_of_the_fixed_point_is_that_of_lda(x64):
    """Terms at many iterations are those of the conjugate engine at the same topics."""
    (model, params) = amortised(300)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    decoder = params["decoder"]
    beta = jax.nn.softmax(decoder["topics"] + decoder["background"])
    alpha = tuple(np.exp(np.asarray(decoder["log_alpha"])) + 1e-3)
    means = {"topics": {"log": jnp.log(beta)}}
    exact = lda.model(K, V, alpha=alpha, tolerance=1e-12).log_lik(means, X)
    terms = jax.jit(model.terms)(jax.random.key(0), params, X)
    np.testing.assert_allclose(terms.log_lik - terms.kl["z"], exact, rtol=1e-8)


@pytest.mark.integration
def test_the_amortisation_gap_closes_with_iterations():
    (_, params) = amortised(2)
    rows = jax.tree.map(lambda leaf: leaf[None], X)

    def gap(num_iterations):
        settings = {"num_latents": K, "num_iterations": num_iterations}
        return float(vi.models.documents.amortisation_gap(params, rows, **settings)[0])

    assert gap(0) > gap(2) > gap(20) > -1e-5
    assert gap(0) > 1e-2


@pytest.mark.integration
def test_scholar_without_effects_is_prodlda_exactly():
    """With the same key the first parameters are the same, and the effects begin at 0."""
    (plain, params) = made(vi.models.documents.prodlda, alpha=0.5)
    (model, own) = made(partial(vi.models.documents.scholar, num_covariates=2), alpha=0.5)
    rest = {name: leaf for name, leaf in own.items() if name != "covariates"}
    rest["decoder"] = {k: v for k, v in own["decoder"].items() if k != "deviations"}
    jax.tree.map(np.testing.assert_array_equal, rest, params)
    x = {**X, "covariates": jnp.array([1.0, -0.3])}
    key = jax.random.key(1)
    found = jax.jit(model.terms)(key, own, x)
    expected = jax.jit(plain.terms)(jax.random.clone(key), params, X)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, expected)
    topics = vi.models.documents.topics
    np.testing.assert_array_equal(topics(model, own, K), topics(plain, params, K))


def scholar_with_effects():
    (model, params) = made(partial(vi.models.documents.scholar, num_covariates=2))
    params["decoder"]["deviations"] = jnp.asarray(normal(5, 2, V))
    params["covariates"] = jnp.asarray(normal(6, 2, 4))
    return model, params, {**X, "covariates": jnp.array([1.0, -0.3])}


@pytest.mark.integration
def test_scholar_moves_the_log_frequencies_by_its_covariates():
    (model, params, x) = scholar_with_effects()
    decoder = jax.tree.map(np.asarray, params["decoder"])
    moved = np.array([1.0, -0.3]) @ decoder["deviations"] + decoder["background"]
    p = model.densities.decode(params, x, jnp.asarray(Z))
    expected = log_softmax(softmax(Z) @ decoder["topics"] + moved)
    np.testing.assert_allclose(p.log_probs, expected, rtol=1e-4, atol=1e-5)
    drawn = p.sample(jax.random.key(0), (3,))
    assert drawn["covariates"].shape == (3, 2)


@pytest.mark.integration
def test_the_gradient_of_scholar_is_that_of_differences(x64):
    (model, params, x) = scholar_with_effects()
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)

    @jax.jit
    def value(effects):
        own = {**params, "covariates": effects["encoder"]}
        own["decoder"] = {**params["decoder"], "deviations": effects["words"]}
        terms = model.terms(jax.random.key(0), own, x)
        return terms.log_lik - sum(jnp.sum(leaf) for leaf in jax.tree.leaves(terms.kl))

    effects = {"encoder": params["covariates"], "words": params["decoder"]["deviations"]}
    jax.test_util.check_grads(value, (effects,), 1, ("rev",), atol=1e-5, rtol=1e-5)


@pytest.mark.integration
def test_a_covariate_that_moves_words_is_found():
    """Half of the documents have words 0 to 4 of twenty e times as often, whatever their topics;
    log odds of words are known up to a constant.
    """
    rng = np.random.default_rng(0)
    topics = np.kron(np.eye(4), np.full(5, 0.2)) + 0.05
    effect = np.where(np.arange(20) < 5, 1.0, 0.0)
    covariate = np.arange(400) % 2
    chances = rng.dirichlet([0.2] * 4, 400) @ topics * np.exp(covariate[:, None] * effect)
    dense = np.stack([rng.multinomial(40, row / row.sum()) for row in chances])
    rows = vi.topics.as_rows(vi.topics.from_scipy(csr_array(dense)))
    rows = {**rows, "covariates": covariate[:, None].astype(np.float32)}
    model = vi.models.documents.scholar(
        20, 1, num_latents=4, hidden=32, alpha=0.2, background=dense.sum(0)
    )
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 600))
    step = vi.make_step(vi.losses.negative_elbo(model), optimizer)
    state = vi.init_state(jax.random.key(0), model.init, optimizer)
    (state, _) = vi.make_run(step, batch_size=100)(state, jax.tree.map(jnp.asarray, rows), 600)
    found = np.asarray(state.params["decoder"]["deviations"][0])
    contrast = found[:5].mean() - found[5:].mean()
    np.testing.assert_allclose(contrast, 1.0, atol=0.25)
    assert np.corrcoef(found, effect)[0, 1] > 0.9


@pytest.mark.integration
def test_a_document_has_as_many_words_as_it_had():
    probs = np.array([0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0])
    bag = vi.models.documents.Bag(jnp.log(probs + 1e-30), X["ids"], X["counts"])
    drawn = bag.sample(jax.random.key(1), (4_000,))
    np.testing.assert_array_equal(drawn["counts"].sum(1), 6.0)
    total = np.zeros(V)
    np.add.at(total, np.asarray(drawn["ids"]), np.asarray(drawn["counts"]))
    np.testing.assert_allclose(total / total.sum(), probs, atol=0.02)
    np.testing.assert_allclose(bag.mean, 6 * probs, atol=1e-6)
    expected = 2 * np.log(1e-30) + np.log(0.2) + 3 * np.log(0.1)
    np.testing.assert_allclose(bag.log_prob(X), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"background": np.ones(3)}, "background needs a frequency for each of 7 words"),
        ({"num_latents": 0}, "num_latents"),
        ({"alpha": 0.0}, "alpha has to be positive"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        vi.models.documents.prodlda(V, **settings)
    with pytest.raises(ValueError, match="row for each of 7 words"):
        vi.models.documents.etm(V, embeddings=np.ones((3, 2)))


def planted():
    """Four topics of five words each, and 400 documents of 40."""
    rng = np.random.default_rng(0)
    topics = np.kron(np.eye(4), np.full(5, 0.2))
    dense = np.stack([rng.multinomial(40, row @ topics) for row in rng.dirichlet([0.2] * 4, 400)])
    rows = vi.topics.as_rows(vi.topics.from_scipy(csr_array(dense)))
    return topics, jax.tree.map(jnp.asarray, rows)


def trained(name, rows, num_steps):
    model = getattr(vi.models.documents, name)(20, num_latents=4, hidden=32)
    optimizer = optax.adam(0.02)
    step = vi.make_step(vi.losses.negative_elbo(model), optimizer)
    state = vi.init_state(jax.random.key(0), model.init, optimizer)
    (state, _) = vi.make_run(step, batch_size=100)(state, rows, num_steps)
    return model, state


@pytest.mark.integration
def test_the_amortised_bound_is_near_its_end_when_trained():
    (_, rows) = planted()
    (model, state) = trained("amortised_lda", rows, 300)
    terms = jax.vmap(model.terms, (None, None, 0))(jax.random.key(0), state.params, rows)
    by_token = float(jnp.mean(terms.log_lik - terms.kl["z"])) / 40
    assert by_token > -np.log(20) + 0.2  # above what even frequencies have
    gap = vi.models.documents.amortisation_gap(state.params, rows, num_latents=4)
    assert 0 <= float(jnp.mean(gap)) / 40 < 0.05


@pytest.mark.integration
@pytest.mark.parametrize("name", ["prodlda", "etm"])
def test_planted_topics_are_found(name):
    (topics, rows) = planted()
    (model, state) = trained(name, rows, 600)
    found = vi.models.documents.topics(model, state.params, 4)
    distance = vi.topics.match(topics, found).distance
    # shares that are softmax(N(0, 1)) cannot be as uneven as these: ETM's topics overlap
    assert np.median(distance) < 0.3
