"""Antithetic and quasi-Monte-Carlo samples: right means, less noise, refused where independence is
needed; control variates.
"""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean

import vi_jax as vi

LOC = jnp.array([0.4, -1.0])
SCALE = jnp.array([0.5, 1.5])
DIAGONAL = dist.Normal(LOC, SCALE).to_event(1)
FULL = dist.MultivariateNormal(LOC, scale_tril=jnp.array([[0.5, 0.0], [0.3, 1.2]]))


def log_joint(z):
    return dist.Normal(jnp.zeros(2), 1.0).log_prob(z).sum() + jnp.tanh(z).sum()


@pytest.mark.cases(rest=None, slow=["antithetic-full", "quasi-diagonal"])
@pytest.mark.integration
@pytest.mark.parametrize("guide", [DIAGONAL, FULL], ids=["diagonal", "full"])
@pytest.mark.parametrize("wrap", [vi.sampling.antithetic, vi.sampling.quasi])
def test_each_draw_alone_has_the_guides_distribution(wrap, guide):
    z = jax.vmap(lambda key: wrap(guide).sample(key, (4,))[2])(
        jax.random.split(jax.random.key(0), 20_000)
    )
    assert_mean(z, LOC)
    centred = np.asarray(z - LOC)
    assert_mean(
        centred[:, :, None] * centred[:, None, :],
        guide.covariance_matrix if guide is FULL else jnp.diag(SCALE**2),
    )
    np.testing.assert_allclose(wrap(guide).log_prob(LOC), guide.log_prob(LOC))
    np.testing.assert_allclose(wrap(guide).mean, LOC)


@pytest.mark.integration
def test_antithetic_draws_mirror_each_other():
    z = vi.sampling.antithetic(FULL).sample(jax.random.key(1), (6,))
    np.testing.assert_allclose(z[:3] + z[3:], jnp.broadcast_to(2 * LOC, (3, 2)), rtol=1e-6)


def test_quasi_points_fill_space_more_evenly_than_random_ones():
    u = np.asarray(vi.sampling.kronecker(jax.random.key(2), 512, 2))
    counts = np.histogram2d(u[:, 0], u[:, 1], bins=8, range=[[0, 1], [0, 1]])[0]
    assert counts.min() >= 5  # 8 on average; random points leave cells of 2 or fewer
    assert counts.max() <= 11


@pytest.mark.cases(rest="integration")
@pytest.mark.parametrize(
    ("wrap", "at_most"), [(vi.sampling.antithetic, 0.3), (vi.sampling.quasi, 0.1)]
)
def test_gradients_have_the_same_mean_and_less_noise(wrap, at_most):
    def gradient(q_of, key):
        def value(params):
            return vi.estimators.reparam(
                key, vi.bounds.elbo, log_joint, q_of(params), num_samples=512
            )

        return jax.grad(value)({"loc": LOC, "scale": SCALE})["loc"]

    def plain(params):
        return dist.Normal(params["loc"], params["scale"]).to_event(1)

    def keys():
        return jax.random.split(jax.random.key(3), 1_000)

    base = np.asarray(jax.jit(jax.vmap(lambda key: gradient(plain, key)))(keys()))
    better = np.asarray(
        jax.jit(jax.vmap(lambda key: gradient(lambda params: wrap(plain(params)), key)))(keys())
    )
    off = (
        np.abs(base.mean(0) - better.mean(0))
        / np.hypot(base.std(0), better.std(0))
        * len(base) ** 0.5
    )
    assert off.max() < 5
    assert (better.var(0) < at_most * base.var(0)).all(), better.var(0) / base.var(0)


def test_a_wrapped_guide_is_a_pytree_that_freezes():
    def value(loc):
        q = vi.freeze(vi.sampling.antithetic(dist.Normal(loc, 1.0).to_event(1)))
        return q.log_prob(jnp.zeros(2))

    np.testing.assert_array_equal(jax.grad(value)(LOC), 0.0)


@pytest.mark.parametrize(
    ("estimator", "bound"),
    [
        (vi.estimators.dreg, vi.bounds.iwae),
        (vi.estimators.score, vi.bounds.elbo),
        (vi.estimators.vimco, vi.bounds.iwae),
    ],
)
def test_estimators_that_want_independent_draws_refuse_these(estimator, bound):
    with pytest.raises(ValueError, match="independent of each other"):
        estimator(jax.random.key(0), bound, log_joint, vi.sampling.quasi(DIAGONAL), num_samples=4)


def test_errors_are_sentences():
    with pytest.raises(ValueError, match="symmetric about a point; got Gamma"):
        vi.sampling.antithetic(dist.Gamma(1.0, 1.0))
    with pytest.raises(ValueError, match=r"Gaussian guide.*got StudentT"):
        vi.sampling.quasi(dist.StudentT(3.0))
    with pytest.raises(ValueError, match=r"even; got \(3,\)"):
        vi.sampling.antithetic(DIAGONAL).sample(jax.random.key(0), (3,))


@pytest.mark.integration
def test_controlled_mean_is_unbiased_and_takes_away_what_the_controls_explain():
    def one(key):
        controls = jax.random.normal(key, (64, 2))
        noise = jax.random.normal(jax.random.fold_in(key, 1), (64,))
        return vi.control_variates.controlled_mean(
            3.0 + 2.0 * controls[:, 0] - controls[:, 1] + 0.5 * noise, controls
        )

    with jax.debug_key_reuse(False):  # fold_in beside the key's own draw
        out = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(4), 4_000))
    assert_mean(out.value, 3.0)
    assert 0.03 < float(out.variance_ratio.mean()) < 0.07  # 0.25 of 5.25
    spread = float(out.value.std())
    assert abs(float(out.stderr.mean()) / spread - 1) < 0.1  # the standard error is honest
    with pytest.raises(ValueError, match="K >= 4"):
        vi.control_variates.controlled_mean(jnp.zeros(8), jnp.zeros((8, 2)))


def test_the_old_name_of_the_module_works_and_says_the_new_one():
    sys.modules.pop("vi_jax.draws", None)
    with pytest.warns(DeprecationWarning, match=r"vi_jax\.sampling .*vi_jax\.control_variates"):
        old = importlib.import_module("vi_jax.draws")
    assert old.antithetic is vi.sampling.antithetic
    assert old.controlled_mean is vi.control_variates.controlled_mean
