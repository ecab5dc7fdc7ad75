"""What every likelihood obeys, for each member of vi_jax/models/likelihoods: its density is that of
scipy, sums to 1, and has the mean and the samples that it says; it and its gradients are finite at
the edges of float32, and right.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_finite, assert_mean, central_differences, normal
from jax.flatten_util import ravel_pytree
from scipy import stats
from scipy.special import expit, log_softmax, logsumexp

import vi_jax as vi
from vi_jax.distributions import NegativeBinomial, Poisson, StudentT
from vi_jax.models import likelihoods

N = 3  # elements
LEVELS = 5
COUNTS = np.arange(4_000)
MIN_DF = 2.0


class Row(NamedTuple):
    """A likelihood, and its log density in scipy's words."""

    make: Any
    log_p: Any  # (own parameters, outputs [N, num_outputs], x [..., N]) -> [..., N], in float64


def zero_inflated(log_p):
    """Of the mixture with zeros, from that of the base."""

    def of_mixture(own, outputs, x):
        gate = outputs[:, 1]
        log_base = np.log(expit(-gate)) + log_p(own, outputs, x)
        return np.where(x == 0, np.logaddexp(np.log(expit(gate)), log_base), log_base)

    return of_mixture


def sigma_of(own):
    return np.exp(own["log_sigma"])


def negative_binomial(own, outputs, x):
    r = np.exp(own["log_dispersion"])
    return stats.nbinom(r, r / (r + np.exp(outputs[:, 0]))).logpmf(x)


def poisson(own, outputs, x):
    return stats.poisson(np.exp(outputs[:, 0])).logpmf(x)


def trained_gaussian(own, outputs, x):
    return stats.norm(outputs[:, 0], sigma_of(own)).logpdf(x)


def softplus_scale(output, start, floor):
    return floor + (start - floor) * np.logaddexp(0.0, output + np.log(np.e - 1))


def ordinal(own, outputs, x):
    raw = own["thresholds"]
    gaps = np.logaddexp(0.0, raw[:, 1:]) + 1e-3
    thresholds = np.concatenate([raw[:, :1], raw[:, :1] + np.cumsum(gaps, 1)], 1)
    edges = np.pad(thresholds, [(0, 0), (1, 1)], constant_values=((0, 0), (-np.inf, np.inf)))
    below = expit(edges - outputs[:, :1])
    return np.log(np.stack([np.diff(below[n])[x[..., n].astype(int)] for n in range(N)], -1))


def discretized(own, outputs, x):
    centre = (LEVELS - 1) / 2.0
    loc = centre * (1.0 + outputs[:, 0])
    scale = LEVELS * np.exp(outputs[:, 1] - 3.0)
    above = np.where(x == LEVELS - 1, 1.0, expit((x + 0.5 - loc) / scale))
    below = np.where(x == 0, 0.0, expit((x - 0.5 - loc) / scale))
    return np.log(above - below)


def mixed(own, outputs, x):
    """Of two components that start at a quarter and three quarters of the levels."""
    log_pi = log_softmax(outputs[:, :2], 1)
    of_each = [
        discretized(own, np.stack([outputs[:, 2 + k] + place, outputs[:, 4 + k]], 1), x)
        for k, place in enumerate((-0.5, 0.5))
    ]
    return logsumexp([log_pi[:, k] + each for k, each in enumerate(of_each)], 0)


def student_t(own, outputs, x):
    df = MIN_DF + np.exp(own["log_df"])
    return stats.t(df, outputs[:, 0], np.exp(own["log_scale"]) + 0.1).logpdf(x)


def classes(own, outputs, x):
    log_p = log_softmax(outputs, 1)
    return np.stack([log_p[n][x[..., n].astype(int)] for n in range(N)], -1)


