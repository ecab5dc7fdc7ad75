"""log p(x) of an example between annealed bounds, and its guide refitted: against a linear normal
model, whose evidence is known.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import keys, normal
from scipy import stats

import vi_jax as vi
from vi_jax.diagnostics import annealed
from vi_jax.models import likelihoods
from vi_jax.models.networks import Network
from vi_jax.training import refit_guide

P = 4
SIGMA = 0.6
WEIGHTS = np.asarray(normal(0, 1, P))
X = jnp.asarray(normal(1, P))


def affine(num_inputs, shape, start):
    size = int(np.prod(shape))
    return Network(
        lambda key: {"w": start * jax.random.normal(key, (num_inputs, size)), "b": jnp.zeros(size)},
        lambda params, h: (h.ravel() @ params["w"] + params["b"]).reshape(shape),
    )


def line():
    """z ~ N(0, 1), x ~ N(z w, sigma^2), and a guide that is not the posterior."""
    model = vi.models.amortised(
        (P,),
        lambda num_outputs: affine(P, (num_outputs,), 0.1),
        lambda num_outputs: affine(1, (P, num_outputs), 0.5),
        vi.families.mean_field(1),
        likelihoods.gaussian(SIGMA),
        num_latents=1,
    )
    params = model.init(jax.random.key(3))
    params["decoder"]["w"] = jnp.asarray(WEIGHTS, "float32")
    return model, params


def log_evidence(x):
    covariance = WEIGHTS.T @ WEIGHTS + SIGMA**2 * np.eye(P)
    return stats.multivariate_normal.logpdf(np.asarray(x, np.float64), np.zeros(P), covariance)


def joint_and_guide(model, params, x):
    return vi.losses.log_joint(model, params, x), model.densities.guide(params, x)


@pytest.mark.integration
def test_annealing_from_a_wrong_guide_comes_to_the_evidence():
    model, params = line()
    joint, q = joint_and_guide(model, params, X)

    @jax.jit
    @jax.vmap
    def lower(key):
        return annealed.annealed_lower(key, joint, q, num_chains=8, num_temperatures=30)[0]

    with jax.debug_key_reuse(False):  # which takes the keys of a scan inside a vmap for used ones
        found = np.asarray(lower(keys(0, 40)))
    truth = log_evidence(X)
    stderr = found.std(ddof=1) / len(found) ** 0.5
    assert found.mean() < truth + 4 * stderr
    assert found.mean() > truth - 0.05
    with_guide = vi.elbo(jax.random.key(1), joint, q, num_samples=2000)
    assert found.mean() > float(with_guide) + 0.5


@pytest.mark.integration
def test_simulated_examples_lie_between_the_two_bounds_and_these_meet():
    model, params = line()

    @jax.jit
    @jax.vmap
    def simulate(key):
        return annealed.simulated_sides(key, model, params, X, num_chains=8, num_temperatures=60)

    with jax.debug_key_reuse(False):  # as above
        sides = simulate(keys(2, 200))
    gap = np.asarray(sides.upper - sides.lower)
    stderr = gap.std(ddof=1) / len(gap) ** 0.5
    assert gap.mean() > -4 * stderr
    assert gap.mean() < 0.1
    assert 0.5 < float(sides.acceptance.mean()) < 1.0


@pytest.mark.integration
def test_an_upper_bound_needs_real_latents():
    model = vi.models.sigmoid_belief_net((3,), num_latents=(2,))
    params = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match="real latents"):
        annealed.simulated_sides(jax.random.key(1), model, params, jnp.zeros(3))


@pytest.mark.integration
def test_a_refitted_guide_comes_to_log_p_where_its_family_has_the_posterior():
    model, params = line()
    found = jax.jit(
        lambda key: refit_guide(
            key, model, params, X, num_steps=600, learning_rate=0.03, num_evaluated=4000
        )
    )(jax.random.key(5))
    truth = log_evidence(X)
    assert float(found.refitted) == pytest.approx(truth, abs=0.01)
    assert float(found.halfway) == pytest.approx(truth, abs=0.05)
    assert float(found.gap) > 0.5


@pytest.mark.parametrize("num_steps", [0, 3])
def test_steps_are_an_even_number(num_steps):
    model, params = line()
    with pytest.raises(ValueError, match="even number"):
        refit_guide(jax.random.key(0), model, params, X, num_steps=num_steps)
