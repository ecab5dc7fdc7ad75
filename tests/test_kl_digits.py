"""KL in float32 where naive formulas have no digits left, or no finite ones: against the same
formula in float64 or longer.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import all_finite, normal
from scipy.special import digamma, gammaln, i0e, i1e, multigammaln

import vi_jax as vi
from vi_jax.distributions import LogGamma, OneHotCategorical, PrecisionNormal
from vi_jax.distributions import special as special

# minutes: digits and bounds of KLs that test_kl.py holds to their values
pytestmark = pytest.mark.slow


def gamma_kl(a, b, c, d):
    return (a - c) * digamma(a) - gammaln(a) + gammaln(c) + c * np.log(b / d) + a * (d / b - 1)


GAMMAS = [
    (1e-3, 1.0, 1e-3, 2.0),
    (1e-3, 1.0, 5.0, 1.0),
    (5.0, 1.0, 1e-3, 1.0),
    (1e-6, 1.0, 1e-3, 1.0),
    (0.3, 1e-6, 0.2, 1e-5),
]
LARGE = [
    (1e4, 1e4, 1.01e4, 1.01e4),
    (1e6, 1.0, 1.001e6, 1.0),
    (1e6, 1e6, 1e6, 1.001e6),
    (8.0, 1.0, 8.01, 1.0),
    (7.99, 1.0, 8.0, 1.0),
]


@pytest.mark.parametrize("kind", [dist.Gamma, LogGamma, dist.InverseGamma])
@pytest.mark.parametrize("numbers", [*GAMMAS, *LARGE])
def test_gamma(kind, numbers):
    numbers = np.float32(numbers)
    expected = gamma_kl(*numbers.astype(np.float64))
    value, gradient = gamma_value_and_gradient(kind, numbers)
    np.testing.assert_allclose(value, expected, rtol=5e-4, atol=1e-10)
    assert all_finite(gradient)


def gamma_value_and_gradient(kind, numbers):
    return jax.value_and_grad(lambda t: vi.kl_divergence(kind(t[0], t[1]), kind(t[2], t[3])))(
        jnp.asarray(numbers)
    )


def dirichlet_kl(a, c):
    b = lambda x: gammaln(x).sum() - gammaln(x.sum())  # noqa: E731
    return b(c) - b(a) + ((a - c) * (digamma(a) - digamma(a.sum()))).sum()


@pytest.mark.parametrize("size", [1e-3, 0.1, 10.0, 1e4, 1e6])
def test_dirichlet_and_beta(size):
    a = np.float32(size * np.array([1.0, 2.0, 0.5]))
    c = np.float32(size * np.array([1.01, 1.98, 0.5]))
    value, gradient = jax.value_and_grad(
        lambda t: vi.kl_divergence(dist.Dirichlet(t[0]), dist.Dirichlet(t[1]))
    )(jnp.stack([a, c]))
    exact = dirichlet_kl(a.astype(np.float64), c.astype(np.float64))
    np.testing.assert_allclose(value, exact, rtol=2e-3, atol=1e-8)
    assert all_finite(gradient)
    beta = vi.kl_divergence(dist.Beta(a[0], a[1]), dist.Beta(c[0], c[1]))
    np.testing.assert_allclose(
        beta, dirichlet_kl(a[:2].astype(np.float64), c[:2].astype(np.float64)), rtol=2e-3, atol=1e-8
    )


@pytest.mark.parametrize("far", [(1e-3, 1e3), (1e3, 1e-3)])
def test_dirichlets_that_are_far_apart(far):
    a, c = (np.full(3, x, np.float32) for x in far)
    exact = dirichlet_kl(a.astype(np.float64), c.astype(np.float64))
    np.testing.assert_allclose(
        vi.kl_divergence(dist.Dirichlet(a), dist.Dirichlet(c)), exact, rtol=1e-4
    )


def von_mises_kl(k, l, gap):
    """In 64-bit long doubles' stead: by the series of 1 - A and log I0e at large k."""
    if k < 500:
        complement = 1 - i1e(k) / i0e(k)
    else:
        complement = 0.5 / k + 0.125 / k**2 + 0.125 / k**3
    turn = 2 * np.sin(gap / 2) ** 2
    return np.log(i0e(l) / i0e(k)) + (l - k) * complement + l * (1 - complement) * turn


