"""Natural gradients: both estimators against quadrature, and the Gaussian of highest ELBO, also on
minibatches.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from methods_helpers import X, Y, best_gaussian, log_lik, log_prior, logistic, run

import vi_jax as vi
from vi_jax.methods import natural_gradient
from vi_jax.methods.natural_gradient import _price, _stein


@pytest.mark.integration
@pytest.mark.parametrize("gradient", [_stein, _price])
def test_gradients_are_those_of_the_elbo(gradient, x64):
    """b = L' dELBO/dmu and A = 2 L' dELBO/dSigma L, by Gauss-Hermite quadrature."""
    mean = jnp.array([0.3, 1.0])
    root = jnp.array([[0.7, 0.0], [0.2, 0.5]])
    nodes, weights = np.polynomial.hermite_e.hermegauss(30)
    eps = jnp.asarray(np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2))
    w = jnp.asarray(np.outer(weights, weights).ravel() / (2 * np.pi))

    def elbo(mean, root):
        return w @ jax.vmap(logistic)(mean + eps @ root.T) + jnp.log(jnp.linalg.det(root))

    b = root.T @ jax.grad(elbo)(mean, root)
    a = root.T @ jax.grad(elbo, 1)(mean, root)  # dELBO/dL = 2 dELBO/dSigma L
    draws = jax.random.normal(jax.random.key(0), (20_000, 2))
    _, b_hat, a_hat, _ = jax.jit(lambda eps: gradient(logistic, mean, root, eps))(draws)
    np.testing.assert_allclose(b_hat, b, atol=0.06)
    np.testing.assert_allclose(a_hat, 0.5 * (a + a.T), atol=0.06)


@pytest.mark.cases(rest="integration")
@pytest.mark.parametrize("sampled", [False, True])
def test_it_ends_at_the_best_gaussian(sampled):
    target = vi.targets.from_rows(log_prior, log_lik, (X, Y), 2, batch_size=10)
    mean, covariance = best_gaussian(full_rank=True)
    method = natural_gradient()
    state, info, _ = run(
        jax.random.key(0),
        method,
        logistic,
        np.zeros(2),
        sampled=target.sampled if sampled else None,
    )
    assert info.done
    q = method.guide(state)
    p = dist.MultivariateNormal(
        jnp.asarray(mean, jnp.float32), jnp.asarray(covariance, jnp.float32)
    )
    assert vi.kl_divergence(q, p) + vi.kl_divergence(p, q) < (0.06 if sampled else 0.002)


@pytest.mark.integration
def test_hessians_leave_no_noise_on_a_gaussian():
    precision = jnp.array([[2.0, 0.9], [0.9, 1.0]])
    state, info, _ = run(
        jax.random.key(0),
        natural_gradient(hessian=True, num_draws=1),
        lambda u: -0.5 * (u - 5) @ precision @ (u - 5),
        np.zeros(2),
    )
    assert info.done
    np.testing.assert_allclose(state.root @ state.root.T, jnp.linalg.inv(precision), rtol=1e-3)
    np.testing.assert_allclose(state.mean, 5, rtol=1e-3)
