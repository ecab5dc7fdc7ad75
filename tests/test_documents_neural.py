"""Neural topic models of experiments.documents: what a config may say, and what is measured."""

import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from experiments import cli, config_file
from experiments.overrides import Override
from experiments.topics import neural_config, neural_evals

MODULE = importlib.import_module("configs.topics.neural")
V = 6
FIRST = {"ids": jnp.array([4, 1]), "counts": jnp.array([2.0, 1.0])}
SECOND = {"ids": jnp.array([0, 3, 0]), "counts": jnp.array([1.0, 2.0, 0.0])}


def config_of(variant="prodlda", **fields):
    given = [Override(name.replace("__", "."), str(value)) for name, value in fields.items()]
    return config_file.set_fields(MODULE.get_config(variant), given)


@pytest.mark.parametrize("variant", MODULE.VARIANTS)
def test_every_variant_is_valid_and_said(variant):
    config = config_of(variant)
    neural_config.validate(config)
    assert config.name == f"neural-{variant}"
    assert re.search(rf"\b{variant}\b", MODULE.__doc__)
    training = neural_config.as_training(config)
    assert training.train.num_steps == config.train.num_steps
    assert training.train.log_every == config.train.log_every


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__num_latents": "'ten'"}, "num_latents"),
        ({"data__held_out": 0.95}, r"config.data.held_out is 0.95"),
        ({"data__name": "tweets"}, "config.data.name is 'tweets'"),
        ({"train__batch_size": 0}, "config.train.batch_size is 0"),
        ({"train__eval_every": 150}, "multiple of config.train.log_every"),
        ({"eval__refined_docs": -1}, "config.eval.refined_docs is -1"),
        ({"seed": -1}, "config.seed is -1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(fields, message):
    with pytest.raises(cli.UserError, match=message):
        neural_config.validate(config_of(**fields))


def test_a_model_of_images_is_no_model_of_documents():
    with pytest.raises(cli.UserError, match=r"can be amortised_lda, etm, nvdm, prodlda"):
        neural_config.validate(config_of(model__name="vae"))


def test_latents_without_shares_are_refused():
    with pytest.raises(cli.UserError, match="nvdm without shares"):
        neural_config.validate(config_of("gsm", model__shares=False))


def test_a_field_that_no_one_reads_is_refused():
    config = config_of()
    with config.unlocked():
        config.train.num_sweeps = 3
    with pytest.raises(cli.UserError, match=r"num_sweeps that no one reads"):
        neural_config.validate(config)


@pytest.mark.integration
def test_words_are_predicted_by_the_mean_of_their_probabilities():
    model = vi.models.documents.etm(V, num_latents=3, hidden=4, embedding_size=2)
    params = jax.jit(model.init)(jax.random.key(0))
    beta = np.asarray(vi.models.documents.topics(model, params, 3), np.float64)
    q = dist.Normal(jnp.array([0.3, -1.0, 0.5]), 0.7).to_event(1)
    key = jax.random.key(1)
    x = {"first": FIRST, "second": SECOND}

    @jax.jit
    def program(key, params):
        return neural_evals.predict(key, model, params, x, q, num_samples=5)

    found = program(key, params)
    z = np.asarray(q.sample(jax.random.clone(key), (5,)), np.float64)
    theta = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    chances = (theta @ beta).mean(0)
    np.testing.assert_allclose(found.mean, -np.log(chances[0]) - 2 * np.log(chances[3]), rtol=1e-5)
    mean = np.exp(np.array(q.mean))
    plugged = mean / mean.sum() @ beta
    np.testing.assert_allclose(
        found.plug_in, -np.log(plugged[0]) - 2 * np.log(plugged[3]), rtol=1e-5
    )


@pytest.mark.integration
def test_amortised_lda_is_refined_by_the_end_of_its_fixed_point():
    config = config_of("amortised_lda", model__num_latents=3, model__hidden=4)
    model = vi.models.documents.amortised_lda(V, num_latents=3, hidden=4, alpha=0.4)
    params = jax.jit(model.init)(jax.random.key(0))
    guides = neural_evals.refined_guides(config, model, V)
    ended = jax.jit(guides)(jax.random.key(1), params, FIRST)
    longer = vi.models.documents.amortised_lda(V, num_latents=3, hidden=4, num_iterations=400)
    reference = jax.jit(longer.densities.guide)(params, FIRST)
    np.testing.assert_allclose(ended.mean, reference.mean, rtol=1e-4)


def test_perplexity_skips_documents_with_an_empty_half():
    done = vi.topics.of_nll([4.0, 9.0, 2.0], [3, 0, 1], [2, 5, 1])
    assert done.num_docs == 2
    assert done.skipped_tokens == 5
    np.testing.assert_allclose(done.ppl_tok, np.exp(6 / 3))
    np.testing.assert_allclose(done.ppl_doc, np.exp((2 + 2) / 2))


@pytest.mark.integration
def test_shares_and_topics_of_a_mixed_softmax_are_its_own():
    model = vi.models.documents.nvdm(V, num_latents=3, hidden=4, shares=True)
    params = jax.jit(model.init)(jax.random.key(0))
    z = jnp.array([0.2, -1.0, 1.5])
    decoder = jax.tree.map(np.asarray, params["decoder"])
    theta = vi.models.documents.shares(params, z)
    raw = np.exp(z @ decoder["mix"])
    np.testing.assert_allclose(theta, raw / raw.sum(), rtol=1e-5)
    topics = vi.models.documents.topics(model, params, 3)
    raw = np.exp(decoder["topics"] + decoder["background"])
    np.testing.assert_allclose(topics, raw / raw.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.integration
def test_an_encoder_gives_a_document_the_same_guide_however_its_words_are_summed():
    model = vi.models.documents.prodlda(200, num_latents=3, hidden=4)
    params = jax.jit(model.init)(jax.random.key(0))
    padded = {name: jnp.pad(leaf, (0, 30)) for name, leaf in FIRST.items()}  # one product
    guide = jax.jit(model.densities.guide)
    short = guide(params, FIRST)  # looked up
    long = guide(params, padded)
    np.testing.assert_allclose(short.mean, long.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(short.variance, long.variance, rtol=1e-5)


def linear_gaussian(slope, noise):
    """x = slope z + noise e, z ~ N(0, 1), with a guide that is far off."""

    def guide(params, x):
        return dist.Normal(jnp.full(1, -2.0), jnp.full(1, 3.0)).to_event(1)

    def decode(params, x, z):
        return dist.Normal(slope * z[0], noise)

    return vi.models.from_densities(
        lambda key: {},
        guide,
        lambda params, x: dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1),
        decode,
        lambda params, x, z: decode(params, x, z).log_prob(x),
    )


@pytest.mark.integration
def test_a_refitted_guide_is_the_posterior_where_that_is_normal():
    model = linear_gaussian(1.5, 0.5)
    x = jnp.array([0.7, -2.0])

    def refit(key, x):
        q = vi.training.refit_normal(key, model, {}, x, num_steps=400, num_samples=32)
        return q.mean[0], q.variance[0]

    mean, variance = jax.jit(jax.vmap(refit))(jax.random.split(jax.random.key(0), 2), x)
    precision = 1 + 1.5**2 / 0.5**2
    np.testing.assert_allclose(mean, 1.5 * x / 0.5**2 / precision, atol=0.01)
    np.testing.assert_allclose(variance, 1 / precision, rtol=0.05)


@pytest.mark.integration
def test_a_guide_that_is_not_normal_is_refused():
    model = vi.models.documents.amortised_lda(V, num_latents=3, hidden=4)
    params = jax.jit(model.init)(jax.random.key(0))
    with pytest.raises(ValueError, match="expects a guide Normal"):
        vi.training.refit_normal(jax.random.key(0), model, params, FIRST)


def test_what_was_refined_is_in_the_summary_with_its_errors():
    from experiments.topics import neural

    done = vi.topics.of_nll([4.0, 2.0], [3, 1], [2, 1])
    gained = neural_evals.Refined({"mean": 1.0, "stderr": 0.1}, done, done)
    found = neural.of_refined(gained)
    assert set(found["completion_of_some"]) == {"encoder", "refined"}
    assert neural.of_refined(gained._replace(encoder=None, refined=None)) == {
        "amortisation_gap": {"mean": 1.0, "stderr": 0.1}
    }