# {name: Row}; every function of vi_jax.models.likelihoods has a row
ROWS = {
    "bernoulli": Row(
        likelihoods.bernoulli, lambda own, f, x: stats.bernoulli(expit(f[:, 0])).logpmf(x)
    ),
    "categorical": Row(lambda: likelihoods.categorical(LEVELS), classes),
    "discretized_logistic": Row(lambda: likelihoods.discretized_logistic(LEVELS), discretized),
    "gaussian": Row(
        lambda: likelihoods.gaussian(0.5), lambda own, f, x: stats.norm(f[:, 0], 0.5).logpdf(x)
    ),
    "gaussian_heteroscedastic": Row(
        lambda: likelihoods.gaussian_heteroscedastic(0.8, min_scale=0.05),
        lambda own, f, x: stats.norm(f[:, 0], softplus_scale(f[:, 1], 0.8, 0.05)).logpdf(x),
    ),
    "gaussian_learned": Row(likelihoods.gaussian_learned, trained_gaussian),
    "gaussian_optimal": Row(likelihoods.gaussian_optimal, trained_gaussian),
    "gaussian_per_dimension": Row(
        lambda: likelihoods.gaussian_per_dimension(np.array([0.2, 0.5, 1.0]), min_scale=0.1),
        lambda own, f, x: stats.norm(f[:, 0], 0.1 + sigma_of(own)).logpdf(x),
    ),
    "log_normal": Row(
        lambda: likelihoods.log_normal(0.5),
        lambda own, f, x: stats.lognorm(sigma_of(own), scale=np.exp(f[:, 0])).logpdf(x),
    ),
    "log_normal, heteroscedastic": Row(
        lambda: likelihoods.log_normal(0.5, min_scale=0.05, heteroscedastic=True),
        lambda own, f, x: stats.lognorm(
            softplus_scale(f[:, 1], 0.5, 0.05), scale=np.exp(f[:, 0])
        ).logpdf(x),
    ),
    "logistic_mixture": Row(lambda: likelihoods.logistic_mixture(LEVELS, num_components=2), mixed),
    "negative_binomial": Row(likelihoods.negative_binomial, negative_binomial),
    "ordinal": Row(lambda: likelihoods.ordinal(LEVELS), ordinal),
    "poisson": Row(likelihoods.poisson, poisson),
    "student_t": Row(lambda: likelihoods.student_t(0.5, min_scale=0.1), student_t),
    "student_t, heteroscedastic": Row(
        lambda: likelihoods.student_t(0.8, min_scale=0.05, heteroscedastic=True),
        lambda own, f, x: stats.t(
            MIN_DF + np.exp(own["log_df"]), f[:, 0], softplus_scale(f[:, 1], 0.8, 0.05)
        ).logpdf(x),
    ),
    "zero_inflated_negative_binomial": Row(
        likelihoods.zero_inflated_negative_binomial, zero_inflated(negative_binomial)
    ),
    "zero_inflated_poisson": Row(likelihoods.zero_inflated_poisson, zero_inflated(poisson)),
}
EDGES = {  # of x, by support
    "binary": (0.0, 1.0),
    "unit": (0.0, 1.0),
    "real": (-1e4, 0.0, 1e4),
    "positive": (1e-4, 1.0, 1e4),
    "levels": (0.0, 2.0, LEVELS - 1.0),
    "count": (0.0, 1.0, 1e6),
}
each = pytest.mark.parametrize("name", sorted(ROWS))


def at_random(name):
    """The likelihood, own parameters away from their start, and outputs [N, num_outputs]."""
    likelihood = ROWS[name].make()
    own = jax.tree.map(
        lambda leaf: leaf + 0.3 * jnp.asarray(normal(0, *leaf.shape), leaf.dtype),
        likelihood.init((N,)),
    )
    outputs = jnp.asarray(normal(1, N, likelihood.num_outputs))
    return likelihood, own, outputs


