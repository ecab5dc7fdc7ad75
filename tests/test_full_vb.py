"""Full variational Bayes over weights: a linear-Gaussian model in closed form, and the point
estimate as the limit of no variance.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys, normal
from scipy import stats

import vi_jax as vi

N = 6
D = 2
NOISE = 0.8
INPUTS = normal(0, N, D)
TARGETS = normal(1, N)


def regression():
    """y | a, w ~ N(a'w, s^2), with no use for its latent z: its KL is 0."""

    def log_lik(params, x, z):
        return decode(params, x, z).log_prob(x["y"])

    def decode(params, x, z):
        return dist.Normal(x["a"] @ params["w"] + 0.0 * z.sum(), NOISE)

    def unit(params, x):
        return dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)

    return vi.models.from_densities(
        lambda key: {"w": jax.random.normal(key, (D,))}, unit, unit, decode, log_lik
    )


MODEL = vi.losses.variational_weights(regression())
BATCH = {"a": jnp.asarray(INPUTS, jnp.float32), "y": jnp.asarray(TARGETS, jnp.float32)}


def params_of(mean, log_scale):
    as_leaf = lambda value: {"w": jnp.asarray(value, jnp.float32)}  # noqa: E731
    return {"mean": as_leaf(mean), "log_scale": as_leaf(log_scale)}


def elbo_in_closed_form(mean, log_scale, prior_scale):
    """Of all N targets, nats."""
    var = np.exp(2 * log_scale)
    error = (TARGETS - INPUTS @ mean) ** 2 + INPUTS**2 @ var
    log_lik = -0.5 * (error / NOISE**2 + np.log(2 * np.pi * NOISE**2))
    kl = 0.5 * ((mean**2 + var) / prior_scale**2 - 1 - np.log(var / prior_scale**2))
    return log_lik.sum() - kl.sum()


def test_the_bound_of_a_bayesian_linear_regression_is_its_closed_form_and_below_its_evidence():
    loss = vi.losses.full_vb(MODEL, num_data=N, prior_scale=1.3)
    mean = np.array([0.4, -0.7])
    log_scale = np.array([-0.8, -0.3])
    params = params_of(mean, log_scale)

    @jax.jit
    def both(params, each):
        def one(key):
            (value, _), slope = jax.value_and_grad(loss, has_aux=True)(
                params, key, BATCH, jnp.int32(0)
            )
            return value, slope

        return jax.vmap(one)(each)

    values, slopes = both(params, keys(2, 4_000))
    assert_mean(-N * np.asarray(values, np.float64), elbo_in_closed_form(mean, log_scale, 1.3))
    theta = np.concatenate([mean, log_scale])
    steps = 1e-5 * np.eye(4)
    of = lambda t: elbo_in_closed_form(t[:2], t[2:], 1.3)  # noqa: E731
    exact = np.array([(of(theta + h) - of(theta - h)) / 2e-5 for h in steps])
    assert_mean(-N * np.asarray(slopes["mean"]["w"], np.float64), exact[:2])
    assert_mean(-N * np.asarray(slopes["log_scale"]["w"], np.float64), exact[2:])
    # the evidence of all targets, and the bound where q is the best diagonal Gaussian
    cov = NOISE**2 * np.eye(N) + 1.3**2 * INPUTS @ INPUTS.T
    evidence = stats.multivariate_normal(np.zeros(N), cov).logpdf(TARGETS)
    precision = np.eye(D) / 1.3**2 + INPUTS.T @ INPUTS / NOISE**2
    best = np.linalg.solve(precision, INPUTS.T @ TARGETS) / NOISE**2
    gap = evidence - elbo_in_closed_form(best, -0.5 * np.log(np.diag(precision)), 1.3)
    # that of a diagonal q from a correlated posterior
    wanted = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    np.testing.assert_allclose(gap, wanted, rtol=1e-6)


def test_no_variance_is_the_point_estimate():
    """The gradient of the mean is that of the ELBO of the model with the weights' log prior."""
    params = params_of([0.4, -0.7], [-30.0, -30.0])
    loss = vi.losses.full_vb(MODEL, num_data=N)
    slope = jax.grad(lambda p: loss(p, jax.random.key(0), BATCH, jnp.int32(0))[0])(params)
    point = vi.losses.negative_elbo(regression())

    def map_loss(weights):
        value, _ = point(weights, jax.random.key(1), BATCH, jnp.int32(0))
        return value + 0.5 * (weights["w"] ** 2).sum() / N

    wanted = jax.grad(map_loss)(params["mean"])
    np.testing.assert_allclose(slope["mean"]["w"], wanted["w"], rtol=1e-5)


@pytest.mark.integration
def test_a_vae_is_trained_and_evaluated_at_the_mean():
    base = vi.models.vae((3, 2), num_latents=2, hidden=(4,))
    model = vi.losses.variational_weights(base)
    params = jax.jit(model.init)(jax.random.key(0))
    x = jnp.asarray(normal(3, 8, 3, 2) > 0, jnp.float32)
    loss = vi.losses.full_vb(model, num_data=8)
    (value, info), slope = jax.value_and_grad(loss, has_aux=True)(
        params, jax.random.key(1), x, jnp.int32(0)
    )
    assert np.isfinite(value)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(slope))
    np.testing.assert_allclose(
        info.metrics["elbo"],
        info.metrics["log_lik"] - info.metrics["kl"] - info.metrics["kl_weights"],
        rtol=1e-5,
    )
    ours = model.densities.guide(params, x[0]).mean
    np.testing.assert_array_equal(ours, base.densities.guide(params["mean"], x[0]).mean)
    drawn = vi.losses.draw_weights(jax.random.key(2), params)
    assert not np.array_equal(model.densities.guide(drawn, x[0]).mean, ours)


def test_the_predictive_density_averages_densities():
    log_p = jnp.log(jnp.array([[0.1, 0.2], [0.3, 0.4]]))
    np.testing.assert_allclose(jnp.exp(vi.losses.predictive(log_p)), [0.2, 0.3], rtol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="num_data of at least 1"):
        vi.losses.full_vb(MODEL, num_data=0)
    with pytest.raises(ValueError, match="prior_scale > 0"):
        vi.losses.full_vb(MODEL, num_data=1, prior_scale=0.0)
    optimal = vi.models.vae(
        (2,), num_latents=1, likelihood=vi.models.likelihoods.gaussian_optimal()
    )
    with pytest.raises(ValueError, match="has an update"):
        vi.losses.variational_weights(optimal)
