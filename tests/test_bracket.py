"""The bracket of a log evidence that is known."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from vi_jax.diagnostics import bracket


def log_joint(z):  # z ~ N(0, 1), x | z ~ N(z, 1), x = 1: p(x) = N(1 | 0, 2)
    return dist.Normal(0.0, 1.0).log_prob(z).sum() + dist.Normal(z, 1.0).log_prob(1.0).sum()


EVIDENCE = float(dist.Normal(0.0, 2.0**0.5).log_prob(1.0))


def numbers(log_joint, q, **kwargs):
    """{name: (value, standard error)}, compiled."""
    run = jax.jit(
        lambda key: {name: side[:2] for name, side in bracket(key, log_joint, q, **kwargs).items()}
    )
    sides = run(jax.random.key(0))
    return {name: sides[name] for name in ORDER if name in sides}


ORDER = ("elbo", "tvo", "iwae", "ais", "tvo_upper", "eubo", "cubo", "ais_reverse")


@pytest.mark.integration
def test_the_bounds_lie_in_order_around_the_evidence():
    # the prior: wider than the posterior, weights are bounded
    q = dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)
    sides = bracket(jax.random.key(0), log_joint, q, num_draws=20_000, num_chains=0)
    values = [float(side.value) for side in sides.values()]
    assert list(sides) == ["elbo", "tvo", "iwae", "tvo_upper", "eubo", "cubo"]
    assert values[0] < values[1] < values[2] < EVIDENCE + 3 * sides["iwae"].stderr
    assert min(values[3:]) > EVIDENCE
    # closed forms: ELBO = E_q log w, EUBO = log p + KL(posterior || q), posterior N(1/2, 1/2)
    kl = float(dist.kl_divergence(dist.Normal(0.5, 0.5**0.5), dist.Normal(0.0, 1.0)))
    assert abs(values[4] - (EVIDENCE + kl)) < 5 * sides["eubo"].stderr + 0.002
    elbo = -0.5 * np.log(2 * np.pi) - 0.5 * (1 + 1)
    assert abs(values[0] - elbo) < 5 * sides["elbo"].stderr


@pytest.mark.integration
def test_at_the_posterior_the_bracket_is_a_point():
    q = dist.Normal(jnp.full(1, 0.5), jnp.full(1, 0.5**0.5)).to_event(1)
    sides = numbers(log_joint, q, num_draws=400, num_chains=4, num_temperatures=3)
    assert tuple(sides) == ORDER
    # the log-weight of every chain is constant, whatever its transitions
    for value, stderr in sides.values():
        np.testing.assert_allclose(value, EVIDENCE, atol=1e-5)
        assert stderr < 1e-5


def joint_of_three(z):  # z ~ N(0, I_3), x | z ~ N(sum z, 0.25), x = 2: p(x) = N(2 | 0, 3.25)
    return dist.Normal(0.0, 1.0).log_prob(z).sum() + dist.Normal(z.sum(), 0.5).log_prob(2.0)


EVIDENCE_OF_THREE = float(dist.Normal(0.0, 3.25**0.5).log_prob(2.0))


@pytest.mark.integration
def test_annealing_tightens_both_ends_where_the_posterior_is_correlated():
    # mean-field: 1 / precision_jj
    q = dist.Normal(jnp.full(3, 2 / 3.25), jnp.full(3, 5**-0.5)).to_event(1)
    sides = numbers(joint_of_three, q, num_draws=2000, num_chains=50, num_temperatures=40)
    for name in ("ais", "ais_reverse"):
        assert abs(sides[name][0] - EVIDENCE_OF_THREE) < 5 * sides[name][1] + 0.01
        assert 0 < sides[name][1] < 0.2
    assert sides["elbo"][0] < EVIDENCE_OF_THREE - 0.4 < sides["ais"][0]


@pytest.mark.slow
def test_the_reverse_stays_above_with_few_temperatures(monkeypatch):
    """From the prior, where chains that began at its own draws instead of the posterior's would end
    46 standard errors below.
    """
    monkeypatch.setattr(importlib.import_module("vi_jax.diagnostics.bracket"), "FULL_UP_TO", 0)
    q = dist.Normal(jnp.zeros(3), jnp.ones(3)).to_event(1)
    sides = numbers(joint_of_three, q, num_draws=20_000, num_chains=2000, num_temperatures=2)
    assert abs(sides["ais"][0] - EVIDENCE_OF_THREE) < 5 * sides["ais"][1]
    assert -3 * sides["ais_reverse"][1] < sides["ais_reverse"][0] - EVIDENCE_OF_THREE < 1.0


def test_one_chain_says_nothing_of_its_error():
    q = dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)
    with pytest.raises(ValueError, match="2 chains or more"):
        bracket(jax.random.key(0), log_joint, q, num_chains=1)


def test_groups_have_to_divide_the_draws():
    q = dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)
    with pytest.raises(ValueError, match="divide num_draws"):
        bracket(jax.random.key(0), log_joint, q, num_draws=100, num_groups=30)


@pytest.mark.integration
def test_latents_may_be_a_pytree():
    """The three latents as a number and a pair; the same bracket, and a program of two layers."""
    q = vi.families.mean_field({"a": jnp.zeros(()), "b": jnp.zeros(2)}).guide(
        {"loc": jnp.full(3, 2 / 3.25), "log_scale": jnp.log(jnp.full(3, 5**-0.5))}
    )
    joint = lambda z: joint_of_three(jnp.append(z["b"], z["a"]))  # noqa: E731
    numbers_of = dict(num_draws=2000, num_chains=50, num_temperatures=40)
    ours = numbers(joint, q, **numbers_of)
    for name in ("ais", "ais_reverse"):
        assert abs(ours[name][0] - EVIDENCE_OF_THREE) < 5 * ours[name][1] + 0.01


@pytest.mark.integration
def test_discrete_latents_have_the_bounds_of_log_weights_alone():
    q = dist.Bernoulli(jnp.array([0.3, 0.6])).to_event(1)

    def joint(z):
        return dist.Bernoulli(0.5).log_prob(z).sum() + dist.Normal(z.sum(), 1.0).log_prob(0.3)

    states = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    evidence = float(jax.nn.logsumexp(jax.vmap(joint)(states)))
    found = numbers(joint, q, num_draws=4000, num_chains=0)
    assert found["elbo"][0] < evidence < found["eubo"][0]
    np.testing.assert_allclose(found["iwae"][0], evidence, atol=0.02)
    with pytest.raises(ValueError, match="annealing moves real latents"):
        bracket(jax.random.key(0), joint, q, num_chains=4)
