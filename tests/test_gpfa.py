"""Gaussian-process factor analysis: chains against their kernels, the evidence against the dense
Gaussian process, and learning.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree

import vi_jax as vi
from vi_jax.chains.gaussian_chain import prior_moments
from vi_jax.models.gpfa import ORDERS, matern, time_scales
from vi_jax.models.table_vae import Column

N = 4


def kernel(name, lag, scale):
    """Matern of variance 1 (Rasmussen & Williams 2006, eq. 4.16, 4.17)."""
    r = {"matern12": 1.0, "matern32": 3**0.5, "matern52": 5**0.5}[name] * np.abs(lag) / scale
    polynomial = {"matern12": 1.0, "matern32": 1.0 + r, "matern52": 1.0 + r + r**2 / 3.0}
    return polynomial[name] * np.exp(-r)


@pytest.mark.cases(rest="slow", integration=["matern12"])
@pytest.mark.parametrize("name", sorted(ORDERS))
def test_a_chain_has_its_kernel(name):
    order = ORDERS[name]
    rate = {1: 1.0, 2: 3**0.5, 3: 5**0.5}[order]
    with jax.enable_x64(True):
        for scale in (2.0, 7.0, 200.0):
            chain = matern(order, jnp.asarray(rate / scale))
            moments = prior_moments(chain, 12)
            np.testing.assert_allclose(moments.cov[:, 0, 0], 1.0, rtol=1e-10)
            transition = np.asarray(chain.transition)
            for lag in range(12):
                across = (np.linalg.matrix_power(transition, lag) @ chain.cov)[0, 0]
                np.testing.assert_allclose(across, kernel(name, lag, scale), rtol=1e-10)
            rough = matern(order, jnp.asarray(rate / scale, jnp.float32))
            np.testing.assert_allclose(rough.noise, chain.noise, rtol=3e-6)


def model_of(**options):
    options = {"num_latents": 2, "num_passes": 1, "max_steps": 9, **options}
    return vi.models.gpfa([Column("gaussian")] * N, **options)


@pytest.mark.cases(rest=None, slow=["matern12", "matern32"])
@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(ORDERS))
def test_a_gaussian_likelihood_is_the_dense_process(name):
    """Log evidence and its gradient, time scales among it."""
    with jax.enable_x64(True):
        model = model_of(kernel=name)
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda leaf: jnp.asarray(leaf + 0.3 * rng.standard_normal(leaf.shape)),
            model.init(jax.random.key(0)),
        )
        x = {
            "values": jnp.asarray(rng.standard_normal((9, N))),
            "observed": jnp.asarray(rng.random((9, N)) < 0.8),
        }

        def ours(params):
            terms = model.terms(jax.random.key(0), params, x)
            return terms.log_lik - terms.kl["z"]

        def dense(params):
            scales = np.asarray(time_scales(params, 9.0))
            lag = np.subtract.outer(np.arange(9), np.arange(9))
            cov = sum(
                np.kron(kernel(name, lag, scale), np.outer(c, c))
                for scale, c in zip(scales, np.asarray(params["loadings"]).T, strict=True)
            )
            sigma = np.exp(np.asarray(params["likelihood"]["log_sigma"]))
            cov = cov + np.kron(np.eye(9), np.diag(sigma**2))
            rows = np.flatnonzero(np.asarray(x["observed"]).ravel())
            mean = np.tile(np.asarray(params["offset"]), 9)[rows]
            values = np.asarray(x["values"]).ravel()[rows]
            return scipy.stats.multivariate_normal(mean, cov[np.ix_(rows, rows)]).logpdf(values)

        value, gradient = jax.jit(jax.value_and_grad(ours))(params)
        np.testing.assert_allclose(value, dense(params), rtol=1e-10)
        flat, back = ravel_pytree(params)
        way = rng.standard_normal(flat.shape)
        ends = [dense(back(flat + step * way)) for step in (1e-5, -1e-5)]
        slope = ravel_pytree(gradient)[0] @ way
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


def test_time_scales_stay_within_their_bounds():
    params = {"time_scale": jnp.array([-50.0, 0.0, 50.0])}
    np.testing.assert_allclose(time_scales(params, 50.0), [2.0, 10.0, 50.0], rtol=1e-5)
    first = time_scales(model_of(max_steps=100).init(jax.random.key(0)), 100.0)
    np.testing.assert_allclose(first, [500**0.5, 5.0], rtol=1e-4)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="a kernel of matern12, matern32, matern52"):
        model_of(kernel="rbf")
    with pytest.raises(ValueError, match="num_latents"):
        model_of(num_latents=0)


@pytest.mark.integration
def test_counts_are_learned_in_closed_form_beside_the_time_scales():
    """Loadings by the update, time scales by the gradient: the ELBO rises, and both move; with a
    negative binomial its dispersion, too.
    """
    import optax

    for kind in ("poisson", "negative_binomial"):
        model = vi.models.gpfa(
            [Column(kind)] * N, num_latents=2, num_passes=4, forget=0.5, max_steps=20
        )
        rng = np.random.default_rng(0)
        signal = np.sin(np.arange(20) / 3.0 + rng.uniform(0, 6, (30, 1)))
        counts = rng.poisson(np.exp(signal[..., None] * np.array([1.0, -1.0, 0.5, 0.0])))
        x = {
            "values": jnp.asarray(counts, jnp.float32),
            "observed": jnp.ones(counts.shape, bool),
        }
        optimizer = optax.adam(0.05)
        step = jax.jit(vi.make_step(vi.losses.negative_elbo(model), optimizer))
        state = vi.init_state(jax.random.key(0), model.init, optimizer)
        first = state.params
        elbos = []
        for _ in range(25):
            state, metrics = step(state, x)
            elbos.append(float(metrics["elbo"]))
        assert elbos[-1] > elbos[0] + 3.0
        close = functools.partial(np.allclose, atol=1e-3)
        assert not close(first["time_scale"], state.params["time_scale"])
        assert not close(first["loadings"], state.params["loadings"])
        if kind == "negative_binomial":
            own = [tree["likelihood"]["log_dispersion"] for tree in (first, state.params)]
            assert not close(*own)