def as_numpy(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def points(support, num=200):
    """Values [num, N] over the bulk of a density, and their weights in an integral [num]."""
    if support == "levels":
        return np.tile(np.arange(float(LEVELS))[:, None], N), np.ones(LEVELS)
    if support == "binary":
        return np.tile(np.array([[0.0], [1.0]]), N), np.ones(2)
    if support == "count":
        return np.tile(COUNTS[:, None].astype(float), N), np.ones(len(COUNTS))
    t = np.linspace(-25.0, 25.0, num)
    step = t[1] - t[0]
    if support == "positive":  # x = e^t
        return np.tile(np.exp(t)[:, None], N), np.exp(t) * step
    return np.tile(np.sinh(t)[:, None], N), np.cosh(t) * step


def log_prob(likelihood, own, outputs, x):
    """As a model has it: levels are whole numbers."""
    if likelihood.support == "levels":
        x = jnp.asarray(x, jnp.int32)
    return likelihood.make(own, outputs).log_prob(x)


def test_every_likelihood_has_a_row():
    tested = {name.split(",")[0] for name in ROWS}
    assert tested == set(likelihoods.__all__) - {"Likelihood"}
    assert {row.make().support for row in ROWS.values()} <= set(EDGES)


@each
def test_its_density_is_scipys_and_sums_to_one(name, x64):
    likelihood, own, outputs = at_random(name)
    x, weights = points(likelihood.support, 20_001)
    found = np.asarray(jax.jit(lambda *args: log_prob(likelihood, *args))(own, outputs, x))
    expected = ROWS[name].log_p(as_numpy(own), np.asarray(outputs), x)
    assert found.shape == x.shape
    likely = expected > -500.0  # scipy's own differences lose their digits further out
    np.testing.assert_allclose(found[likely], expected[likely], rtol=1e-8, atol=1e-8)
    total = logsumexp(found + np.log(weights)[:, None], axis=0)
    np.testing.assert_allclose(total, 0.0, atol=1e-6)


@pytest.mark.cases(rest=None, integration=["logistic_mixture", "negative_binomial"])
@each
def test_its_mean_and_its_samples_are_those_of_its_density(name, x64):
    likelihood, own, outputs = at_random(name)
    p = likelihood.make(own, outputs)
    x, weights = points(likelihood.support, 20_001)
    density = np.exp(ROWS[name].log_p(as_numpy(own), np.asarray(outputs), x)) * weights[:, None]
    mean = (density * x).sum(0)
    drawn = np.asarray(p.sample(jax.random.key(0), (4_000,)), np.float64)
    assert drawn.shape == (4_000, N)
    assert_mean(drawn, mean)
    middle = np.round(mean) if likelihood.support in ("levels", "count", "binary") else mean
    below = np.minimum((density * (x <= middle)).sum(0), 1.0)
    stderr = np.sqrt(below * (1.0 - below) / len(drawn)) + 1.0 / len(drawn)
    assert (np.abs((drawn <= middle).mean(0) - below) < 5 * stderr).all()
    if name == "categorical":
        return  # of unordered classes numpyro has no mean
    np.testing.assert_allclose(p.mean, mean, rtol=1e-4)
    variance = (density * (x - mean) ** 2).sum(0)
    np.testing.assert_allclose(p.variance, variance, rtol=1e-3)


@pytest.mark.cases(
    rest=None,
    integration=[
        "0.0-negative_binomial",
        "0.0-logistic_mixture",
        "-12.0-negative_binomial",
        "-12.0-logistic_mixture",
    ],
)
@each
@pytest.mark.parametrize("moved", [-12.0, 0.0, 12.0])
def test_it_is_finite_at_the_edges_of_float32(name, moved):
    """Outputs of +-50, own parameters far from their start, counts of 0 and 1e6, values of 1e4."""
    likelihood = ROWS[name].make()
    own = jax.tree.map(
        lambda leaf: leaf[:1] + moved if leaf.ndim else leaf + moved, likelihood.init((N,))
    )
    corners = [(-50.0, 0.0, 50.0)] * min(likelihood.num_outputs, 2)
    outputs = np.array(list(itertools.product(*corners)), np.float32)
    outputs = np.resize(outputs.T, (likelihood.num_outputs, len(outputs))).T  # [C, num_outputs]
    x = np.array(EDGES[likelihood.support], np.float32)

    def total(own, outputs, x):
        return log_prob(likelihood, own, outputs[None], x[None])[0]

    of_all = jax.vmap(jax.vmap(jax.value_and_grad(total, (0, 1)), (None, None, 0)), (None, 0, None))
    value, gradient = jax.jit(of_all)(own, outputs, x)
    assert value.dtype == jnp.float32
    assert all_finite(value)
    assert all_finite(gradient)
    if moved == 0.0:
        assert all_finite(likelihood.make(own, outputs[0][None]).sample(jax.random.key(0), (5,)))


@each
def test_its_gradients_are_those_of_finite_differences(name, x64):
    likelihood, own, outputs = at_random(name)
    x = np.resize(np.array(EDGES[likelihood.support]) % 17.0, N) + (
        likelihood.support == "positive"
    )
    flat, unravel = ravel_pytree((own, outputs))

    @jax.jit
    def total(flat):
        own, outputs = unravel(flat)
        return log_prob(likelihood, own, outputs, x).sum()

    expected = central_differences(total, flat, 1e-5)
    if name == "gaussian_optimal":  # its sigma is moved by `update`, not by a gradient
        expected[: len(expected) - outputs.size] = 0.0
    np.testing.assert_allclose(jax.grad(total)(flat), expected, rtol=1e-5, atol=1e-6)


# --- digits that numpyro's densities lose in float32
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.5, 1e3, 1e6])
@pytest.mark.parametrize("offset", [-3.0, 0.0, 2.0])
def test_large_counts_keep_their_digits(mean, offset):
    log_mean = np.float32(np.log(mean))
    rate = np.exp(np.float64(log_mean))
    x = np.float32(max(round(rate + offset * rate**0.5), 0))
    expected = stats.poisson(rate).logpmf(x)
    np.testing.assert_allclose(Poisson(log_mean).log_prob(x), expected, atol=5e-3, rtol=1e-5)
    for log_r in np.float32([-2.0, 0.0, 5.0, 14.0, 30.0]):
        r = np.exp(np.float64(log_r))
        # the gamma mixture by its own integral where r is too large for log Gamma in float64
        expected = (
            stats.nbinom(r, r / (r + rate)).logpmf(x)
            if log_r < 20
            else stats.poisson(rate).logpmf(x)
        )
        found = NegativeBinomial(log_mean, log_r).log_prob(x)
        np.testing.assert_allclose(found, expected, atol=5e-3, rtol=1e-5)


