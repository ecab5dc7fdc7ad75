"""The bracket of a log evidence that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vi_jax.diagnostics import bracket


def log_joint(z):  # z ~ N(0, 1), x | z ~ N(z, 1), x = 1: p(x) = N(1 | 0, 2)
    return dist.Normal(0.0, 1.0).log_prob(z).sum() + dist.Normal(z, 1.0).log_prob(1.0).sum()


EVIDENCE = float(dist.Normal(0.0, 2.0**0.5).log_prob(1.0))


def test_the_bounds_lie_in_order_around_the_evidence():
    q = dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)  # the prior: wider than the posterior, weights are bounded
    sides = bracket(jax.random.key(0), log_joint, q, num_draws=20_000)
    values = [float(side.value) for side in sides.values()]
    assert list(sides) == ["elbo", "tvo", "iwae", "tvo_upper", "eubo", "cubo"]
    assert values[0] < values[1] < values[2] < EVIDENCE + 3 * sides["iwae"].stderr
    assert min(values[3:]) > EVIDENCE
    # closed forms: ELBO = E_q log w, EUBO = log p + KL(posterior || q), posterior N(1/2, 1/2)
    kl = float(dist.kl_divergence(dist.Normal(0.5, 0.5**0.5), dist.Normal(0.0, 1.0)))
    assert abs(values[4] - (EVIDENCE + kl)) < 5 * sides["eubo"].stderr + 0.002
    elbo = -0.5 * np.log(2 * np.pi) - 0.5 * (1 + 1)
    assert abs(values[0] - elbo) < 5 * sides["elbo"].stderr


def test_at_the_posterior_the_bracket_is_a_point():
    q = dist.Normal(jnp.full(1, 0.5), jnp.full(1, 0.5**0.5)).to_event(1)
    for side in bracket(jax.random.key(0), log_joint, q, num_draws=400).values():
        np.testing.assert_allclose(side.value, EVIDENCE, atol=1e-5)
        assert side.stderr < 1e-5


def test_groups_have_to_divide_the_draws():
    q = dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)
    with pytest.raises(ValueError, match="divide num_draws"):
        bracket(jax.random.key(0), log_joint, q, num_draws=100, num_groups=30)
