"""Full variational Bayes over weights: a linear-Gaussian model in closed form, and the point
estimate as the limit of no variance.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys, normal
from scipy import optimize, stats

import vi_jax as vi
from vi_jax.models.local_weights import at_local_weights
from vi_jax.models.networks import mlp_decoder

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


@pytest.mark.cases(rest=None, integration=["local"])
@pytest.mark.parametrize("noise", ["local", "shared"])
def test_the_bound_of_a_bayesian_linear_regression_is_its_closed_form_and_below_its_evidence(
    noise,
):
    loss = vi.losses.full_vb(MODEL, num_data=N, prior_scale=1.3, noise=noise)
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


@pytest.mark.integration
def test_no_variance_is_the_point_estimate():
    """The gradient of the mean is that of the ELBO of the model with the weights' log prior."""
    params = params_of([0.4, -0.7], [-30.0, -30.0])
    loss = vi.losses.full_vb(MODEL, num_data=N)
    slope = jax.jit(jax.grad(lambda p: loss(p, jax.random.key(0), BATCH, jnp.int32(0))[0]))(params)
    point = vi.losses.negative_elbo(regression())

    def map_loss(weights):
        value, _ = point(weights, jax.random.key(1), BATCH, jnp.int32(0))
        return value + 0.5 * (weights["w"] ** 2).sum() / N

    wanted = jax.jit(jax.grad(map_loss))(params["mean"])
    np.testing.assert_allclose(slope["mean"]["w"], wanted["w"], rtol=1e-5)


@pytest.mark.integration
def test_a_vae_is_trained_and_evaluated_at_the_mean():
    base = vi.models.vae((3, 2), num_latents=2, hidden=(4,))
    model = vi.losses.variational_weights(base)
    params = jax.jit(model.init)(jax.random.key(0))
    x = jnp.asarray(normal(3, 8, 3, 2) > 0, jnp.float32)
    loss = vi.losses.full_vb(model, num_data=8)
    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, info), slope = both(params, jax.random.key(1), x, jnp.int32(0))
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
    np.testing.assert_array_equal(model.densities.guide(drawn, x[0]).mean, ours)  # a point
    z = jnp.zeros(2)
    changed = model.densities.decode(drawn, x[0], z).mean
    assert not np.array_equal(changed, model.densities.decode(params, x[0], z).mean)
    assert set(params["log_scale"]) == {"decoder", "likelihood"}


def columns(key, params, noise, *, batch):
    """Values and gradients in W of the loss of x | w ~ N(1 W, 1), W [3, 2] in one product."""
    network = mlp_decoder((2,), 1, 3, hidden=())

    def decode(weights, x, z):
        del z
        return dist.Normal(network.apply(weights["net"], jnp.ones(3))[:, 0], 1.0)

    unit = lambda weights, x: dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)  # noqa: E731
    log_lik = lambda weights, x, z: decode(weights, x, z).log_prob(x).sum()  # noqa: E731
    base = vi.models.from_densities(
        lambda key: {"net": network.init(key)}, unit, unit, decode, log_lik
    )
    model = vi.losses.variational_weights(base)
    loss = vi.losses.full_vb(model, num_data=10, noise=noise)

    def one(key):
        value, slope = jax.value_and_grad(lambda p: loss(p, key, batch, jnp.int32(0))[0])(params)
        return value, slope["mean"]["net"]["Dense_0"]["kernel"]

    return jax.jit(jax.vmap(one))(key)


@pytest.mark.integration
def test_local_noise_has_the_mean_of_shared_noise_and_its_variance_over_the_batch():
    """Of W's noise the gradient's variance is that of a mean of B independent samples."""
    kernel = jnp.asarray(normal(5, 3, 2), jnp.float32)
    of = lambda k, b: {"net": {"Dense_0": {"kernel": k, "bias": b}}}  # noqa: E731
    scale = of(jnp.full((3, 2), -0.7), jnp.full(2, -30.0))
    params = {"mean": of(kernel, jnp.zeros(2)), "log_scale": scale}
    batch = jnp.asarray(normal(6, 16, 2), jnp.float32)
    local, slopes = columns(keys(7, 2_000), params, "local", batch=batch)
    shared, shared_slopes = columns(keys(8, 2_000), params, "shared", batch=batch)
    mean = float(np.mean(np.asarray(local), dtype=np.float64))
    assert_mean(np.asarray(shared) - mean, 0.0)
    # d/dW of (1/B) sum_b |x_b - 1 W|^2 / 2 is linear in W, so its mean is that at the mean weights
    exact = (kernel.sum(0) - batch.mean(0))[None] + kernel / 10
    assert_mean(np.asarray(slopes), exact)
    assert_mean(np.asarray(shared_slopes), exact)
    ratio = np.var(np.asarray(shared_slopes), 0) / np.var(np.asarray(slopes), 0)
    np.testing.assert_allclose(ratio, 16, rtol=0.2)


