"""ADVI against the best Gaussian by quadrature: how near it ends, and whether it says when it did
not.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from methods_helpers import X, Y, best_gaussian, log_lik, log_prior, logistic, run

import vi_jax as vi
from vi_jax.optimise import averaging, own_units

FAMILIES = {"mean_field": False, "full_rank": True}


def distance(state, method, mean, covariance):
    """Root of the symmetrised KL from a Gaussian."""
    q = method.guide(state)
    p = dist.MultivariateNormal(
        jnp.asarray(mean, jnp.float32), jnp.asarray(covariance, jnp.float32)
    )
    return float(jnp.sqrt(vi.kl_divergence(q, p) + vi.kl_divergence(p, q)))


@pytest.mark.cases(rest=None, slow=["mean_field"])
@pytest.mark.integration
@pytest.mark.parametrize("name", FAMILIES)
def test_it_stops_by_itself_where_the_best_gaussian_is(name):
    mean, covariance = best_gaussian(full_rank=FAMILIES[name])
    method = vi.methods.advi(getattr(vi.families, name))
    state, info, _ = run(jax.random.key(0), method, logistic, np.zeros(2))
    assert info.done
    assert distance(state, method, mean, covariance) < 0.1


@pytest.mark.integration
def test_a_run_that_is_too_short_says_so():
    target = vi.targets.from_log_density(logistic, 2)
    result = vi.fit(jax.random.key(0), target, vi.methods.advi(num_steps=150))
    assert not result.converged
    assert result.diagnostics.verdict == "not converged"


@pytest.mark.integration
def test_minibatches_end_at_the_answer_of_all_data():
    target = vi.targets.from_rows(log_prior, log_lik, (X, Y), 2, batch_size=10)
    mean, covariance = best_gaussian(full_rank=False)
    method = vi.methods.advi(optimizer=optax.rmsprop(0.1))
    state, info, _ = run(jax.random.key(0), method, logistic, np.zeros(2), sampled=target.sampled)
    assert info.done
    assert distance(state, method, mean, covariance) < 0.2


@pytest.mark.integration
def test_a_family_of_ones_own_without_a_closed_form():
    def init(key):
        del key
        return {"loc": jnp.zeros(2), "log_scale": jnp.zeros(2)}

    family = vi.Family(init, lambda p: dist.Laplace(p["loc"], jnp.exp(p["log_scale"])).to_event(1))
    precision = jnp.array([4.0, 0.25])

    def gaussian(u):
        return -0.5 * jnp.sum(precision * (u - 1.0) ** 2)

    method = vi.methods.advi(family)
    state, info, _ = run(jax.random.key(0), method, gaussian, np.zeros(2))
    assert info.done
    q = method.guide(state)  # in the ascent's coordinates, and still a Laplace
    loc = q.place(q.base.base_dist.loc)
    scale = q.root * q.base.base_dist.scale
    # E (z - m)^2 = 2 b^2: the ELBO -precision b^2 + log b is highest at b^2 = 1 / (2 precision)
    np.testing.assert_allclose(scale, np.sqrt(0.5 / precision), rtol=0.1)
    np.testing.assert_allclose((loc - 1.0) * np.sqrt(precision), 0, atol=0.1)
    z = jnp.array([0.4, -3.0])
    np.testing.assert_allclose(q.log_prob(z), dist.Laplace(loc, scale).log_prob(z).sum(), rtol=1e-5)


def test_a_gradient_that_is_not_finite_is_skipped():
    def sometimes(u):
        return jnp.where(u[0] > 1.5, jnp.nan, logistic(u))

    method = vi.methods.advi(num_draws=2, max_ascent=0)
    step = jax.jit(lambda key, state: method.step(key, sometimes, state))
    state = method.init(jax.random.key(0), sometimes, jnp.zeros(2))
    values = []
    for key in jax.random.split(jax.random.key(1), 40):
        state, info = step(key, state)
        values.append(float(info.value))
    assert np.isnan(values).any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.cases(rest=None, slow=["mean_field"])
@pytest.mark.integration
@pytest.mark.parametrize("name", FAMILIES)
def test_units_and_correlations_do_not_matter(name):
    """A Gaussian whose standard deviations go from 0.001 to 1000, a thousand of the narrow ones
    away.
    """
    size = 5
    rng = np.random.default_rng(0)
    sd = np.logspace(-3, 3, size)
    mix = np.linalg.qr(rng.normal(size=(size, size)))[0] if name == "full_rank" else np.eye(size)
    with jax.enable_x64(True):
        precision = jnp.asarray(mix @ np.diag(sd**-2) @ mix.T)
        mean = jnp.asarray(rng.normal(size=size))
        method = vi.methods.advi(getattr(vi.families, name))
        state, info, steps = run(
            jax.random.key(0),
            method,
            lambda u: -0.5 * (u - mean) @ precision @ (u - mean),
            np.zeros(size),
        )
        q = method.guide(state)
        root = (
            mix.T
            @ np.asarray(q.covariance_matrix if name == "full_rank" else jnp.diag(q.variance))
            @ mix
        ) / np.outer(sd, sd)
        assert info.done
        assert steps < 5000
        np.testing.assert_allclose(mix.T @ (q.mean - mean) / sd, 0, atol=0.1)
        np.testing.assert_allclose(root, np.eye(size), atol=0.15)


def random_gaussian(kind, size):
    keys = jax.random.split(jax.random.key(3), 5)
    scale = {"log_scale": jax.random.normal(keys[1], (size,))}
    tril = {
        "log_diag": jax.random.normal(keys[4], (size,)),
        "lower": jax.random.normal(keys[2], (size * (size - 1) // 2,)),
    }
    own = {
        "loc": jax.random.normal(keys[0], (size,)),
        "slope": jax.random.normal(keys[3], (size, 2)),
    }
    return own | (scale if kind == "mean_field" else tril)


@pytest.mark.cases(rest=None, slow=["full_rank"])
@pytest.mark.integration
@pytest.mark.parametrize("name", FAMILIES)
def test_a_gaussians_own_units_are_those_of_its_noise(name):
    """Moving by d in them is z = m + L (d_loc + D eps): the gradient there, by automatic
    differentiation.
    """
    size = 3
    family = getattr(vi.families, name)(3)
    params = random_gaussian(name, size)
    eps = jax.random.normal(jax.random.key(4), (size,))
    e = jnp.array([0.3, -0.7])

    def push(p, eps):
        own = {key: value for key, value in p.items() if key != "slope"}
        q = family.guide(own)
        tril = q.scale_tril if name == "full_rank" else jnp.diag(q.base_dist.scale)
        return q.mean + p["slope"] @ e + tril @ eps

    def f(z):
        return jnp.sin(z).sum() + z[0] * z[2]

    slope = jax.grad(lambda p: f(push(p, eps)))(params)
    zero = jax.tree.map(jnp.zeros_like, params)
    moved = jax.grad(lambda d: f(push(own_units.outward(params, d), eps)))(zero)
    inward = own_units.inward(params, slope)
    for key in params:
        np.testing.assert_allclose(inward[key], moved[key], rtol=1e-4, atol=1e-4, err_msg=key)
    assert jax.tree.all(
        jax.tree.map(
            lambda a, b: jnp.allclose(a, b, atol=1e-5), own_units.outward(params, zero), params
        )
    )


def blocks(series):
    step = jax.jit(lambda it, x: (averaging.add(it, x), None))
    return jax.lax.scan(step, averaging.empty(series[0]), series)[0]


@pytest.mark.integration
def test_windows_of_blocks_are_those_of_the_iterates():
    rng = np.random.default_rng(0)
    series = 100 + rng.normal(size=(1000, 3)).cumsum(0) / 30
    iterates = blocks(jnp.asarray(series, jnp.float32))
    assert iterates.width == 40  # 320 full, 640 full, 1280 not
    window = averaging.best_window(iterates)
    size = int(window.size)
    late = series[-size:]
    np.testing.assert_allclose(window.average, late.mean(0), rtol=1e-5)
    halves = late.reshape(2, size // 2, 3)
    n = size // 2
    r_hat = np.sqrt((n - 1) / n + halves.mean(1).var(0, ddof=1) / halves.var(1, ddof=1).mean(0))
    np.testing.assert_allclose(window.r_hat, r_hat.max(), rtol=1e-3)


@pytest.mark.integration
def test_a_drift_is_seen_and_noise_is_not():
    noise = jax.random.normal(jax.random.key(0), (2000, 5))
    assert averaging.best_window(blocks(noise)).r_hat < 1.05
    drift = noise.at[:, 2].add(jnp.linspace(0, 5, 2000))
    assert averaging.best_window(blocks(drift)).r_hat > 1.1
