"""M2: its bounds against enumeration, the bound of a labelled row, its gradient; hidden labels of a
data set; the test error of a run.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_finite, keys, normal

import vi_jax as vi
from configs import semi_supervised
from experiments import config_file
from experiments.data import DataError
from experiments.data.base import Dataset, Split
from experiments.data.labelled import HIDDEN, with_few_labels
from experiments.run import folder, session, single

SHAPE = (3, 2)
C = 3
MODEL = vi.models.semi_supervised_vae(
    SHAPE, C, num_latents=2, hidden=(4,), classifier_hidden=(4,), alpha=0.5, num_data=12,
    num_labels=3, label_copies=2,
)  # fmt: skip
PLAIN = vi.models.semi_supervised_vae(
    SHAPE, C, num_latents=2, hidden=(4,), classifier_hidden=(4,), num_data=4, num_labels=4
)


def params_of(model):
    params = jax.jit(model.init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    moved = [
        leaf + 0.5 * jnp.asarray(normal(number, *leaf.shape), leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, moved)


def example(has_label, label=1):
    image = jnp.asarray(normal(9, *SHAPE) > 0, jnp.float32)
    return {"image": image, "label": jnp.int32(label), "has_label": jnp.asarray(has_label)}


def total(kl):
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(kl))


def by_class(model, params, x, each):
    """E_q(z | x, y)[log p(x | y, z) + log p(z) - log q(z | x, y)] of every class, [C]."""
    free = {**x, "has_label": jnp.asarray(False)}
    q = model.densities.guide(params, free)

    def of_class(y):
        conditional = q.condition({"y": y})

        def one(key):
            z = {"y": y, **conditional.sample(key)}
            joint = vi.losses.log_joint(model, params, free)(z)
            return joint + jnp.log(C) - conditional.log_prob({"z": z["z"]})

        return jax.vmap(one)(each)

    return jax.vmap(of_class)(jnp.eye(C)).T, q.context["logits"]


@pytest.mark.integration
@pytest.mark.parametrize("has_label", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_bound_is_that_of_the_enumeration_over_y(has_label):
    """eq. 7 of Kingma et al. (2014), and eq. 6 of a labelled row."""
    params = params_of(PLAIN)
    x = example(has_label)

    @jax.jit
    def both(params, few, others):
        terms = jax.vmap(lambda key: PLAIN.terms(key, params, x))(few)
        return terms, by_class(PLAIN, params, x, others)

    terms, (each, logits) = both(params, keys(1, 2_000), keys(2, 2_000))
    elbo = terms.log_lik - sum(kl.reshape(2_000, -1).sum(1) for kl in terms.kl.values())
    mean = np.asarray(each, np.float64).mean(0)
    if has_label:
        expected = mean[1] - np.log(C)
        np.testing.assert_allclose(terms.kl["y"], np.log(C), rtol=1e-6)
        np.testing.assert_allclose(terms.penalty, -0.1 * jax.nn.log_softmax(logits)[1], rtol=1e-5)
    else:
        log_q = np.asarray(jax.nn.log_softmax(logits), np.float64)
        expected = np.exp(log_q) @ (mean - np.log(C) - log_q)
        assert not np.any(terms.penalty)
    noise = np.asarray(each, np.float64).std(0).max() / 2_000**0.5
    spread = np.asarray(elbo, np.float64).std() / 2_000**0.5
    assert abs(np.asarray(elbo, np.float64).mean() - expected) < 5 * np.hypot(noise, spread)
    assert all_finite(PLAIN.densities.guide(params, x).context)  # no logit of -inf


@pytest.mark.integration
def test_importance_samples_reach_log_p_of_the_enumeration():
    """log p(x) = logsumexp over y of log p(x, y), for the unlabelled and the labelled row."""
    params = params_of(PLAIN)
    for has_label in (False, True):
        x = example(has_label)
        batch = jax.tree.map(lambda leaf: leaf[None], x)
        z = jax.random.normal(jax.random.key(5), (40_000, 2))

        @jax.jit
        def exact(params, x=x, z=z):
            log_lik = jax.vmap(
                lambda y: jax.vmap(lambda z: PLAIN.densities.log_lik(params, x, {"y": y, "z": z}))(
                    z
                )
            )(jnp.eye(C))
            return jax.nn.logsumexp(log_lik, axis=1) - jnp.log(len(z) * C)

        of_class = exact(params)
        wanted = of_class[1] if has_label else jax.nn.logsumexp(of_class)
        with jax.debug_key_reuse(False):
            found = vi.diagnostics.amortised.log_evidence(
                jax.random.key(6), PLAIN, params, batch, num_samples=20_000, chunk=1_000
            )
        np.testing.assert_allclose(found[0], wanted, atol=0.03)


@pytest.mark.integration
def test_copies_weigh_less_and_the_classifier_by_the_paper():
    """R copies of n labelled rows of N: bounds 1 / R each, -log q(y | x) alpha N / (n R) each."""
    params = params_of(MODEL)
    x = example(True)
    key = jax.random.key(3)
    with jax.debug_key_reuse(False):
        once = PLAIN.terms(key, params, x)
        twice = MODEL.terms(key, params, x)
    np.testing.assert_allclose(2 * twice.log_lik, once.log_lik, rtol=1e-5)
    np.testing.assert_allclose(2 * total(twice.kl), total(once.kl), rtol=1e-5)
    num_rows = 12 - 3
    np.testing.assert_allclose(
        twice.penalty / once.penalty, (0.5 * num_rows / (3 * 2)) / 0.1, rtol=1e-5
    )
    np.testing.assert_allclose(MODEL.densities.penalty(params, x), twice.penalty, rtol=1e-6)


@pytest.mark.integration
def test_the_gradient_is_that_of_the_enumeration():
    """Of the classifier: of a labelled row by its penalty alone; of a free one by central
    differences at fixed samples.
    """
    params = params_of(PLAIN)
    key = jax.random.key(4)

    def bound(classifier, has_label):
        terms = PLAIN.terms(key, {**params, "classifier": classifier}, example(has_label))
        return terms.log_lik - total(terms.kl)

    with jax.debug_key_reuse(False):
        flat, unravel = jax.flatten_util.ravel_pytree(params["classifier"])
        slope = jax.jit(jax.grad(lambda flat: bound(unravel(flat), False)))(flat)
        still = jax.grad(lambda flat: bound(unravel(flat), True))(flat)
        value = jax.jit(jax.vmap(lambda flat: bound(unravel(flat), False)))
        steps = 1e-2 * jnp.eye(len(flat))
        numeric = (value(flat + steps) - value(flat - steps)) / 2e-2
    np.testing.assert_array_equal(still, 0.0)
    np.testing.assert_allclose(slope, numeric, rtol=2e-2, atol=2e-3)
    assert np.abs(slope).max() > 0.01


# --- M1+M2


STACKED = vi.models.stacked_semi_supervised_vae(
    SHAPE, C, num_features=2, num_latents=2, features_hidden=(4,), hidden=(4,),
    classifier_hidden=(4,), alpha=0.5, num_data=12, num_labels=3, label_copies=2,
)  # fmt: skip


@pytest.mark.integration
def test_each_model_of_a_stack_is_trained_by_its_own_bound():
    """The gradient of M1 is that of a VAE under N(0, I), that of M2 of its bound of z1 as data."""
    params = params_of(STACKED)
    key = jax.random.key(1)
    m1 = vi.models.vae(SHAPE, num_latents=2, hidden=(4,), activation=jax.nn.softplus)
    m2 = vi.models.semi_supervised_vae(
        (2,), C, num_latents=2, hidden=(4,), classifier_hidden=(4,), alpha=0.5, num_data=12,
        num_labels=3, label_copies=2, likelihood=vi.models.likelihoods.gaussian_heteroscedastic(),
    )  # fmt: skip
    x = example(True)

    def of_stack(params):
        terms = STACKED.terms(key, params, x)
        kl = terms.kl["y"].sum() + terms.kl["z1"].value.sum() + terms.kl["z2"].sum()
        return terms.log_lik - kl - terms.penalty

    def alone(params):
        key_1, key_2 = jax.random.split(key)
        pixels = m1.terms(key_1, params["m1"], x["image"])
        z1 = m1.densities.guide(params["m1"], x["image"]).sample(key_1)
        data = {**x, "image": jax.lax.stop_gradient(z1)}
        above = m2.terms(key_2, params["m2"], data)
        of_m1 = (pixels.log_lik - total(pixels.kl)) / 2  # of a row that stands twice
        return of_m1 + above.log_lik - total(above.kl) - above.penalty

    with jax.debug_key_reuse(False):
        found = jax.jit(jax.grad(of_stack))(params)
        wanted = jax.jit(jax.grad(alone))(params)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        assert np.abs(theirs).max() > 0.0


# --- hidden labels


def dataset(num=40):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (num, 3, 2), dtype=np.uint8)
    split = Split(x, np.arange(num) % 4)
    return Dataset(split, None, split, 2, "toy", "nowhere", "0")


class Fields:
    num_labels = 8
    label_seed = 0
    label_copies = 3


def test_few_labels_are_kept_as_many_of_each_class():
    found = with_few_labels(dataset(), Fields).train
    assert found.num == 40 + 2 * 8
    known = found.labels[:40] != HIDDEN
    assert known.sum() == 8
    np.testing.assert_array_equal(np.bincount(found.labels[:40][known]), [2, 2, 2, 2])
    np.testing.assert_array_equal(found.labels[:40][known], (np.arange(40) % 4)[known])
    np.testing.assert_array_equal(found.labels[40:], np.tile(found.labels[:40][known], 2))
    np.testing.assert_array_equal(found.x[40:48], found.x[:40][known])
    again = with_few_labels(dataset(), Fields).train
    np.testing.assert_array_equal(found.labels, again.labels)

    class Other(Fields):
        label_seed = 1

    assert np.any(with_few_labels(dataset(), Other).train.labels != found.labels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [(dict(num_labels=6), "no multiple"), (dict(num_labels=44), "fewer than the 11")],
)
def test_labels_that_cannot_be_kept_are_refused(changes, words):
    fields = type("Changed", (Fields,), changes)
    with pytest.raises(DataError, match=words):
        with_few_labels(dataset(), fields)
    bare = dataset()
    bare = bare._replace(train=bare.train._replace(labels=None))
    with pytest.raises(DataError, match="add labels"):
        with_few_labels(bare, Fields)


def test_what_the_model_is_not_given_is_said():
    params = jax.eval_shape(PLAIN.init, jax.random.key(0))
    x = {"image": jnp.zeros(SHAPE), "label": jnp.int32(0)}
    with pytest.raises(ValueError, match=r"data\.num_labels"):
        jax.eval_shape(PLAIN.densities.guide, params, x)
    with pytest.raises(ValueError, match="expects positive numbers"):
        vi.models.semi_supervised_vae(SHAPE, 1, num_latents=2)
    with pytest.raises(ValueError, match="update of its own"):
        vi.models.semi_supervised_vae(
            SHAPE, 3, num_latents=2, likelihood=vi.models.likelihoods.gaussian_optimal()
        )


@pytest.mark.integration
def test_a_run_ends_with_its_test_error(tmp_path, capsys, no_key_check):
    config = config_file.set_fields(semi_supervised.get_config(), [])
    config.model.update(hidden=(8,), classifier_hidden=(8,))
    config.train.update(num_steps=20, log_every=10, eval_every=20, checkpoint_every=20)
    config.optim.learning_rate.warmup_steps = 2
    config.objective.beta.num_steps = 5
    config.eval.num_importance_samples = 4
    folder.open_folder(tmp_path / "run", config, overwrite=False)
    single.train(config, tmp_path / "run", resumed=False)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0.0 < summary["test_error"]["mean"] < 1.0
    assert 1.0 <= summary["classes_used"] <= 10.001
    assert "test error of q(y|x)" in capsys.readouterr().out
    x, labels = session.evaluation_set(config, session.load_data(config), "test")
    assert not np.any(x["has_label"])
    np.testing.assert_array_equal(x["label"], labels)