@pytest.mark.integration
def test_local_noise_is_for_one_product_of_each_matrix():
    network = mlp_decoder((3,), 1, 3, hidden=())
    weights = {"net": network.init(jax.random.key(0))}
    scale = jax.tree.map(lambda leaf: jnp.full(leaf.shape, -2.0), weights)

    def twice(weights):
        once = network.apply(weights["net"], jnp.ones(3))[:, 0]
        return network.apply(weights["net"], once)

    with pytest.raises(ValueError, match="Take noise='shared'"):
        at_local_weights(jax.random.key(1), twice, weights, scale, weights)


def test_a_learned_prior_scale_has_the_least_kl():
    params = params_of([0.4, -0.7], [-0.8, -0.3])
    learned = float(vi.losses.weights_kl(params, prior_scale="learned"))
    scales = np.linspace(0.3, 2.0, 400)
    others = [float(vi.losses.weights_kl(params, prior_scale=float(s))) for s in scales[::40]]
    assert learned < min(others)
    best = float(np.sqrt(np.mean(np.array([0.4, -0.7]) ** 2 + np.exp([-1.6, -0.6]))))
    at_best = float(vi.losses.weights_kl(params, prior_scale=best))
    np.testing.assert_allclose(learned, at_best, rtol=1e-5)


@pytest.mark.integration
def test_a_learned_prior_of_a_matrix_has_a_scale_for_each_input_and_output():
    """Where E[w^2] is a product of both, the prior's variance is that product; and no scale of
    theirs near it has a lower KL.
    """
    inputs = np.exp(normal(10, 5))
    outputs = np.exp(normal(11, 7))
    log_scale = 0.5 * np.log(np.outer(inputs, outputs)) - 0.3
    mean = np.sqrt(np.outer(inputs, outputs) * (1 - np.exp(-0.6)))
    at_product = vi.losses.weights_kl(params_of(mean, log_scale), prior_scale="learned")
    np.testing.assert_allclose(at_product, 35 * 0.3, rtol=1e-4)  # log of each prior over q's scale
    params = params_of(normal(12, 5, 7), 0.5 * normal(13, 5, 7))
    found = float(vi.losses.weights_kl(params, prior_scale="learned"))
    second = params["mean"]["w"] ** 2 + jnp.exp(2 * params["log_scale"]["w"])

    def kl(logs):
        log_variance = logs[:5, None] + logs[5:]
        each = second * jnp.exp(-log_variance) - 1 + log_variance - 2 * params["log_scale"]["w"]
        return 0.5 * each.sum()

    best = optimize.minimize(kl, np.zeros(12), jac=jax.grad(kl))
    np.testing.assert_allclose(found, best.fun, rtol=2e-3)


@pytest.mark.integration
def test_the_kl_is_weighed_and_the_metric_is_the_bound():
    params = params_of([0.4, -0.7], [-0.8, -0.3])
    half = vi.losses.full_vb(MODEL, num_data=N, beta=vi.losses.linear_warmup(10))
    whole = vi.losses.full_vb(MODEL, num_data=N)
    value, info = half(params, jax.random.key(0), BATCH, jnp.int32(5))
    bound, same = whole(params, jax.random.key(0), BATCH, jnp.int32(5))
    np.testing.assert_allclose(info.metrics["elbo"], same.metrics["elbo"], rtol=1e-6)
    np.testing.assert_allclose(value, bound - 0.5 * same.metrics["kl_weights"], rtol=1e-5)


@pytest.mark.integration
def test_the_predictive_density_averages_densities():
    log_p = jnp.log(jnp.array([[0.1, 0.2], [0.3, 0.4]]))
    np.testing.assert_allclose(jnp.exp(vi.losses.predictive(log_p)), [0.2, 0.3], rtol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="num_data of at least 1"):
        vi.losses.full_vb(MODEL, num_data=0)
    for wrong in (0.0, "known"):
        with pytest.raises(ValueError, match="prior_scale > 0 or 'learned'"):
            vi.losses.full_vb(MODEL, num_data=1, prior_scale=wrong)
    with pytest.raises(ValueError, match="one of local, shared"):
        vi.losses.full_vb(MODEL, num_data=1, noise="global")
    with pytest.raises(ValueError, match="expects weights beside w"):
        vi.losses.variational_weights(regression(), points=("w",)).init(jax.random.key(0))
    optimal = vi.models.vae(
        (2,), num_latents=1, likelihood=vi.models.likelihoods.gaussian_optimal()
    )
    with pytest.raises(ValueError, match="has an update"):
        vi.losses.variational_weights(optimal)
