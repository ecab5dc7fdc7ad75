"""The parts of the KL under minibatches and the maximum mean discrepancy, against enumeration,
closed forms and each other.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, central_differences, keys, normal
from scipy import special, stats

import vi_jax as vi
from vi_jax.losses import linear_warmup, mmd, negative_elbo, total_correlation
from vi_jax.losses.mmd import squared_mmd
from vi_jax.losses.total_correlation import kl_parts

D = 2
STEP = jnp.int32(0)


def spread(scale=0.5, decoder=0.0):
    """q(z | x) = N(x, scale^2 I) over [2], p(z) = N(0, I), x | z of unit variance around a multiple
    of z.
    """

    def log_lik(params, x, z):
        return dist.Normal(params["w"] * z, 1.0).log_prob(x).sum()

    return vi.models.from_densities(
        lambda key: {"w": jnp.float32(decoder), "shift": jnp.zeros(D)},
        lambda params, x: dist.Normal(x + params["shift"], scale).to_event(1),
        lambda params, x: dist.Normal(jnp.zeros(D), 1.0).to_event(1),
        lambda params, x, z: dist.Normal(params["w"] * z, 1.0),
        log_lik,
    )


PARAMS = {"w": jnp.float32(0.7), "shift": jnp.zeros(D)}


def centres(num, correlation=0.0, seed=0):
    """[num, 2] of unit variance and a correlation."""
    root = np.linalg.cholesky(np.array([[1.0, correlation], [correlation, 1.0]]))
    return jnp.asarray(normal(seed, num, D) @ root.T, jnp.float32)


def of_log(model, params, x, key, num_data):
    return jax.jit(lambda key, x: kl_parts(key, model, params, x, num_data))(key, x)


@pytest.mark.integration
def test_the_three_parts_add_up_to_the_kl_of_the_same_draw():
    model = spread()
    x = centres(6)
    parts = of_log(model, PARAMS, x, jax.random.key(0), 20)

    @jax.jit
    @jax.vmap
    def kl(key, x):
        q = model.densities.guide(PARAMS, x)
        z = q.sample(key)
        return q.log_prob(z) - model.densities.prior(PARAMS, x).log_prob(z)

    np.testing.assert_allclose(sum(parts), kl(keys(0, 6), x), rtol=1e-4, atol=1e-5)


@pytest.mark.integration
def test_a_batch_of_all_examples_has_the_aggregate_itself():
    """B = N: q(z) is the mixture, no estimate."""
    model = spread()
    x = centres(5)
    parts = of_log(model, PARAMS, x, jax.random.key(1), 5)
    for number, key in enumerate(keys(1, 5)):
        z = np.asarray(model.densities.guide(PARAMS, x[number]).sample(key), np.float64)
        each = stats.norm(np.asarray(x, np.float64), 0.5).logpdf(z)  # [5, 2]
        whole = special.logsumexp(each.sum(1)) - np.log(5)
        product = (special.logsumexp(each, axis=0) - np.log(5)).sum()
        found = [part[number] for part in parts]
        own = each[number].sum()
        prior = stats.norm.logpdf(z).sum()
        expected = [own - whole, whole - product, product - prior]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.integration
def test_the_stratified_density_is_unbiased_and_the_weighted_one_is_not():
    """The mean of q(z) over every batch of 3 of 6 that has the sample's own example."""
    model = spread()
    x = centres(6)
    z = np.asarray(
        model.densities.guide(PARAMS, x[0]).sample(jax.random.split(jax.random.key(2), 3)[0])
    )
    each = np.exp(stats.norm(np.asarray(x, np.float64), 0.5).logpdf(z).sum(1))
    stratified = []
    weighted = []
    densities = jax.jit(lambda key, x: kl_parts(key, model, PARAMS, x, 6))
    for others in itertools.combinations(range(1, 6), 2):
        rows = [0, *others]
        part = densities(jax.random.key(2), x[jnp.array(rows)])
        stratified.append(np.exp(np.log(each[0]) - part.mutual_information[0]))
        weighted.append(each[rows].sum() / (6 * 3))
    np.testing.assert_allclose(np.mean(stratified), each.mean(), rtol=1e-4)
    assert np.mean(weighted) < 0.5 * each.mean()


@pytest.mark.integration
def test_gaussian_aggregates_have_the_parts_known_in_closed_form():
    """N large: q(z) = N(0, S + s^2 I), whose TC is -1/2 log(1 - r^2); weighted sampling adds log N
    for each latent but one.
    """
    correlation = 0.8
    scale = 0.5
    num_data = 10_000_000
    model = spread(scale)
    x = centres(1_500, correlation)
    parts = of_log(model, PARAMS, x, jax.random.key(3), num_data)
    variance = 1.0 + scale**2
    r = correlation / variance
    tc = -0.5 * np.log(1.0 - r**2)
    information = 0.5 * np.log(variance**2 * (1.0 - r**2)) - 2.0 * np.log(scale)
    marginal = D * 0.5 * (variance - 1.0 - np.log(variance))
    assert_mean(parts.total_correlation, tc)
    assert_mean(parts.mutual_information, information)
    assert_mean(parts.dimension_kl, marginal)
    # what weighted sampling makes of the same batch: 1 / (N B) in place of about 1 / B
    assert tc + (D - 1) * np.log(num_data) > 10


