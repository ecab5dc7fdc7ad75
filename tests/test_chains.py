"""Gaussian chains with information sites against the dense normal, in float64 and float32; in
chunks; as guides; and smooth kernels on long series.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_mean, keys
from jax.flatten_util import ravel_pytree

import vi_jax as vi
from vi_jax import chains

D = 3


def a_chain(seed=0, num_steps=None, dtype=jnp.float64):
    """A stable chain; with `num_steps`, one whose steps differ."""
    rng = np.random.default_rng(seed)
    shape = () if num_steps is None else (num_steps - 1,)

    def spread(*lead):
        root = rng.standard_normal((*lead, D, D))
        return 0.3 * root @ np.swapaxes(root, -1, -2) + 0.2 * np.eye(D)

    rotation = np.linalg.qr(rng.standard_normal((*shape, D, D)))[0]
    parts = (rng.standard_normal(D), spread(), 0.9 * rotation, spread(*shape))
    return chains.Chain(*(jnp.asarray(part, dtype) for part in parts))


def some_sites(num_steps, seed=1, dtype=jnp.float64):
    """Sites of rank 2 at most, of which every third says nothing."""
    rng = np.random.default_rng(seed)
    loadings = rng.standard_normal((num_steps, 2, D))
    loadings[::3] = 0.0
    J = np.einsum("tnd,tne->tde", loadings, loadings)
    h = np.einsum("tnd,tn->td", loadings, rng.standard_normal((num_steps, 2)))
    return chains.Sites(jnp.asarray(h, dtype), jnp.asarray(J, dtype))


def dense_prior(chain, num_steps):
    """Mean [T D] and covariance of a chain, by the map from its noise."""
    transitions = np.broadcast_to(chain.transition, (num_steps - 1, D, D))
    noises = np.broadcast_to(chain.noise, (num_steps - 1, D, D))
    covs = [np.asarray(chain.cov), *noises]
    mean = np.zeros((num_steps, D))
    cov = np.zeros((num_steps, D, num_steps, D))
    mean[0] = chain.mean
    cov[0, :, 0] = chain.cov
    for t in range(1, num_steps):
        mean[t] = transitions[t - 1] @ mean[t - 1]
        cov[t, :, :t] = np.einsum("ij,jsk->isk", transitions[t - 1], cov[t - 1, :, :t])
        cov[:t, :, t] = np.moveaxis(cov[t, :, :t], 0, -1)
        cov[t, :, t] = transitions[t - 1] @ cov[t - 1, :, t - 1] @ transitions[t - 1].T + covs[t]
    size = num_steps * D
    return mean.reshape(size), cov.reshape(size, size)


def dense(chain, sites):
    """Mean, covariance and log Z by the whole matrix."""
    num_steps = sites.h.shape[0]
    mean, cov = dense_prior(chain, num_steps)
    size = len(mean)
    J = np.zeros((size, size))
    for t in range(num_steps):
        J[t * D : (t + 1) * D, t * D : (t + 1) * D] = sites.J[t]
    h = np.asarray(sites.h, np.float64).reshape(size)
    pull = np.eye(size) + cov @ J
    after = np.linalg.solve(pull, cov)
    u = h - J @ mean
    log_z = h @ mean - 0.5 * mean @ J @ mean + 0.5 * u @ after @ u
    log_z -= 0.5 * np.linalg.slogdet(pull)[1]
    return mean + after @ u, after, log_z


def check(found, expected, tolerance):
    mean, cov, log_z = expected
    num_steps = found.mean.shape[0]
    blocks = cov.reshape(num_steps, D, num_steps, D)
    t = np.arange(num_steps)
    close = functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    close(found.mean, mean.reshape(num_steps, D))
    close(found.cov, blocks[t, :, t])
    close(found.cross, blocks[t[:-1], :, t[1:]])
    close(found.log_z, log_z)


SMOOTHERS = {
    "serial": jax.jit(chains.smooth),
    "chunks of 4": jax.jit(functools.partial(chains.smooth_in_chunks, chunk=4)),
    "one chunk": jax.jit(chains.smooth_in_chunks),
}


QUICK = ("serial",)  # to compile
each_smoother = pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.integration)
        for name in SMOOTHERS
    ],
)


@pytest.mark.cases(
    rest=None, slow=["float64-one chunk", "float64-chunks of 4", "float32-one chunk"]
)
@each_smoother
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_the_smoother_is_the_dense_normal(name, dtype):
    """Of 11 steps, alike or each its own, some without a site."""
    tolerance = 1e-10 if dtype == jnp.float64 else 2e-5
    with jax.enable_x64(dtype == jnp.float64):
        for chain in (a_chain(0, None, dtype), a_chain(0, 11, dtype)):
            sites = some_sites(11, 1, dtype)
            found, _ = SMOOTHERS[name](chain, sites)
            assert found.mean.dtype == dtype
            check(found, dense(chain, sites), tolerance)


@pytest.mark.cases(rest=None, slow=["1-one chunk", "2-one chunk", "5-one chunk", "1-chunks of 4"])
@each_smoother
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_lengths_that_are_no_whole_chunks(name, num_steps):
    with jax.enable_x64(True):
        chain = a_chain()
        sites = some_sites(num_steps)
        found, _ = SMOOTHERS[name](chain, sites)
        check(found, dense(chain, sites), 1e-10)


@pytest.mark.integration
def test_the_gradient_of_log_z():
    """By autodiff through the filter, and by finite differences of the dense normal."""
    with jax.enable_x64(True):
        both = (a_chain(), some_sites(6))
        gradient = gradient_of(chains.log_normalizer, both)
        flat, back = ravel_pytree(both)
        rng = np.random.default_rng(0)
        for _ in range(5):
            way = symmetrised(back(jnp.asarray(rng.standard_normal(flat.shape))))
            way = ravel_pytree(way)[0]
            ends = [dense(*back(flat + step * way))[2] for step in (1e-5, -1e-5)]
            slope = ravel_pytree(gradient)[0] @ way
            np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


@pytest.mark.integration
def test_the_gradient_through_scans_is_that_of_the_filter():
    with jax.enable_x64(True):
        both = (a_chain(), some_sites(6))
        first = gradient_of(chains.log_normalizer, both)
        for smoother in (chains.smooth, functools.partial(chains.smooth_in_chunks, chunk=4)):
            again = gradient_of(lambda chain, sites, s=smoother: s(chain, sites)[0].log_z, both)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), first, again)


def gradient_of(log_z, both):
    """Of a function of a chain and sites, along symmetric matrices."""
    return symmetrised(jax.jit(jax.grad(lambda both: log_z(*both)))(both))


def symmetrised(both):
    chain, sites = both
    half = lambda x: 0.5 * (x + jnp.swapaxes(x, -1, -2))  # noqa: E731
    chain = chain._replace(cov=half(chain.cov), noise=half(chain.noise))
    return chain, sites._replace(J=half(sites.J))


@pytest.mark.integration
def test_a_chain_is_a_guide():
    """Density, samples and moments of the posterior and of the prior are those of dense normals."""
    with jax.enable_x64(True):
        chain = a_chain()
        sites = some_sites(5)
        for q in (chains.gaussian_chain(chain, sites), chains.gaussian_chain(chain, num_steps=5)):
            if q.posterior is None:
                mean, cov = dense_prior(chain, 5)
            else:
                mean, cov, _ = dense(chain, sites)
            np.testing.assert_allclose(q.mean.ravel(), mean, atol=1e-10)
            np.testing.assert_allclose(q.variance.ravel(), np.diag(cov), atol=1e-10)
            z = q.sample(jax.random.key(0), (4_000,))
            assert z.shape == (4_000, *q.event_shape)
            flat = np.asarray(z).reshape(4_000, -1)
            assert_mean(flat, mean)
            centred = flat - mean
            assert_mean(centred[:, :, None] * centred[:, None], cov)
            oracle = scipy.stats.multivariate_normal(mean, cov).logpdf(flat[:5])
            np.testing.assert_allclose(q.log_prob(z[:5]), oracle, rtol=1e-10)
            with pytest.raises(ValueError, match="over arrays of shape"):
                q.log_prob(z[0, :3])


@pytest.mark.integration
def test_samples_are_reparameterised():
    """The gradient of E[sum z^2] through samples is that of the moments."""
    with jax.enable_x64(True):
        chain = a_chain()
        sites = some_sites(4)
        sites = sites._replace(J=sites.J + 0.1 * jnp.diag(jnp.arange(1.0, D + 1)))

        def by_samples(key, h):
            q = chains.gaussian_chain(chain, sites._replace(h=h))
            return jnp.sum(q.sample(key) ** 2)

        def by_moments(h):
            q = chains.gaussian_chain(chain, sites._replace(h=h))
            return jnp.sum(q.mean**2 + q.variance)

        drawn = jax.jit(jax.vmap(jax.grad(by_samples, 1), (0, None)))(keys(0, 2_000), sites.h)
        assert_mean(drawn, jax.grad(by_moments)(sites.h))


@pytest.mark.integration
def test_the_closed_kl():
    """Of a posterior from its prior, from another chain's posterior, and from itself."""
    with jax.enable_x64(True):
        chain = a_chain()
        sites = some_sites(5)
        other = a_chain(3)
        q = chains.gaussian_chain(chain, sites)
        same = jax.tree.map(lambda leaf: leaf + 0.0, chain)
        ends = {
            "prior": chains.gaussian_chain(chain, num_steps=5),
            "the same prior in other arrays": chains.gaussian_chain(same, num_steps=5),
            "another prior": chains.gaussian_chain(other, num_steps=5),
            "another posterior": chains.gaussian_chain(other, some_sites(5, 2)),
        }
        for p in ends.values():
            mean_p, cov_p = dense_prior(p.chain, 5)
            if p.posterior is not None:
                mean_p, cov_p, _ = dense(p.chain, p.posterior.sites)
            mean_q, cov_q, _ = dense(chain, sites)
            solved = np.linalg.solve(cov_p, cov_q)
            off = mean_p - mean_q
            kl = np.trace(solved) - len(off) + off @ np.linalg.solve(cov_p, off)
            kl -= np.linalg.slogdet(solved)[1]
            np.testing.assert_allclose(vi.kl_divergence(q, p), 0.5 * kl, rtol=1e-9)
        np.testing.assert_allclose(vi.kl_divergence(q, q), 0.0, atol=1e-12)