@pytest.mark.parametrize("df", [2.5, 50.0, 1e4, 1e8, 1e20])
@pytest.mark.parametrize("x", [0.0, 3.0, -1e3, 1e25])
def test_a_student_t_of_many_degrees_of_freedom_is_a_gaussian(df, x):
    reference = stats.t(df) if df < 1e10 else stats.norm()
    if df >= 1e10 and abs(x) > 1e3:
        pytest.skip("far out it is none")
    found = StudentT(jnp.float32(df)).log_prob(jnp.float32(x))
    np.testing.assert_allclose(found, reference.logpdf(np.float64(np.float32(x))), rtol=2e-5)
    gradient = jax.grad(lambda df: StudentT(df).log_prob(jnp.float32(x)))(jnp.float32(df))
    assert jnp.isfinite(gradient)


def test_an_exposure_multiplies_the_rate_of_counts():
    """The first output is a log mean, so that log exposure is added to it."""
    for name, row in ROWS.items():
        likelihood = row.make()
        if likelihood.support == "count":
            outputs = jnp.asarray(normal(2, N, likelihood.num_outputs), jnp.float32)
            own = likelihood.init((N,))
            offset = outputs.at[:, 0].add(jnp.log(3.0))
            ratio = likelihood.make(own, offset).mean / likelihood.make(own, outputs).mean
            np.testing.assert_allclose(ratio, 3.0, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: likelihoods.gaussian(0.0),
        lambda: likelihoods.gaussian_per_dimension(0.1, min_scale=0.2),
        lambda: likelihoods.gaussian_heteroscedastic(-1.0),
        lambda: likelihoods.student_t(df_init=1.5),
        lambda: likelihoods.student_t(min_df=1.0),
        lambda: likelihoods.log_normal(0.0),
        lambda: likelihoods.negative_binomial(np.array([1.0, 0.0])),
        lambda: likelihoods.ordinal(1),
        lambda: likelihoods.ordinal(3, thresholds_init=np.array([1.0, 0.0])),
        lambda: likelihoods.ordinal(3, thresholds_init=np.array([1.0])),
    ],
)
def test_what_cannot_be_is_refused(bad):
    with pytest.raises(ValueError, match="needs"):
        bad()


def test_ordinal_thresholds_start_where_they_are_asked_to():
    asked = np.array([-1.0, 0.2, 0.3])
    likelihood = likelihoods.ordinal(4, thresholds_init=asked)
    p = likelihood.make(likelihood.init((2,)), jnp.zeros((2, 1)))
    np.testing.assert_allclose(p.thresholds, np.tile(asked, (2, 1)), rtol=1e-5)
    np.testing.assert_allclose(p.probs.sum(-1), 1.0, rtol=1e-6)


@pytest.mark.integration
def test_an_image_has_own_parameters_for_each_pixel():
    """Also those with an axis of their own, such as thresholds."""

    model = vi.models.vae((2, 3), num_latents=1, hidden=(3,), likelihood=likelihoods.ordinal(4))
    params = model.init(jax.random.key(0))
    assert params["likelihood"]["thresholds"].shape == (2, 3, 3)
    x = jnp.array([[0, 1, 2], [3, 0, 1]])
    z = jnp.ones(1)
    expected = model.densities.decode(params, None, z).log_prob(x).sum()
    np.testing.assert_allclose(model.densities.log_lik(params, x, z), expected, rtol=1e-5)
