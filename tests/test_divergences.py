"""Rényi and alpha divergences against quadrature and sums, Wasserstein-2 against scipy's matrix
square root; gradients included.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import all_finite, central_differences, normal
from scipy import integrate, linalg, stats
from scipy.special import expit, softmax

import vi_jax as vi
from vi_jax.distributions import LogDirichlet, LogGamma, OneHotCategorical, PrecisionNormal
from vi_jax.divergences import (
    alpha_divergence,
    renyi_divergence,
    wasserstein2,
    wasserstein2_squared,
)


def by_quadrature(q, p, alpha):
    """1 / (alpha - 1) log of the integral of q^alpha p^(1 - alpha), between far quantiles of q."""
    marks = q.ppf([1e-18, 1e-12, 1e-6, 1e-2, 0.5, 1 - 1e-2, 1 - 1e-6, 1 - 1e-12, 1 - 1e-15])
    term = lambda z: np.exp(alpha * q.logpdf(z) + (1 - alpha) * p.logpdf(z))  # noqa: E731
    area = sum(integrate.quad(term, *ab, epsabs=0, epsrel=1e-10)[0] for ab in pairwise(marks))
    return np.log(area) / (alpha - 1)


def by_sum(x, y, alpha):
    return np.log((x**alpha * y ** (1 - alpha)).sum()) / (alpha - 1)


def by_dirichlet_integral(a, c, alpha):
    """Two independent beta integrals over a stick-breaking grid: Gauss-Legendre over the
    triangle.
    """
    side, weight = np.polynomial.legendre.leggauss(150)
    u, v = np.meshgrid((side + 1) / 2, (side + 1) / 2, indexing="ij")
    z = np.stack([u, (1 - u) * v, (1 - u) * (1 - v)]).reshape(3, -1)
    z = z / z.sum(0)
    log_q, log_p = (stats.dirichlet(x).logpdf(z).reshape(u.shape) for x in (a, c))
    return np.log(
        (np.outer(weight, weight) / 4 * (1 - u) * np.exp(alpha * log_q + (1 - alpha) * log_p)).sum()
    ) / (alpha - 1)


def by_dense_algebra(mq, sq, mp, sp, alpha):
    """Gil, Alajaji & Linder (2013), table 2."""
    mixed = alpha * sp + (1 - alpha) * sq
    log_det = [np.linalg.slogdet(x)[1] for x in (mixed, sq, sp)]
    gap = mq - mp
    determinants = (log_det[0] - (1 - alpha) * log_det[1] - alpha * log_det[2]) / (2 * (alpha - 1))
    return 0.5 * alpha * gap @ np.linalg.solve(mixed, gap) - determinants


def covariance(t):
    tril = np.diag(np.exp(t[2:4]))
    tril[1, 0] = t[4]
    return tril @ tril.T


def full(t):
    return dist.MultivariateNormal(t[:2], scale_tril=jnp.diag(jnp.exp(t[2:4])).at[1, 0].set(t[4]))


def inverse_form(t):
    """The same Gaussian by the factor of its precision."""
    return PrecisionNormal(t[:2], jnp.linalg.cholesky(jnp.linalg.inv(full(t).covariance_matrix)))


def scalars(make, frozen):
    return lambda t: (make(*t[:2]), make(*t[2:])), lambda t, alpha: by_quadrature(
        frozen(*t[:2]), frozen(*t[2:]), alpha
    )


exp = np.exp
CASES = {
    "normal": (
        *scalars(lambda m, s: dist.Normal(m, jnp.exp(s)), lambda m, s: stats.norm(m, exp(s))),
        [0.3, -0.5, -0.4, 0.2],
    ),
    "log-normal": (
        *scalars(
            lambda m, s: dist.LogNormal(m, jnp.exp(s)),
            lambda m, s: stats.lognorm(exp(s), scale=exp(m)),
        ),
        [0.3, -0.5, -0.1, -0.3],
    ),
    "gamma": (
        *scalars(
            lambda a, b: dist.Gamma(jnp.exp(a), jnp.exp(b)),
            lambda a, b: stats.gamma(exp(a), scale=exp(-b)),
        ),
        [0.9, 0.4, 0.5, -0.3],
    ),
    "log-gamma": (
        *scalars(
            lambda a, b: LogGamma(jnp.exp(a), jnp.exp(b)),
            lambda a, b: stats.loggamma(exp(a), loc=-b),
        ),
        [0.9, 0.4, 0.5, -0.3],
    ),
    "inverse gamma": (
        *scalars(
            lambda a, b: dist.InverseGamma(jnp.exp(a), jnp.exp(b)),
            lambda a, b: stats.invgamma(exp(a), scale=exp(b)),
        ),
        [2.4, 0.4, 2.0, -0.3],
    ),
    "beta": (
        *scalars(
            lambda a, b: dist.Beta(jnp.exp(a), jnp.exp(b)), lambda a, b: stats.beta(exp(a), exp(b))
        ),
        [0.9, 0.8, 0.4, 0.6],
    ),
    "exponential": (
        lambda t: (dist.Exponential(jnp.exp(t[0])), dist.Exponential(jnp.exp(t[1]))),
        lambda t, alpha: by_quadrature(
            stats.expon(scale=exp(-t[0])), stats.expon(scale=exp(-t[1])), alpha
        ),
        [0.5, -0.3],
    ),
    "poisson": (
        lambda t: (dist.Poisson(jnp.exp(t[0])), dist.Poisson(jnp.exp(t[1]))),
        lambda t, alpha: by_sum(*(stats.poisson(exp(x)).pmf(np.arange(80)) for x in t), alpha),
        [1.2, 0.7],
    ),
    "dirichlet": (
        lambda t: (dist.Dirichlet(jnp.exp(t[:3])), dist.Dirichlet(jnp.exp(t[3:]))),
        lambda t, alpha: by_dirichlet_integral(exp(t[:3]), exp(t[3:]), alpha),
        np.log([4.0, 3.0, 5.0, 3.0, 3.5, 4.0]),
    ),
    "log-dirichlet": (
        lambda t: (LogDirichlet(jnp.exp(t[:3])), LogDirichlet(jnp.exp(t[3:]))),
        lambda t, alpha: by_dirichlet_integral(exp(t[:3]), exp(t[3:]), alpha),
        np.log([4.0, 3.0, 5.0, 3.0, 3.5, 4.0]),
    ),
    "bernoulli": (
        lambda t: (dist.Bernoulli(logits=t[0]), dist.Bernoulli(probs=jax.nn.sigmoid(t[1]))),
        lambda t, alpha: by_sum(*(np.array([expit(x), expit(-x)]) for x in t), alpha),
        [0.4, -1.1],
    ),
    "categorical": (
        lambda t: (dist.Categorical(logits=t[:3]), dist.Categorical(probs=jax.nn.softmax(t[3:]))),
        lambda t, alpha: by_sum(softmax(t[:3]), softmax(t[3:]), alpha),
        [0.4, -1.1, 0.3, 1.0, 0.2, -0.7],
    ),
    "one-hot": (
        lambda t: (OneHotCategorical(t[:3]), OneHotCategorical(t[3:])),
        lambda t, alpha: by_sum(softmax(t[:3]), softmax(t[3:]), alpha),
        [0.4, -1.1, 0.3, 1.0, 0.2, -0.7],
    ),
    "independent": (
        lambda t: tuple(dist.Normal(t[i : i + 2], 1.0).to_event(1) for i in (0, 2)),
        lambda t, alpha: 0.5 * alpha * ((np.asarray(t[:2]) - t[2:]) ** 2).sum(),
        [0.3, 0.2, -0.4, 0.2],
    ),
    "vectors": (
        lambda t: (full(t[:5]), inverse_form(t[5:])),
        lambda t, alpha: by_dense_algebra(
            t[:2], covariance(t[:5]), t[5:7], covariance(t[5:]), alpha
        ),
        [0.3, 0.2, -0.4, -0.2, 0.3, -0.3, 0.1, 0.1, 0.2, -0.2],
    ),
}


@pytest.mark.cases(
    rest=None, integration=["beta", "inverse gamma", "dirichlet", "log-dirichlet", "log-gamma"]
)
@pytest.mark.parametrize("name", sorted(CASES))
def test_renyi_is_the_integral_and_so_is_its_gradient(name, x64):
    make, oracle, theta = CASES[name]
    theta = np.asarray(theta, np.float64)
    value, gradient = jax.jit(jax.value_and_grad(lambda t: renyi_divergence(*make(t), alpha=1.3)))(
        theta
    )
    np.testing.assert_allclose(value, oracle(theta, 1.3), rtol=1e-7)
    np.testing.assert_allclose(
        gradient, central_differences(lambda t: oracle(t, 1.3), theta), rtol=1e-4, atol=1e-6
    )


@pytest.mark.cases(
    rest=None,
    integration=["beta", "dirichlet", "gamma", "log-dirichlet", "log-gamma", "inverse gamma"],
)
@pytest.mark.parametrize("name", sorted(CASES))
def test_renyi_below_one_and_its_limits(name, x64):
    make, oracle, theta = CASES[name]
    theta = np.asarray(theta, np.float64)
    q, p = make(jnp.asarray(theta))
    np.testing.assert_allclose(renyi_divergence(q, p, alpha=0.4), oracle(theta, 0.4), rtol=1e-7)
    kl = vi.kl_divergence(q, p)
    np.testing.assert_allclose(renyi_divergence(q, p, alpha=1.0), kl, rtol=1e-12)
    np.testing.assert_allclose(renyi_divergence(q, p, alpha=1.0 + 1e-6), kl, rtol=1e-4)
    np.testing.assert_allclose(renyi_divergence(q, p, alpha=1.0 - 1e-6), kl, rtol=1e-4)
    assert abs(renyi_divergence(q, q, alpha=0.4)) < 1e-12
    # skew symmetry, (1 - a) D_a(q || p) = a D_(1 - a)(p || q)
    np.testing.assert_allclose(
        0.6 * renyi_divergence(q, p, alpha=0.4), 0.4 * renyi_divergence(p, q, alpha=0.6), rtol=1e-9
    )
    rising = [float(renyi_divergence(q, p, alpha=a)) for a in (0.2, 0.6, 0.95, 1.0, 1.05, 1.3)]
    assert rising[0] >= 0
    assert rising == sorted(rising)


def test_alpha_divergence(x64):
    q = dist.Normal(0.3, 0.6)
    p = dist.Normal(-0.4, 1.2)
    fq = stats.norm(0.3, 0.6)
    fp = stats.norm(-0.4, 1.2)
    for alpha in (0.3, 0.5, 1.2):
        area = integrate.quad(
            lambda z, a=alpha: fq.pdf(z) ** a * fp.pdf(z) ** (1 - a), -9, 9, epsabs=1e-13
        )[0]
        np.testing.assert_allclose(
            alpha_divergence(q, p, alpha=alpha), (1 - area) / (alpha * (1 - alpha)), rtol=1e-9
        )
    np.testing.assert_allclose(alpha_divergence(q, p, alpha=1.0), vi.kl_divergence(q, p))
    np.testing.assert_allclose(alpha_divergence(q, p, alpha=0.0), vi.kl_divergence(p, q))
    np.testing.assert_allclose(
        alpha_divergence(q, p, alpha=1e-5), vi.kl_divergence(p, q), rtol=1e-4
    )


FAR = {
    "normal": (dist.Normal(0.0, 2.0), dist.Normal(0.0, 1.0)),  # 2 * 1 - 4 < 0
    "edge": (dist.Normal(0.0, 2.0**0.5), dist.Normal(1.0, 1.0)),
    "gamma": (dist.Gamma(1.0, 1.0), dist.Gamma(2.5, 1.0)),
    "gamma rate": (dist.Gamma(1.0, 1.0), dist.Gamma(1.0, 2.5)),
    "beta": (dist.Beta(1.0, 1.0), dist.Beta(1.0, 3.0)),
    "exponential": (dist.Exponential(1.0), dist.Exponential(2.5)),
    "dirichlet": (dist.Dirichlet(jnp.ones(3)), dist.Dirichlet(jnp.array([1.0, 1.0, 3.0]))),
    "vectors": (
        dist.MultivariateNormal(jnp.zeros(2), 4 * jnp.eye(2)),
        dist.Normal(jnp.zeros(2), 1.0).to_event(1),
    ),
    "categorical": (
        dist.Categorical(probs=jnp.array([0.5, 0.5])),
        dist.Categorical(probs=jnp.array([1.0, 0.0])),
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(FAR))
def test_renyi_is_infinite_where_the_integral_diverges(name):
    q, p = FAR[name]
    assert renyi_divergence(q, p, alpha=2.0) == np.inf
    assert np.isfinite(renyi_divergence(q, p, alpha=0.5))


@pytest.mark.integration
def test_one_row_that_diverges_spoils_no_gradient_of_the_others():
    f = lambda s: renyi_divergence(dist.Normal(0.0, s), dist.Normal(0.5, 1.0), alpha=2.0)  # noqa: E731
    scales = jnp.array([0.5, 3.0])
    value = jax.vmap(f)(scales)
    assert (np.isfinite(value) == [True, False]).all()
    assert all_finite(jax.vmap(jax.grad(f))(scales))


def test_classes_that_q_never_takes():
    q = dist.Categorical(probs=jnp.array([0.5, 0.5, 0.0]))
    p = dist.Categorical(probs=jnp.array([0.25, 0.5, 0.25]))
    np.testing.assert_allclose(
        renyi_divergence(q, p, alpha=2.0), np.log(0.25 / 0.25 + 0.25 / 0.5), rtol=1e-6
    )
    np.testing.assert_allclose(renyi_divergence(q, q, alpha=2.0), 0.0, atol=1e-6)


@pytest.mark.slow
def test_renyi_batches():
    q = dist.Normal(jnp.zeros((4, 3)), 0.5).to_event(1)
    p = dist.Normal(0.0, 1.0).expand([3]).to_event(1)
    assert renyi_divergence(q, p, alpha=0.5).shape == (4,)
    q = dist.MultivariateNormal(jnp.zeros((4, 3)), jnp.eye(3))
    assert renyi_divergence(q, p, alpha=0.5).shape == (4,)
    np.testing.assert_allclose(renyi_divergence(q, p, alpha=0.5), 0.0, atol=1e-6)
    prior = dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)).expand([4])
    assert (
        renyi_divergence(prior, p, alpha=0.5).shape == wasserstein2_squared(prior, p).shape == (4,)
    )


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.inf])
def test_orders_out_of_range_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha above 0"):
        renyi_divergence(*FAR["normal"], alpha=alpha)


def test_unknown_pairs_are_refused():
    with pytest.raises(NotImplementedError, match=r"Normal and Laplace.*estimate it"):
        renyi_divergence(dist.Normal(0.0, 1.0), dist.Laplace(0.0, 1.0), alpha=0.5)
    with pytest.raises(NotImplementedError, match="between Gaussians only; got Gamma"):
        wasserstein2_squared(dist.Gamma(1.0, 1.0), dist.Gamma(2.0, 1.0))
    for f in (lambda q, p: renyi_divergence(q, p, alpha=0.5), wasserstein2_squared):
        with pytest.raises(ValueError, match="event shapes"):
            f(dist.Normal(0.0, 1.0), dist.Normal(jnp.zeros(2), 1.0).to_event(1))


# Wasserstein-2.


def by_matrix_root(mq, sq, mp, sp):
    root = linalg.sqrtm(sq)
    return ((mq - mp) ** 2).sum() + np.trace(sq + sp - 2 * linalg.sqrtm(root @ sp @ root).real)


def low_rank(t):
    return dist.LowRankMultivariateNormal(
        t[:2], t[4:5, None] * jnp.ones((2, 1)), jnp.exp(2 * t[2:4])
    )


def low_rank_covariance(t):
    return np.diag(np.exp(2 * t[2:4])) + t[4] ** 2


FORMS = {
    "full": (full, covariance),
    "precision": (inverse_form, covariance),
    "low-rank": (low_rank, low_rank_covariance),
}


@pytest.mark.parametrize(
    ("one", "other"), [("full", "full"), ("full", "low-rank"), ("low-rank", "precision")]
)
def test_wasserstein_is_that_of_matrix_roots(one, other, x64):
    (make_q, cov_q) = FORMS[one]
    (make_p, cov_p) = FORMS[other]
    oracle = lambda t: by_matrix_root(t[:2], cov_q(t[:5]), t[5:7], cov_p(t[5:]))  # noqa: E731
    theta = 0.5 * normal(0, 10)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda t: wasserstein2_squared(make_q(t[:5]), make_p(t[5:])))
    )(theta)
    np.testing.assert_allclose(value, oracle(theta), rtol=1e-9)
    np.testing.assert_allclose(gradient, central_differences(oracle, theta), rtol=1e-5, atol=1e-7)


def test_wasserstein_of_scalars_is_that_of_quantiles(x64):
    area = integrate.quad(
        lambda u: (stats.norm(0.3, 0.5).ppf(u) - stats.norm(-0.4, 1.2).ppf(u)) ** 2, 0, 1, limit=200
    )[0]
    np.testing.assert_allclose(
        wasserstein2_squared(dist.Normal(0.3, 0.5), dist.Normal(-0.4, 1.2)), area, rtol=1e-6
    )
    np.testing.assert_allclose(
        wasserstein2(dist.Normal(0.3, 0.5), dist.Normal(-0.4, 1.2)), area**0.5, rtol=1e-6
    )


@pytest.mark.integration
def test_wasserstein_batches_and_the_diagonal_is_the_full_one():
    loc = jnp.asarray(normal(1, 4, 3), jnp.float32)
    scale = jnp.exp(jnp.asarray(normal(2, 4, 3), jnp.float32))
    q = dist.Normal(loc, scale).to_event(1)
    p = dist.Normal(0.0, 1.0).expand([3]).to_event(1)
    dense = dist.MultivariateNormal(loc, scale_tril=jax.vmap(jnp.diag)(scale))
    for other in (p, dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3))):
        for one in (q, dense):
            assert wasserstein2_squared(one, other).shape == (4,)
            np.testing.assert_allclose(
                wasserstein2_squared(one, other), (loc**2 + (scale - 1) ** 2).sum(-1), rtol=1e-4
            )


def test_wasserstein_of_itself():
    q = dist.Normal(jnp.ones(2), 2.0).to_event(1)
    assert wasserstein2(q, q) == 0.0
    assert jax.grad(lambda m: wasserstein2(dist.Normal(m, 2.0), dist.Normal(1.0, 2.0)))(1.0) == 0.0
