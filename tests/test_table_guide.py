"""The guide of a table in closed form: the posterior of linear Gaussian tables, whatever is
missing; the score and Fisher's information of classes; counts against quadrature.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_finite, normal, tree_equal
from test_models_laws import COLUMNS, SOME, table, table_rows

import vi_jax as vi
from vi_jax.models import _table_guide
from vi_jax.models.table_vae import Column, table_vae

GUIDES = ("linearised", "linearised_encoder")
PRECISE = dict(rtol=1e-4, atol=1e-5)


def moved(model, size=0.3):
    """Parameters away from their start."""
    leaves, structure = jax.tree.flatten(jax.jit(model.init)(jax.random.key(0)))
    drawn = [
        leaf + size * jnp.asarray(normal(number, *leaf.shape), leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, drawn)


@functools.cache
def of_normal_columns():
    columns = [
        Column("gaussian"),
        Column("log_normal", scale=0.7),
        Column("gaussian", scale=2.0),
    ]
    model = table_vae(columns, num_latents=2, decoder_hidden=(), guide="linearised")
    values = np.abs(normal(3, 5, 3)) + 0.1
    observed = normal(4, 5, 3) > -0.4
    rows = {"values": jnp.asarray(values, jnp.float32), "observed": jnp.asarray(observed)}
    return model, moved(model), rows


def joint_of(params):
    """Mean [3], covariance [3, 3] and W [3, 2] of x, log x where it is log-normal."""
    layer = params["decoder"]["Dense_0"]
    units = np.array([1.0, 0.7, 1.0])
    order = [0, 2, 1]  # outputs are by kind
    weights = np.asarray(layer["kernel"], np.float64).T[order] * units[:, None]
    mean = np.asarray(layer["bias"], np.float64)[order] * units
    of_real = np.exp(np.asarray(params["likelihood"]["gaussian"]["log_sigma"], np.float64))
    of_log = np.exp(np.asarray(params["likelihood"]["log_normal"]["log_sigma"], np.float64))
    floors = 0.01 * np.array([1.0, 0.7, 2.0])
    scale = np.array([of_real[0], of_log[0], of_real[1]]) + floors
    return mean, weights @ weights.T + np.diag(scale**2), weights


@pytest.mark.integration
def test_it_is_the_posterior_of_normal_columns():
    model, params, rows = of_normal_columns()
    mean, covariance, weights = joint_of(params)
    for number in range(5):
        x = jax.tree.map(lambda leaf, number=number: leaf[number], rows)
        q = model.densities.guide(params, x)
        seen = np.asarray(x["observed"])
        values = np.asarray(x["values"], np.float64)
        values[1] = np.log(values[1])
        gain = np.linalg.solve(covariance[np.ix_(seen, seen)], weights[seen]).T
        expected = gain @ (values - mean)[seen]
        np.testing.assert_allclose(q.loc, expected, **PRECISE)
        left = np.eye(2) - gain @ weights[seen]
        np.testing.assert_allclose(q.covariance_matrix, left, **PRECISE)


@pytest.mark.integration
def test_each_draw_gives_log_p_of_normal_columns(no_key_check):
    """log p(x, z) - log q(z) is log p(x) at every z, and so the gradient of the ELBO is that of
    log p(x).
    """
    model, params, rows = of_normal_columns()
    x = jax.tree.map(lambda leaf: leaf[0], rows)

    def weight(params, key):
        q = model.densities.guide(params, x)
        z = q.sample(key)
        return vi.losses.log_joint(model, params, x)(z) - q.log_prob(z)

    keys = jax.random.split(jax.random.key(1), 20)
    weights, slopes = jax.vmap(jax.value_and_grad(weight), (None, 0))(params, keys)
    assert np.ptp(weights) < 1e-4
    for leaf in jax.tree.leaves(slopes):
        np.testing.assert_allclose(leaf, jnp.broadcast_to(leaf[0], leaf.shape), atol=2e-3)


CLASSES = (
    Column("bernoulli"),
    Column("categorical", num_levels=3),
    Column("ordinal", num_levels=4),
)


@pytest.mark.integration
@pytest.mark.parametrize("number", range(len(CLASSES)), ids=[one.kind for one in CLASSES])
def test_classes_have_their_score_and_fisher_information(number):
    column = CLASSES[number]
    model = table_vae([column] * 2, num_latents=2, decoder_hidden=(), guide="linearised")
    params = moved(model)
    x = {"values": jnp.array([1.0, 0.0]), "observed": jnp.array([True, True])}
    q = model.densities.guide(params, x)
    slope = jax.grad(lambda z: model.densities.log_lik(params, x, z))(jnp.zeros(2))
    np.testing.assert_allclose(q.precision_matrix @ q.loc, slope, rtol=1e-3, atol=1e-5)
    # the diagonal of E[-d^2 log p / d outputs^2], carried to z by the decoder
    kernel = params["decoder"]["Dense_0"]["kernel"]

    def log_prob(outputs, level):
        at = {"Dense_0": {"kernel": jnp.zeros_like(kernel), "bias": outputs}}
        row = {"values": jnp.full(2, level), "observed": jnp.array([True, True])}
        return model.densities.log_lik({**params, "decoder": at}, row, jnp.zeros(2))

    outputs = params["decoder"]["Dense_0"]["bias"]
    each = model.densities.decode(params, x, jnp.zeros(2)).probs  # [2, L]
    levels = max(2, column.num_levels)
    expected = jnp.zeros_like(outputs)
    for level in range(levels):
        curve = -jnp.diagonal(jax.hessian(log_prob)(outputs, float(level)))
        expected += curve * jnp.repeat(each[:, level], outputs.size // 2)
    np.testing.assert_allclose(
        q.precision_matrix - jnp.eye(2), (kernel * expected) @ kernel.T, rtol=2e-3, atol=1e-4
    )


@pytest.mark.cases(rest=None, slow=["negative_binomial"])
@pytest.mark.integration
@pytest.mark.parametrize("kind", ["poisson", "negative_binomial"])
def test_counts_are_near_the_posterior(kind):
    """One latent and ten columns: mean and scale of the posterior by quadrature, to a fifth of the
    scale.
    """
    columns = [Column(kind, scale=8.0, start=(2.0,))] * 10
    model = table_vae(columns, num_latents=1, decoder_hidden=(), guide="linearised")
    params = moved(model)
    values = jnp.asarray(np.random.default_rng(2).poisson(12.0, 10), jnp.float32)
    x = {"values": values, "observed": jnp.ones(10, bool)}
    q = model.densities.guide(params, x)
    grid = jnp.linspace(-6.0, 6.0, 4001)
    log_p = jax.vmap(lambda z: vi.losses.log_joint(model, params, x)(z[None]))(grid)
    weights = jax.nn.softmax(log_p)
    mean = float(weights @ grid)
    scale = float(jnp.sqrt(weights @ (grid - mean) ** 2))
    assert abs(float(q.loc[0]) - mean) < 0.2 * scale
    assert float(q.scale_tril[0, 0]) == pytest.approx(scale, rel=0.2)


@pytest.mark.integration
def test_a_zero_that_may_be_inflated_says_less():
    columns = [Column("zero_inflated_poisson", start=(1.0, 0.0))]
    model = table_vae(columns, num_latents=1, decoder_hidden=(), guide="linearised")
    params = moved(model)

    def precision(value):
        x = {"values": jnp.array([value]), "observed": jnp.array([True])}
        return float(model.densities.guide(params, x).precision_matrix[0, 0]) - 1.0

    given = model.densities.decode(params, None, jnp.zeros(1)).parts[0]
    gate = float(jax.nn.sigmoid(given.gate_logits[0]))
    of_base = (1.0 - gate) * float(jnp.exp(-jnp.exp(given.base.log_rate[0])))
    share = of_base / (gate + of_base)
    assert precision(0.0) / precision(3.0) == pytest.approx(share * 0.5 / 3.5, rel=1e-3)


@pytest.mark.integration
@pytest.mark.parametrize("guide", GUIDES)
def test_what_is_masked_changes_no_bit_of_bound_and_gradient(guide, no_key_check):
    model = table(SOME, guide=guide)
    params = moved(model)
    x = table_rows(4, SOME)
    loss = vi.losses.negative_elbo(model)

    @jax.jit
    def found(x):
        return jax.value_and_grad(lambda p: loss(p, jax.random.key(1), x, jnp.int32(0))[0])(params)

    expected = found(x)
    assert all_finite(expected)
    for under in (np.nan, np.inf, 1e30):
        masked = {**x, "values": jnp.where(x["observed"], x["values"], under)}
        assert tree_equal(found(masked), expected)


def test_an_encoder_of_zeros_moves_nothing():
    loc = jnp.array([0.3, -1.0])
    scale_tril = jnp.array([[0.5, 0.0], [0.2, 0.8]])
    q = _table_guide.moved(loc, scale_tril, jnp.zeros(4))
    np.testing.assert_array_equal(q.loc, loc)
    np.testing.assert_array_equal(q.scale_tril, scale_tril)


def test_a_guide_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"guides encoder, linearised, linearised_encoder; got"):
        table_vae(COLUMNS[:1], num_latents=1, guide="exact")
    with pytest.raises(ValueError, match="takes no family"):
        table_vae(COLUMNS[:1], num_latents=1, guide="linearised", family=vi.families.full_rank)