@pytest.mark.integration
def test_at_ones_it_is_the_negative_elbo_of_the_same_key():
    model = spread()
    x = centres(8)

    def at(make):
        value = jax.jit(jax.value_and_grad(make, has_aux=True))
        return value(PARAMS, jax.random.key(4), x, STEP)

    (plain, info), gradient = at(negative_elbo(model))
    (loss, own), slope = at(total_correlation(model, 100))
    np.testing.assert_allclose(loss, plain, rtol=1e-6)
    np.testing.assert_allclose(own.metrics["elbo"], info.metrics["elbo"], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), gradient, slope
    )
    # alpha = beta = gamma = c weighs the KL, drawn less closed, by c
    (weighed, own), _ = at(total_correlation(model, 100, alpha=3.0, beta=3.0, gamma=3.0))
    parts = ("mutual_information", "total_correlation", "dimension_kl")
    drawn = sum(own.metrics[name] for name in parts)
    np.testing.assert_allclose(weighed - plain, 2.0 * drawn, rtol=1e-5)
    np.testing.assert_allclose(own.metrics["elbo"], info.metrics["elbo"], rtol=1e-6)
    assert own.metrics["beta"] == 3.0


@pytest.mark.integration
def test_weights_and_schedules_are_those_of_the_parts(x64):
    model = spread()
    x = centres(4)
    losses = {
        name: jax.jit(total_correlation(model, 9, **options))(
            PARAMS, jax.random.key(5), x, jnp.int32(5)
        )
        for name, options in {
            "mutual_information": dict(alpha=3.0),
            "total_correlation": dict(beta=linear_warmup(10, final=6.0)),
            "dimension_kl": dict(gamma=3.0),
            "none": {},
        }.items()
    }
    plain, _ = losses.pop("none")
    for name, (loss, info) in losses.items():
        np.testing.assert_allclose(loss - plain, 2.0 * info.metrics[name], rtol=1e-6)


@pytest.mark.integration
def test_gradients_are_those_of_the_values(x64):
    model = spread()
    x = centres(5).astype(jnp.float64)
    makes = [
        total_correlation(model, 12, alpha=0.5, beta=4.0, gamma=2.0),
        mmd(model, alpha=0.3, weight=7.0),
        mmd(model, kernel="gaussian"),
    ]
    for make in makes:

        @jax.jit
        def value(row, make=make):
            params = {"w": row[0], "shift": row[1:]}
            return make(params, jax.random.key(6), x, STEP)[0]

        at = np.array([0.7, 0.2, -0.1])
        np.testing.assert_allclose(jax.grad(value)(at), central_differences(value, at), rtol=1e-5)


@pytest.mark.parametrize("kernel", ["inverse_multiquadric", "gaussian"])
def test_the_discrepancy_of_equal_laws_is_zero_and_of_others_is_not(kernel):
    @jax.jit
    @jax.vmap
    def distances(key):
        key_a, key_b = jax.random.split(key)
        a = jax.random.normal(key_a, (20, 3))
        b = jax.random.normal(key_b, (20, 3))
        return squared_mmd(a, b, kernel=kernel), squared_mmd(a + 1.0, b, kernel=kernel)

    equal, shifted = distances(keys(7, 500))
    assert_mean(equal, 0.0)
    assert np.min(equal) < 0.0  # no bias, so that some are below
    assert np.mean(shifted) > 20 * np.std(equal) / 500**0.5


@pytest.mark.integration
def test_the_gaussian_discrepancy_is_known_in_closed_form():
    """E k(a, b) of N(m, I) and N(0, I) is (C / (C + 4))^(D/2) exp(-|m|^2 / (C + 4)), C = 2 D."""

    @jax.jit
    @jax.vmap
    def distances(key):
        key_a, key_b = jax.random.split(key)
        a = jax.random.normal(key_a, (10, D)) + jnp.array([1.0, 0.5])
        return squared_mmd(a, jax.random.normal(key_b, (12, D)), kernel="gaussian")

    width = 2.0 * D
    same = (width / (width + 4.0)) ** (D / 2)
    assert_mean(distances(keys(8, 2_000)), 2.0 * same * (1.0 - np.exp(-1.25 / (width + 4.0))))


@pytest.mark.integration
def test_info_vae_weighs_the_kl_and_the_discrepancy():
    model = spread()
    x = centres(6)
    plain, info = jax.jit(negative_elbo(model))(PARAMS, jax.random.key(9), x, STEP)
    loss, own = jax.jit(mmd(model, alpha=0.25, weight=10.0))(PARAMS, jax.random.key(9), x, STEP)
    expected = plain - 0.25 * info.metrics["kl"] + 10.0 * own.metrics["mmd"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(own.metrics["elbo"], info.metrics["elbo"], rtol=1e-6)


@pytest.mark.integration
def test_what_cannot_be_is_refused_in_a_sentence():
    model = spread()
    full = vi.models.vae((D,), num_latents=2, hidden=(3,), family=vi.families.full_rank)

    def trace(make, model, num=4):
        params = jax.eval_shape(model.init, jax.random.key(0))
        x = jax.ShapeDtypeStruct((num, D), jnp.float32)
        jax.eval_shape(make, params, jax.random.key(0), x, STEP)

    for bad, words in [
        (lambda: trace(total_correlation(model, 3), model), "batch of 2 to num_data=3"),
        (lambda: trace(total_correlation(model, 9), model, 1), "batch of 2"),
        (lambda: trace(total_correlation(full, 9), full), "coordinates are independent"),
        (lambda: trace(mmd(model), model, 1), "at least 2 examples"),
        (lambda: mmd(model, kernel="cosine"), "kernel is one of"),
        (lambda: mmd(model, scale=0.0), "positive"),
        (lambda: mmd(model._replace(densities=None)), "with densities"),
        (lambda: total_correlation(model._replace(densities=None), 3), "with densities"),
    ]:
        with pytest.raises(ValueError, match=words):
            bad()
