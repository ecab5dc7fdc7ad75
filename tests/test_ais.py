"""Annealed importance sampling brackets a known log p(x); a chunk of draws changes nothing; memory
and compile stay flat in K.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from vi_jax.diagnostics import ais
from vi_jax.diagnostics.annealed import annealed_lower

PRIOR = dist.Normal(jnp.zeros(3), jnp.ones(3)).to_event(1)
WEIGHTS = jnp.array([[1.0, 0.5, 0.0], [-0.3, 2.0, 1.0]])
NOISE = 0.4
X = jnp.array([1.0, -2.0])


def log_joint(z):
    return PRIOR.log_prob(z) + dist.Normal(WEIGHTS @ z, NOISE).log_prob(X).sum()


def posterior_draws(key, num):
    precision = jnp.eye(3) + WEIGHTS.T @ WEIGHTS / NOISE**2
    mean = jnp.linalg.solve(precision, WEIGHTS.T @ X / NOISE**2)
    return dist.MultivariateNormal(mean, precision_matrix=precision).sample(key, (num,))


EVIDENCE = dist.MultivariateNormal(
    jnp.zeros(2), WEIGHTS @ WEIGHTS.T + NOISE**2 * jnp.eye(2)
).log_prob(X)


@pytest.mark.integration
def test_weights_have_the_evidence_as_their_mean_and_bracket_it():
    settings = {"num_temperatures": 150, "step_size": 0.4, "num_leapfrog": 4}
    up = jax.jit(lambda key: ais.forward(key, log_joint, PRIOR, num_chains=2_000, **settings))(
        jax.random.key(0)
    )
    down = jax.jit(
        lambda key: ais.reverse(
            key, log_joint, PRIOR, posterior_draws(jax.random.key(1), 2_000), **settings
        )
    )(jax.random.key(2))
    for weights in (
        np.exp(np.asarray(up.log_w - EVIDENCE)),
        np.exp(np.asarray(EVIDENCE - down.log_w)),
    ):
        assert abs(weights.mean() - 1) < 5 * weights.std() / len(weights) ** 0.5
    assert up.log_w.mean() < EVIDENCE < down.log_w.mean()  # each chain alone is a bound
    assert abs(up.lower - EVIDENCE) < 0.05
    assert abs(down.upper - EVIDENCE) < 0.05
    assert 0.4 < up.acceptance.mean() <= 1.0


@pytest.mark.integration
def test_without_transitions_that_move_it_is_plain_importance_sampling():
    out = ais.forward(
        jax.random.key(3),
        log_joint,
        PRIOR,
        num_chains=500,
        num_temperatures=20,
        step_size=1e-7,
        num_leapfrog=1,
    )
    assert float(out.acceptance.min()) == 1.0
    key_start, _ = jax.random.split(jax.random.key(3))
    z = PRIOR.sample(key_start, (500,))
    np.testing.assert_allclose(
        out.log_w, jax.vmap(log_joint)(z) - jax.vmap(PRIOR.log_prob)(z), rtol=1e-3, atol=1e-3
    )


@pytest.mark.integration
def test_more_temperatures_tighten_both_bounds():
    gaps = []
    for num in (5, 50):
        settings = {"num_temperatures": num, "step_size": 0.25, "num_leapfrog": 4}
        up = ais.forward(jax.random.key(4), log_joint, PRIOR, num_chains=300, **settings)
        down = ais.reverse(
            jax.random.key(5), log_joint, PRIOR, posterior_draws(jax.random.key(6), 300), **settings
        )
        gaps.append(float(down.log_w.mean() - up.log_w.mean()))
    assert gaps[1] < 0.5 * gaps[0]


@pytest.mark.integration
def test_chains_drawn_anew_and_steps_of_many_sizes_leave_the_mean_weight_as_it_is():
    def lower(key):
        out = ais.forward(
            key,
            log_joint,
            PRIOR,
            num_chains=8,
            num_temperatures=6,
            step_size=0.1,
            num_leapfrog=2,
            step_spread=5.0,
            resample_below=0.5,
        )
        return out.lower, jnp.unique_counts(out.log_w, size=8).counts.max()

    with jax.debug_key_reuse(False):  # which takes the keys of a scan inside a vmap for used ones
        (found, repeated) = jax.jit(jax.vmap(lower))(jax.random.split(jax.random.key(8), 2_000))
    weights = np.exp(np.asarray(found - EVIDENCE))
    assert abs(weights.mean() - 1) < 4 * weights.std() / len(weights) ** 0.5
    assert weights.std() < 3
    assert (np.asarray(repeated) > 1).any()  # weights of chains that were drawn anew are equal


@pytest.mark.integration
def test_a_mode_that_the_guide_does_not_reach_is_found_from_the_prior():
    def joint(z):
        apart = jnp.stack([dist.Normal(m, 0.1).log_prob(z[0]) for m in (-2.0, 2.0)])
        return dist.Normal(0.0, 1.0).log_prob(z[0]) + jax.nn.logsumexp(apart) - jnp.log(2.0)

    prior = dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)
    guide = dist.Normal(jnp.array([2.0]), jnp.array([0.1])).to_event(1)
    truth = dist.Normal(0.0, (1 + 0.1**2) ** 0.5).log_prob(2.0)  # of either mode
    counts = {"num_chains": 64, "num_temperatures": 60}
    (near, _) = annealed_lower(jax.random.key(9), joint, guide, **counts)
    (whole, _) = annealed_lower(jax.random.key(9), joint, guide, start=prior, **counts)
    assert abs(near - (truth - jnp.log(2.0))) < 0.1
    assert abs(whole - truth) < 0.15


@pytest.mark.integration
def test_latents_may_be_a_pytree():
    def joint(z):
        return dist.Normal(0.0, 1.0).log_prob(z["a"]) + dist.Normal(z["a"], 0.5).log_prob(1.0)

    class Prior:
        def sample(self, key, sample_shape=()):
            return {"a": jax.random.normal(key, sample_shape)}

        def log_prob(self, z):
            return dist.Normal(0.0, 1.0).log_prob(z["a"])

    out = ais.forward(jax.random.key(7), joint, Prior(), num_chains=500, num_temperatures=30)
    assert abs(out.lower - dist.Normal(0.0, 1.25**0.5).log_prob(1.0)) < 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_chains": 0},
        {"num_temperatures": 0},
        {"step_size": 0.0},
        {"num_leapfrog": 0},
        {"step_spread": 0.5},
        {"resample_below": 1.5},
    ],
)
def test_bad_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="annealing expects"):
        ais.forward(
            jax.random.key(0), log_joint, PRIOR, **{"num_chains": 2, "num_temperatures": 2, **wrong}
        )


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [vi.estimators.reparam, vi.estimators.dreg])
def test_chunks_of_draws_leave_value_and_gradient_as_they_are(estimator):
    def value(loc, chunk):
        q = dist.Normal(loc, 0.5 * jnp.ones(3)).to_event(1)
        return estimator(
            jax.random.key(8), vi.bounds.iwae, log_joint, q, num_samples=1_000, chunk=chunk
        )

    whole = jax.value_and_grad(value)(jnp.zeros(3), None)
    for chunk in (1_000, 128, 7):
        part = jax.value_and_grad(value)(jnp.zeros(3), chunk)
        np.testing.assert_allclose(part[0], whole[0], rtol=1e-5)
        np.testing.assert_allclose(part[1], whole[1], rtol=1e-3, atol=1e-4)


def test_the_program_does_not_grow_with_the_number_of_draws():
    def program(num_samples, chunk):
        def value(loc):
            q = dist.Normal(loc, 0.5 * jnp.ones(3)).to_event(1)
            return vi.estimators.dreg(
                jax.random.key(8),
                vi.bounds.iwae,
                log_joint,
                q,
                num_samples=num_samples,
                chunk=chunk,
            )

        return len(jax.jit(jax.grad(value)).lower(jnp.zeros(3)).as_text().splitlines())

    assert program(10_000, None) <= 1.05 * program(10, None)
    assert program(10_000, 100) <= 1.05 * program(1_000, 100)