def test_what_cannot_be_is_refused():
    chain = a_chain(dtype=jnp.float32)
    with pytest.raises(ValueError, match="either sites or num_steps"):
        chains.gaussian_chain(chain)
    with pytest.raises(ValueError, match="at least one step"):
        chains.smooth_in_chunks(chain, chains.no_sites(3, D), chunk=0)


def matern(num_steps, dtype):
    """Matern-3/2 of 200 ms in bins of 1 ms, and sites as of 30 Poisson neurons at 5 Hz."""
    rate = 3**0.5 / 200.0
    transition = np.exp(-rate) * np.array([[1.0 + rate, rate], [-rate, 1.0 - rate]])
    cov = np.eye(2)
    noise = cov - transition @ cov @ transition.T
    chain = chains.Chain(np.zeros(2), cov, transition, noise)
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal(30)
    t = np.arange(num_steps)
    log_rate = np.log(0.005) + loadings[:, None] * np.sin(2 * np.pi * t / 400)
    y = rng.poisson(np.exp(log_rate))
    J = np.zeros((num_steps, 2, 2))
    J[:, 0, 0] = (loadings**2) @ np.exp(log_rate)
    h = np.zeros((num_steps, 2))
    h[:, 0] = loadings @ (y - np.exp(log_rate)) + J[:, 0, 0] * np.sin(2 * np.pi * t / 400)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (chain, chains.Sites(h, J)))


@pytest.mark.cases(rest=None, slow=["one chunk"])
@each_smoother
def test_smooth_kernels_in_float32(name):
    """10,000 steps: within 1e-4 posterior SD and 1e-2 nats of float64."""
    with jax.enable_x64(True):
        exact, _ = SMOOTHERS["serial"](*matern(10_000, jnp.float64))
        rough, _ = SMOOTHERS[name](*matern(10_000, jnp.float32))
    (exact, rough) = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (exact, rough))
    sd = np.sqrt(exact.cov[:, 0, 0])
    assert (np.abs(rough.mean - exact.mean)[:, 0] / sd).max() < 1e-4
    assert abs(rough.log_z - exact.log_z) < 1e-2
    np.testing.assert_allclose(np.sqrt(rough.cov[:, 0, 0]), sd, rtol=1e-4)
