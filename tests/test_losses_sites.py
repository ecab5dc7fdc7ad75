"""Losses over models of several sites and over examples that are dictionaries: weights and free
bits by site and by group, penalties, updates, and what is refused.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from helpers import normal

import vi_jax as vi
from vi_jax.distributions import Bernoulli
from vi_jax.losses import batch_terms, linear_warmup, negative_bound, negative_elbo
from vi_jax.models import from_densities
from vi_jax.types import Drawn, Model, Terms

B = 5
STEP = jnp.int32(0)
KL_A = jnp.asarray(np.abs(normal(0, B, 3)), jnp.float32)
KL_B = jnp.asarray(np.abs(normal(1, B)), jnp.float32)
X = {"row": jnp.arange(B)}


def by_table(**changes):
    """A model whose terms are the rows of two tables: a site `a` of three dimensions, closed, and a
    site `b`, drawn.
    """

    def terms(key, params, x):
        row = x["row"]
        return Terms(params["lik"], {"a": KL_A[row], "b": Drawn(KL_B[row])})

    fields = dict(
        init=lambda key: {"lik": jnp.float32(-2.0)}, terms=terms, generate=lambda *_: None
    )
    return Model(**{**fields, **changes})


MODEL = by_table()
PARAMS = MODEL.init(None)


def run(loss, params=PARAMS, batch=X, step=STEP):
    return jax.jit(loss)(params, jax.random.key(1), batch, step)


def test_metrics_name_every_site_and_how_its_kl_was_taken():
    value, info = run(negative_elbo(MODEL))
    assert set(info.metrics) == {"elbo", "log_lik", "kl", "beta", "kl/a", "kl_drawn/b"}
    np.testing.assert_allclose(info.metrics["kl/a"], KL_A.sum(1).mean(), rtol=1e-6)
    np.testing.assert_allclose(info.metrics["kl_drawn/b"], KL_B.mean(), rtol=1e-6)
    total = float(KL_A.sum(1).mean() + KL_B.mean())
    np.testing.assert_allclose(info.metrics["kl"], total, rtol=1e-6)
    np.testing.assert_allclose(value, 2.0 + total, rtol=1e-6)
    np.testing.assert_allclose(info.metrics["elbo"], -value, rtol=1e-6)


def test_beta_by_site():
    loss = negative_elbo(MODEL, beta={"a": linear_warmup(10, final=2.0), "b": 0.5})
    value, info = run(loss, step=jnp.int32(5))
    wanted = 2.0 + KL_A.sum(1).mean() + 0.5 * KL_B.mean()
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    np.testing.assert_allclose([info.metrics["beta/a"], info.metrics["beta/b"]], [1.0, 0.5])
    with pytest.raises(ValueError, match=r"every site of the model, \['a', 'b'\]; got \['a'\]"):
        run(negative_elbo(MODEL, beta={"a": 1.0}))


def floored(group, by, floor):
    """sum max(lambda, KL) in NumPy."""
    a = np.asarray(KL_A, np.float64)
    b = np.asarray(KL_B, np.float64)
    groups = {
        "dimension": [*a.T, b],
        "layer": [a.sum(1), b],
        "model": [a.sum(1) + b],
    }[group]
    if by == "batch":
        return sum(max(each.mean(), floor) for each in groups)
    return sum(np.maximum(each, floor).mean() for each in groups)


@pytest.mark.parametrize("by", ["batch", "example"])
@pytest.mark.parametrize("group", ["layer", "model"])
@pytest.mark.parametrize("floor", [0.3, 2.0, 4.0])
def test_free_bits_by_group(group, by, floor):
    value, info = run(negative_elbo(MODEL, free_bits=floor, group=group, by=by))
    np.testing.assert_allclose(value, 2.0 + floored(group, by, floor), rtol=1e-5)
    np.testing.assert_allclose(info.metrics["elbo"], -2.0 - floored("model", by, 0.0), rtol=1e-5)


@pytest.mark.parametrize("by", ["batch", "example"])
def test_free_bits_by_site(by):
    value, _ = run(negative_elbo(MODEL, free_bits={"a": 0.7}, by=by))
    a = np.asarray(KL_A, np.float64)
    means = np.maximum(a.mean(0), 0.7) if by == "batch" else np.maximum(a, 0.7).mean(0)
    np.testing.assert_allclose(value, 2.0 + means.sum() + KL_B.mean(), rtol=1e-5)


def test_free_bits_that_cannot_be_are_refused():
    for options, message in [
        (dict(free_bits=0.5), "per latent dimension.*'b' has none"),
        (dict(free_bits={"c": 1.0}), r"name sites of the model.*\['c'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(negative_elbo(MODEL, **options))
    for options, message in [
        (dict(free_bits={"a": -1.0}), "at least 0"),
        (dict(group="everything"), "'layer' or 'model'"),
        (dict(group="model", beta={"a": 1.0, "b": 1.0}), "one beta and one lambda"),
    ]:
        with pytest.raises(ValueError, match=message):
            negative_elbo(MODEL, **options)


def test_penalties_are_minimised_and_no_part_of_the_bound():
    def terms(key, params, x):
        return MODEL.terms(key, params, x)._replace(penalty={"commitment": jnp.full(2, 0.5)})

    plain, before = run(negative_elbo(MODEL))
    value, info = run(negative_elbo(by_table(terms=terms)))
    np.testing.assert_allclose(value - plain, 1.0, rtol=1e-5)
    np.testing.assert_allclose(info.metrics["penalty"], 1.0)
    np.testing.assert_allclose(info.metrics["elbo"], before.metrics["elbo"])


def test_terms_with_dropout_train_and_do_not_evaluate():
    def dropped(key, params, x):
        return MODEL.terms(key, params, x)._replace(log_lik=3.0 * params["lik"])

    model = by_table(train_terms=dropped)
    value, info = run(negative_elbo(model))
    assert "elbo" not in info.metrics
    np.testing.assert_allclose(info.metrics["objective"], -value, rtol=1e-6)
    np.testing.assert_allclose(info.metrics["log_lik"], -6.0)
    found = vi.diagnostics.amortised.evaluate_examples(jax.random.key(0), model, PARAMS, X)
    np.testing.assert_allclose(found["log_lik"], np.full(B, -2.0))
    assert jax.tree.map(jnp.shape, found["kl"]) == {"a": (B, 3), "b": (B,)}
    assert "latent_mean" not in found


def test_models_that_say_nothing_of_a_site_are_refused():
    for kl, message in [(KL_B[0], "a dictionary"), ({"a": (KL_A[0], KL_B[0])}, "one array")]:
        model = by_table(terms=lambda key, params, x, kl=kl: Terms(params["lik"], kl))
        with pytest.raises(ValueError, match=message):
            run(negative_elbo(model))
    wide = by_table(terms=lambda key, params, x: Terms(jnp.zeros(2), {"a": jnp.zeros(())}))
    with pytest.raises(ValueError, match="one number for one example"):
        run(negative_elbo(wide))


def test_examples_are_of_one_number():
    with pytest.raises(ValueError, match=r"arrays \[N, \.\.\.\] of one N"):
        run(negative_elbo(MODEL), batch={"row": jnp.arange(B), "other": jnp.zeros(3)})
    with pytest.raises(ValueError, match="of one N"):
        vi.types.num_examples({})


# --- models by their densities, of examples that are dictionaries
# -----------------------------------------------------------------------------------------------


def discrete(**options):
    """z ~ Bernoulli, x = {"value", "context"}."""

    def decode(params, x, z):
        return dist.Normal(params["w"] * z.sum() + x["context"], 1.0)

    return from_densities(
        lambda key: {"w": jnp.float32(0.7)},
        lambda params, x: Bernoulli(x["value"] * jnp.ones(2)).to_event(1),
        lambda params, x: Bernoulli(x["context"] * jnp.ones(2)).to_event(1),
        decode,
        lambda params, x, z: decode(params, x, z).log_prob(x["value"]),
        **options,
    )


PAIRS = {
    "value": jnp.asarray(normal(2, B), jnp.float32),
    "context": jnp.asarray(normal(3, B), jnp.float32),
}


@pytest.mark.integration
def test_draws_without_a_gradient_are_refused_in_training_alone():
    model = discrete()
    params = model.init(None)
    with pytest.raises(ValueError, match="negative_elbo differentiates through"):
        run(negative_elbo(model), params, PAIRS)
    own = model._replace(terms=lambda *args: model.terms(*args))  # vouched for
    run(negative_elbo(own), params, PAIRS)
    wrapped = model._replace(terms=functools.wraps(model.terms)(lambda *a: model.terms(*a)))
    with pytest.raises(ValueError, match="negative_elbo differentiates through"):
        run(negative_elbo(wrapped), params, PAIRS)
    batch_terms(jax.random.key(0), model, params, PAIRS)
    loss = negative_bound(model, vi.bounds.iwae, vi.estimators.vimco, num_samples=3)
    assert np.isfinite(run(loss, params, PAIRS)[0])


def exact(params, x):
    """log p(x) by enumeration, [B]."""
    model = discrete()
    points = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])

    def one(x):
        joint = vi.losses.log_joint(model, params, x)
        return jax.nn.logsumexp(jax.vmap(joint)(points))

    return jax.vmap(one)(x)


@pytest.fixture
def batched_map():
    """jax.lax.map with a batch size slices its keys, which the checker takes for a second use."""
    with jax.debug_key_reuse(False):
        yield


@pytest.mark.integration
@pytest.mark.usefixtures("batched_map")
def test_log_evidence_takes_discrete_latents():
    model = discrete()
    params = model.init(None)
    evaluate = vi.diagnostics.amortised.log_evidence
    found = evaluate(jax.random.key(0), model, params, PAIRS, num_samples=20_000, chunk=1_000)
    np.testing.assert_allclose(found, exact(params, PAIRS), atol=0.03)
    aggregate = vi.diagnostics.amortised.aggregate_posterior
    split = aggregate(jax.random.key(0), model, params, PAIRS)
    assert split.mutual_information.mean <= split.max_information


def test_a_bound_has_the_penalty_of_the_densities():
    plain = discrete()
    with_penalty = discrete(penalty=lambda params, x: {"label": x["context"] ** 2})
    params = plain.init(None)
    values = [
        run(negative_bound(m, vi.bounds.elbo, vi.estimators.score, num_samples=2), params, PAIRS)
        for m in (plain, with_penalty)
    ]
    gap = (PAIRS["context"] ** 2).mean()
    np.testing.assert_allclose(values[1][0] - values[0][0], gap, rtol=1e-4)
    np.testing.assert_allclose(values[1][1].metrics["penalty"], gap, rtol=1e-6)
    np.testing.assert_allclose(values[1][1].metrics["bound"], values[0][1].metrics["bound"])


def test_a_bound_wants_densities_and_no_dropout():
    with pytest.raises(ValueError, match="negative_bound expects a model with densities"):
        negative_bound(MODEL, vi.bounds.iwae, vi.estimators.reparam)
    model = discrete()._replace(train_terms=MODEL.terms)
    with pytest.raises(ValueError, match="knows no dropout"):
        negative_bound(model, vi.bounds.iwae, vi.estimators.reparam)


@pytest.mark.parametrize("bound", [vi.bounds.cubo, functools.partial(vi.bounds.eubo)])
def test_an_upper_bound_is_not_climbed(bound):
    with pytest.raises(ValueError, match="ubo is an upper bound of log p"):
        negative_bound(discrete(), bound, vi.estimators.reparam, num_samples=3)


# --- what a model updates itself
# -----------------------------------------------------------------------------------------------


def with_average(decay=0.5):
    """A parameter `average` of the data that no gradient moves, and one that a gradient does."""

    def terms(key, params, x):
        noise = 0.0 * jax.random.normal(key)
        off = params["w"] - vi.freeze(x) + 0.1 * params["average"]
        return Terms(-(off**2) + noise, {"z": jnp.zeros(())}, stats={"mean": x})

    def update(key, params, stats):
        moved = decay * params["average"] + (1 - decay) * stats["mean"]
        return {**params, "average": moved}

    return Model(
        lambda key: {"w": jnp.float32(1.0), "average": jnp.float32(4.0)},
        terms,
        lambda *_: None,
        update=update,
    )


@pytest.mark.integration
def test_an_update_is_the_models_own_and_no_optimisers():
    model = with_average()
    data = jnp.asarray(normal(4, B), jnp.float32)
    optimizer = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.01, weight_decay=0.5))
    step = jax.jit(vi.make_step(negative_elbo(model), optimizer))
    state = vi.init_state(jax.random.key(0), model.init, optimizer)
    average = 4.0
    for _ in range(3):
        before = state.params
        state, metrics = step(state, data)
        average = 0.5 * average + 0.5 * float(data.mean())
        np.testing.assert_allclose(state.params["average"], average, rtol=1e-6)
        assert state.params["w"] != before["w"]
    # its gradient does not count in the norm by which the others are clipped
    gradient = jax.grad(lambda p: negative_elbo(model)(p, jax.random.key(1), data, STEP)[0])(
        state.params
    )
    assert gradient["average"] == 0.0
    assert gradient["w"] != 0.0
    np.testing.assert_allclose(metrics["loss"], -metrics["elbo"], rtol=1e-6)


def test_an_update_serves_every_objective():
    model = vi.models.vae(
        (6,), num_latents=2, hidden=(4,), likelihood=vi.models.likelihoods.gaussian_optimal()
    )
    params = model.init(jax.random.key(0))
    x = jnp.asarray(normal(5, B, 6), jnp.float32)
    loss = negative_bound(model, vi.bounds.iwae, vi.estimators.dreg, num_samples=4)
    _, info = run(loss, params, x)
    assert info.moved == vi.losses.Moved(
        tuple(leaf is params["likelihood"]["log_sigma"] for leaf in jax.tree.leaves(params))
    )
    assert info.params["likelihood"]["log_sigma"] != params["likelihood"]["log_sigma"]


def test_an_update_keeps_the_shape_of_the_parameters():
    model = with_average()._replace(update=lambda key, params, stats: {"w": params["w"]})
    with pytest.raises(ValueError, match=r"Model\.update has to return parameters"):
        run(negative_elbo(model), model.init(None), jnp.ones(B))


@pytest.mark.integration
def test_old_names_go_on_for_a_version():
    model = vi.models.vae((3,), num_latents=2, hidden=(4,))
    params = model.init(jax.random.key(0))
    x = jnp.ones(3)
    z = jnp.zeros(2)
    new = model.densities
    for old, value, wanted in [
        ("encode", lambda f: f(params, x).mean, new.guide(params, x).mean),
        ("prior", lambda f: f(params).log_prob(z), new.prior(params, x).log_prob(z)),
        ("decode", lambda f: f(params, z).mean, new.decode(params, x, z).mean),
        ("log_lik", lambda f: f(params, x, z), new.log_lik(params, x, z)),
    ]:
        with pytest.warns(DeprecationWarning, match=f"Model.{old} is now Model.densities"):
            function = getattr(model, old)
        np.testing.assert_allclose(value(function), wanted)
    with pytest.warns(DeprecationWarning, match="batch_terms"):
        terms = vi.losses.example_terms(jax.random.key(1), model, params, x[None])
    assert jax.tree.map(jnp.shape, terms) == {"log_lik": (1,), "kl": (1, 2)}