@pytest.mark.parametrize(
    ("k", "l"),
    [(1e-3, 2e-3), (1e-6, 5.0), (3.0, 3.1), (24.9, 25.1), (1e3, 1.1e3), (1e6, 1.1e6), (1e6, 1e-3)],
)
def test_von_mises(k, l):
    k, l, gap = (float(np.float32(x)) for x in (k, l, 0.01))
    f = lambda t: vi.kl_divergence(dist.VonMises(gap, t[0]), dist.VonMises(0.0, t[1]))  # noqa: E731
    value, gradient = jax.value_and_grad(f)(jnp.array([k, l], jnp.float32))
    np.testing.assert_allclose(value, von_mises_kl(k, l, gap), rtol=1e-4, atol=2e-6)
    assert all_finite(gradient)


def test_the_bessel_ratio_where_series_and_ratio_meet(x64):
    x = np.array([1e-8, 0.1, 10.0, 24.99, 25.0, 25.01, 40.0, 1e3])
    np.testing.assert_allclose(
        special.bessel_ratio_complement(x), (i0e(x) - i1e(x)) / i0e(x), rtol=1e-11
    )


def test_stirlings_remainder_where_series_and_difference_meet(x64):
    x = np.array([1e-3, 0.5, 3.0, 7.99, 8.0, 8.01, 30.0])
    direct = gammaln(x) - (x - 0.5) * np.log(x) + x - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(special.stirling_remainder(x), direct, rtol=1e-10, atol=1e-14)
    x, y = np.meshgrid(x, x)
    direct = gammaln(x) - gammaln(y) - (x - y) * digamma(y)
    np.testing.assert_allclose(special.gammaln_divergence(x, y), direct, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        special.gammaln_gap(x, y), direct - x * np.log(x / y) + (x - y), rtol=1e-8, atol=1e-11
    )


@pytest.mark.parametrize(("x", "y"), [(1e8, 1.0001e8), (1e-15, 1e-15), (0.0, 5.0), (3.0, 2.9)])
def test_poisson(x, y):
    x = float(np.float32(x))
    y = float(np.float32(y))
    exact = y - x + (x * np.log1p((x - y) / y) if x else 0.0)
    value, gradient = jax.value_and_grad(
        lambda t: vi.kl_divergence(dist.Poisson(t[0]), dist.Poisson(t[1]))
    )(jnp.float32([x, y]))
    np.testing.assert_allclose(value, exact, rtol=1e-3, atol=1e-7)
    assert all_finite(gradient)


@pytest.mark.parametrize("far", [100.0, -100.0])
def test_one_hot_logits_far_out(far):
    logits = jnp.float32([far, 0.0, -far])
    f = lambda t: vi.kl_divergence(OneHotCategorical(t[0]), OneHotCategorical(t[1]))  # noqa: E731
    value, gradient = jax.value_and_grad(f)(jnp.stack([logits, -logits]))
    np.testing.assert_allclose(value, 200.0, rtol=1e-5)
    assert all_finite(gradient)


def test_wishart_with_many_degrees_of_freedom(x64):
    """Two near Wisharts of a million degrees of freedom, against the textbook formula in float64
    (which has 6 digits there).
    """
    n = 1e6
    m = 1.01e6
    size = 3
    expected = multigammaln(m / 2, size) - multigammaln(n / 2, size)
    expected += 0.5 * (n - m) * sum(digamma((n - i) / 2) for i in range(size))
    with jax.enable_x64(False):
        value = vi.kl_divergence(
            dist.Wishart(n, scale_tril=jnp.eye(size)), dist.Wishart(m, scale_tril=jnp.eye(size))
        )
    np.testing.assert_allclose(value, expected, rtol=1e-3)


