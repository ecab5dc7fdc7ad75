"""Guides over constrained supports: draws lie within, densities account for the change of
variables.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import all_finite, assert_mean, normal
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints
from scipy import stats

import vi_jax as vi

# (constraint, shape, the coordinates of one z that the density is over, a density to compare with)
SUPPORTS = {
    "real": (constraints.real, (2,), lambda z: z, dist.Normal(0.2, 0.7).expand((2,)).to_event(1)),
    "positive": (
        constraints.positive,
        (2,),
        lambda z: z,
        dist.Gamma(4.0, 3.0).expand((2,)).to_event(1),
    ),
    "unit_interval": (
        constraints.unit_interval,
        (2,),
        lambda z: z,
        dist.Beta(3.0, 4.0).expand((2,)).to_event(1),
    ),
    "simplex": (
        constraints.simplex,
        (3,),
        lambda z: z[:-1],
        dist.Dirichlet(jnp.array([4.0, 5.0, 6.0])),
    ),
    "ordered_vector": (constraints.ordered_vector, (3,), lambda z: z, None),
    "corr_cholesky": (
        constraints.corr_cholesky,
        (3, 3),
        lambda z: z[jnp.tril_indices(3, -1)],
        dist.LKJCholesky(3, 3.0),
    ),
}


def some_guide(example, base=vi.families.mean_field, size=0.3):
    family = vi.families.constrained(example, base=base)
    row, unravel = ravel_pytree(family.init(jax.random.key(0)))
    return family.guide(unravel(jnp.asarray(size * normal(0, row.size), row.dtype)))


@pytest.mark.integration
def test_draws_lie_within_and_densities_are_those_of_the_jacobian(x64):
    """All supports in one guide, whose Jacobian is then taken whole."""
    q = some_guide(
        {name: (constraint, shape) for name, (constraint, shape, *_) in SUPPORTS.items()},
        vi.families.full_rank,
    )

    def free_coordinates(x):
        z = q.constrain(x)[0]
        return jnp.concatenate(
            [coordinates(z[name]) for name, (_, _, coordinates, _) in SUPPORTS.items()]
        )

    @jax.jit
    def compute(q, key, same_key):
        z, log_q = q.sample_and_log_prob(key, (50,))
        x = jax.vmap(q.unconstrain)(z)
        expected = (
            jax.vmap(q.base.log_prob)(x)
            - jnp.linalg.slogdet(jax.vmap(jax.jacfwd(free_coordinates))(x))[1]
        )
        return z, q.sample(same_key, (50,)), log_q, q.log_prob(z), expected

    z, again, log_q, log_q_there, expected = compute(q, jax.random.key(1), jax.random.key(1))
    for name, (constraint, shape, *_) in SUPPORTS.items():
        assert z[name].shape == (50, *shape)
        assert bool(jnp.all(constraint(z[name])))
        np.testing.assert_array_equal(again[name], z[name])
    np.testing.assert_allclose(log_q, expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(log_q_there, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.integration
def test_importance_weights_have_mean_one(x64):
    """E_q[p / q] = 1 for numpyro's p on the same support: the two are densities in the same
    coordinates.
    """
    named = {name: support for name, support in SUPPORTS.items() if support[3] is not None}
    guides = {
        name: some_guide({"z": (constraint, shape)})
        for name, (constraint, shape, *_) in named.items()
    }

    @jax.jit
    def weights(guides):
        def of(name):
            z, log_q = guides[name].sample_and_log_prob(jax.random.key(2), (10_000,))
            return jnp.exp(named[name][3].log_prob(z["z"]) - log_q)

        return {name: of(name) for name in named}

    for name, weight in weights(guides).items():
        assert weight.std() > 0.01, name  # p is not q
        assert_mean(weight, 1.0)


@pytest.mark.integration
def test_densities_integrate_to_one(x64):
    positive = some_guide({"z": (constraints.positive, ())})
    z = np.exp(np.linspace(-9, 9, 4001))
    density = np.exp(positive.log_prob({"z": jnp.asarray(z)}))
    np.testing.assert_allclose(np.trapezoid(density, z), 1.0, rtol=1e-5)
    base = positive.base.base_dist
    np.testing.assert_allclose(
        density,
        stats.lognorm.pdf(z, float(base.scale[0]), scale=np.exp(float(base.loc[0]))),
        rtol=1e-9,
    )
    unit = some_guide({"z": (constraints.unit_interval, ())})
    z = (np.arange(4000) + 0.5) / 4000
    np.testing.assert_allclose(np.exp(unit.log_prob({"z": jnp.asarray(z)})).mean(), 1.0, rtol=1e-5)
    simplex = some_guide({"z": (constraints.simplex, (3,))})
    side = (np.arange(400) + 0.5) / 400
    a, b = (grid.ravel() for grid in np.meshgrid(side, side, indexing="ij"))
    b = b * (1 - a)  # the triangle, from the square
    density = np.exp(jax.jit(simplex.log_prob)({"z": jnp.asarray(np.stack([a, b, 1 - a - b], -1))}))
    np.testing.assert_allclose((density * (1 - a)).mean(), 1.0, rtol=1e-3)


@pytest.mark.integration
def test_several_names_are_one_guide(x64):
    example = {
        "scale": (constraints.positive, (2,)),
        "weights": (constraints.simplex, (3,)),
        "loc": (constraints.real, ()),
    }
    q = some_guide(example, vi.families.full_rank)
    assert q.base.event_shape == (5,)
    z = jax.jit(lambda q: q.sample(jax.random.key(0), (4, 5)))(q)
    assert jax.tree.map(jnp.shape, z) == {"loc": (4, 5), "scale": (4, 5, 2), "weights": (4, 5, 3)}
    assert jax.eval_shape(lambda q: q.log_prob(z), q).shape == (4, 5)
    assert q.event_shape == {"loc": (), "scale": (2,), "weights": (3,)}
    assert isinstance(q, vi.Guide)
    frozen = jax.jit(
        jax.grad(lambda q: vi.freeze(q).log_prob(jax.tree.map(lambda leaf: leaf[0, 0], z)))
    )(q)
    assert all(float(jnp.abs(leaf).max()) == 0.0 for leaf in jax.tree.leaves(frozen))
    assert all_finite(
        jax.jit(
            jax.grad(lambda q: q.log_prob(z).sum() + q.sample(jax.random.key(1))["scale"].sum())
        )(q)
    )
    with pytest.raises(AttributeError, match="average samples"):
        _ = q.mean


@pytest.mark.integration
def test_the_elbo_is_log_p_at_the_posterior(x64):
    """A conjugate pair: at q = posterior every draw gives log p(x) (here LogNormal prior, LogNormal
    likelihood).
    """
    params = {"loc": jnp.array([0.5]), "log_scale": jnp.log(jnp.array([0.5**0.5]))}
    q = vi.families.constrained({"z": (constraints.positive, ())}).guide(params)

    def log_joint(z):
        return dist.LogNormal(0.0, 1.0).log_prob(z["z"]) + dist.Normal(
            jnp.log(z["z"]), 1.0
        ).log_prob(1.0)

    expected = stats.norm.logpdf(1.0, 0.0, 2**0.5)
    np.testing.assert_allclose(
        vi.elbo(jax.random.key(0), log_joint, q, num_samples=3), expected, rtol=1e-10
    )


@pytest.mark.parametrize(
    "example", [{}, 3, {"z": (constraints.simplex, ())}, {"z": (constraints.corr_cholesky, (3, 2))}]
)
def test_shapes_of_no_support_are_refused(example):
    with pytest.raises(ValueError, match=r"at least 1; got|which is none of"):
        vi.families.constrained(example)
