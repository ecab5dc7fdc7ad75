"""Bounds of the KL between mixtures: against quadrature, and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import all_finite, normal
from scipy import integrate, stats

import vi_jax as vi
from vi_jax.kl import kl_mixture_lower_bound, kl_mixture_upper_bound, kl_mixture_variational

# minutes: digits and bounds of KLs that test_kl.py holds to their values
pytestmark = pytest.mark.slow


def mixture(t):
    """Three normals from nine numbers."""
    return dist.MixtureSameFamily(
        dist.Categorical(logits=t[:3]), dist.Normal(t[3:6], jnp.exp(t[6:9]))
    )


def density(t):
    weights = np.exp(t[:3]) / np.exp(t[:3]).sum()
    return lambda z: sum(
        w * stats.norm(m, s).pdf(z) for w, m, s in zip(weights, t[3:6], np.exp(t[6:9]), strict=True)
    )


def by_quadrature(t, u):
    q = density(t)
    p = density(u)
    return integrate.quad(
        lambda z: q(z) * np.log(q(z) / p(z)),
        -15,
        15,
        limit=400,
        epsabs=1e-10,
        points=sorted(t[3:6]),
    )[0]


THETAS = [
    (
        np.append(normal(seed, 6), 0.4 * normal(seed + 50, 3)),
        np.append(normal(seed + 9, 6), 0.3 + 0.2 * normal(seed, 3)),
    )
    for seed in range(6)
]


@pytest.mark.parametrize("seed", range(6))
def test_the_bounds_bracket_the_divergence(seed, x64):
    t, u = THETAS[seed]
    exact = by_quadrature(t, u)
    q = mixture(jnp.asarray(t))
    p = mixture(jnp.asarray(u))
    upper = [float(kl_mixture_upper_bound(q, p, num_steps=n)) for n in (0, 1, 3, 30)]
    assert upper == sorted(upper, reverse=True)
    assert kl_mixture_lower_bound(q, p) <= exact <= upper[-1]
    assert abs(kl_mixture_variational(q, p) - exact) < upper[0] - float(
        kl_mixture_lower_bound(q, p)
    )


def test_at_no_steps_it_is_the_convexity_bound(x64):
    t, u = THETAS[0]
    q = mixture(jnp.asarray(t))
    p = mixture(jnp.asarray(u))
    terms = [
        q.mixing_distribution.probs[a]
        * p.mixing_distribution.probs[b]
        * vi.kl_divergence(
            *(
                dist.Normal(d.component_distribution.loc[i], d.component_distribution.scale[i])
                for d, i in ((q, a), (p, b))
            )
        )
        for a in range(3)
        for b in range(3)
    ]
    np.testing.assert_allclose(kl_mixture_upper_bound(q, p, num_steps=0), sum(terms), rtol=1e-10)


def test_of_itself(x64):
    q = dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.3, 0.7])), dist.Normal(jnp.array([-3.0, 3.0]), 1.0)
    )
    np.testing.assert_allclose(kl_mixture_upper_bound(q, q), 0.0, atol=1e-6)
    np.testing.assert_allclose(kl_mixture_variational(q, q), 0.0, atol=1e-12)
    assert kl_mixture_lower_bound(q, q) <= 0.0


def test_lone_distributions_are_mixtures_of_one(x64):
    q = dist.Normal(0.3, 0.5)
    p = dist.Normal(-0.4, 1.2)
    exact = vi.kl_divergence(q, p)
    np.testing.assert_allclose(kl_mixture_upper_bound(q, p), exact, rtol=1e-12)
    np.testing.assert_allclose(kl_mixture_variational(q, p), exact, rtol=1e-12)
    assert kl_mixture_lower_bound(q, p) <= exact
    many = dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.Normal(jnp.zeros(2), 1.0)
    )
    np.testing.assert_allclose(
        kl_mixture_upper_bound(q, many), vi.kl_divergence(q, dist.Normal(0.0, 1.0)), rtol=1e-10
    )


VECTORS = {
    "diagonal": lambda loc: dist.Normal(loc, 0.7).to_event(1),
    "full": lambda loc: dist.MultivariateNormal(loc, 0.5 * jnp.eye(2)),
    "low-rank": lambda loc: dist.LowRankMultivariateNormal(
        loc, jnp.ones((2, 1)), 0.5 * jnp.ones(2)
    ),
}


@pytest.mark.parametrize("kind", ["diagonal", "low-rank"])
def test_vectors_batches_and_lists(kind):
    """A batch of four guides against one prior: as a loop, and as a list of components."""
    locs = jnp.asarray(normal(3, 4, 3, 2), jnp.float32)
    weights = jnp.asarray(normal(4, 4, 3), jnp.float32)
    make = VECTORS[kind]
    q = dist.MixtureSameFamily(dist.Categorical(logits=weights), make(locs))
    p = dist.MixtureSameFamily(
        dist.Categorical(logits=jnp.zeros(2)), make(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    )
    for bound in (kl_mixture_upper_bound, kl_mixture_lower_bound, kl_mixture_variational):
        values = bound(q, p)
        assert values.shape == (4,)
        one = dist.MixtureSameFamily(dist.Categorical(logits=weights[2]), make(locs[2]))
        np.testing.assert_allclose(values[2], bound(one, p), rtol=1e-4, atol=1e-5)
        if (kind, bound) != ("diagonal", kl_mixture_variational):
            continue
        listed = [
            dist.MixtureGeneral(
                d.mixing_distribution, [make(loc) for loc in d.component_distribution.mean]
            )
            for d in (one, p)
        ]
        np.testing.assert_allclose(values[2], bound(*listed), rtol=1e-4, atol=1e-5)
    estimate = vi.kl_monte_carlo(jax.random.key(0), q, p, num_samples=4000)
    assert (kl_mixture_lower_bound(q, p) - 5 * estimate.stderr < estimate.value).all()
    assert (estimate.value < kl_mixture_upper_bound(q, p) + 5 * estimate.stderr).all()


def test_other_components():
    q = dist.MixtureSameFamily(
        dist.Categorical(logits=jnp.zeros(2)), dist.Gamma(jnp.array([1.0, 4.0]), 2.0)
    )
    p = dist.MixtureSameFamily(
        dist.Categorical(logits=jnp.zeros(2)), dist.Gamma(3.0, 1.0).expand([2])
    )
    np.testing.assert_allclose(
        kl_mixture_upper_bound(q, p, num_steps=0),
        np.mean([vi.kl_divergence(dist.Gamma(a, 2.0), dist.Gamma(3.0, 1.0)) for a in (1.0, 4.0)]),
        rtol=1e-5,
    )
    with pytest.raises(NotImplementedError, match=r"Gaussian; got Gamma.*kl_monte_carlo"):
        kl_mixture_lower_bound(q, p)


@pytest.mark.parametrize(
    "bound", [kl_mixture_upper_bound, kl_mixture_lower_bound, kl_mixture_variational]
)
def test_gradients_jit_and_far_components(bound):
    f = lambda t: bound(mixture(t[:9]), mixture(t[9:]))  # noqa: E731
    theta = jnp.asarray(np.concatenate(THETAS[0]), jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(f))(theta)
    assert all_finite((value, gradient))
    far = theta.at[3].set(1e3).at[0].set(-100.0)
    assert all_finite(jax.jit(jax.value_and_grad(f))(far))


def test_refusals():
    q = mixture(jnp.zeros(9))
    with pytest.raises(ValueError, match="0 or more; got -1"):
        kl_mixture_upper_bound(q, q, num_steps=-1)
    with pytest.raises(ValueError, match="one space"):
        kl_mixture_upper_bound(q, dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    with pytest.raises(NotImplementedError, match="make both of one kind"):
        kl_mixture_upper_bound(
            q, dist.MixtureGeneral(dist.Categorical(logits=jnp.zeros(1)), [dist.Normal(0.0, 1.0)])
        )
    with pytest.raises(NotImplementedError, match="kl_mixture_upper_bound"):
        vi.kl_divergence(q, q)