# Gaussians over a vector.


def test_wide_low_rank_gaussians_form_no_covariance():
    """At D = 20,000 a D x D matrix is 1.6 GB: the compiled program's largest array must be far
    below.
    """
    size = 20_000
    rank = 2
    spec = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731

    def kls(loc, factor, scale):
        low = dist.LowRankMultivariateNormal(loc, factor, scale**2)
        other = dist.LowRankMultivariateNormal(-loc, 2.0 * factor, scale)
        flat = dist.Normal(loc, scale).to_event(1)
        return (
            vi.kl_divergence(low, other),
            vi.kl_divergence(flat, low),
            vi.kl_divergence(low, flat),
        )

    program = jax.make_jaxpr(jax.grad(lambda *args: sum(kls(*args)), argnums=(0, 1, 2)))(
        spec(size), spec(size, rank), spec(size)
    )
    assert largest(program.jaxpr) <= size * (rank + 2) * 2


def largest(jaxpr):
    sizes = [var.aval.size for eqn in jaxpr.eqns for var in eqn.outvars]
    inner = [
        getattr(x, "jaxpr", x)
        for eqn in jaxpr.eqns
        for x in eqn.params.values()
        if hasattr(getattr(x, "jaxpr", x), "eqns")
    ]
    return max([*sizes, *(largest(x) for x in inner)], default=0)


@pytest.mark.parametrize("ratio", [1e-3, 1.0, 1e3])
def test_low_rank_digits_in_float32(ratio):
    """A factor far above or below the diagonal part: sums of squares, not Woodbury's difference."""
    factor = np.float32(normal(0, 6, 2))
    scale = np.float32(np.exp(0.3 * normal(1, 6)) / ratio)
    q = dist.LowRankMultivariateNormal(jnp.zeros(6), factor, scale**2)
    p = dist.LowRankMultivariateNormal(jnp.full(6, 0.1), 1.1 * factor, 1.2 * scale**2)
    value = vi.kl_divergence(q, p)
    with jax.enable_x64(True):
        wide = [
            dist.LowRankMultivariateNormal(
                *(np.asarray(x, np.float64) for x in (d.loc, d.cov_factor, d.cov_diag))
            )
            for d in (q, p)
        ]
        dense = [dist.MultivariateNormal(d.loc, d.covariance_matrix) for d in wide]
        exact = vi.kl_divergence(*dense)
    np.testing.assert_allclose(value, exact, rtol=2e-3)


def test_batches_of_every_pair_of_forms_are_a_loop():
    loc = jnp.asarray(normal(2, 4, 3), jnp.float32)
    scale = jnp.exp(0.3 * jnp.asarray(normal(3, 4, 3), jnp.float32))
    tril = jax.vmap(jnp.diag)(scale) + jnp.tril(jnp.full((3, 3), 0.2), -1)
    factor = jnp.asarray(normal(4, 4, 3, 2), jnp.float32)

    def forms(loc, scale, tril, factor):
        return [
            dist.Normal(loc, scale).to_event(1),
            dist.MultivariateNormal(loc, scale_tril=tril),
            dist.LowRankMultivariateNormal(loc, factor, scale**2),
            PrecisionNormal(loc, tril),
        ]

    batch = forms(loc, scale, tril, factor)
    first = forms(loc[0], scale[0], tril[0], factor[0])
    for i, q in enumerate(batch):
        for j, p in enumerate(first):
            kl = vi.kl_divergence(q, p)
            assert kl.shape == vi.kl_divergence(p, q).shape == (4,)
            np.testing.assert_allclose(
                kl[0], vi.kl_divergence(first[i], first[j]), rtol=1e-4, atol=2e-6
            )
