"""Mixtures: two Gaussians, and hidden Markov models of two states with the states summed out."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp

from experiments.posteriordb.priors import flat_ordered


def low_dim_gauss_mix(y):
    """y_i ~ theta N(mu_1, sigma_1^2) + (1 - theta) N(mu_2, sigma_2^2), mu_1 < mu_2.

    mu_k ~ N(0, 2^2), sigma_k ~ half-N(2^2), theta ~ Beta(5, 5) (Betancourt, Identifying mixture
    models).
    """
    mu = flat_ordered("mu", 2)
    numpyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    log_weights = jnp.stack([jnp.log(theta), jnp.log1p(-theta)])
    log_parts = log_weights + dist.Normal(mu, sigma).log_prob(jnp.asarray(y)[:, None])  # [N, 2]
    numpyro.factor("log_lik", logsumexp(log_parts, axis=1).sum())


def hmm_example(y):
    """y_t ~ N(mu_k, 1) in state k, 0 < mu_1 < mu_2; mu_1 ~ N(3, 1), mu_2 ~ N(10, 1), transitions
    flat.

    Damiano, Peterson & Weylandt; Ali, Hidden Markov models for basketball plays (StanCon 2019).
    """
    log_transitions = _log_transitions(jnp.ones((2, 2)))
    mu = _ordered_normal("mu", (3.0, 10.0), positive=True)
    _forward(log_transitions, dist.Normal(mu, 1.0).log_prob(jnp.asarray(y)[:, None]))


def hmm_drive_0(u, v, alpha):
    """Is the player driving to the basket: u_t ~ Exponential(phi_k), v_t ~ Exponential(lambda_k) in
    state k.

    u is the inverse speed, v the distance to the hoop. Rows of transitions theta1 ~
    Dirichlet(alpha_1), theta2 ~ Dirichlet(alpha_2); 0 < phi_1 < phi_2, 0 < lambda_1 < lambda_2,
    each pair ~ N(0, 1), N(3, 1) (Ali 2019).
    """
    log_transitions = _log_transitions(alpha)
    phi = _ordered_normal("phi", (0.0, 3.0), positive=True)
    rate = _ordered_normal("lambda", (0.0, 3.0), positive=True)
    u = jnp.asarray(u)[:, None]
    v = jnp.asarray(v)[:, None]
    _forward(
        log_transitions, dist.Exponential(phi).log_prob(u) + dist.Exponential(rate).log_prob(v)
    )


def hmm_drive_1(u, v, alpha, tau, rho):
    """As `hmm_drive_0` in logs: u_t ~ N(phi_k, tau^2), v_t ~ N(lambda_k, rho^2), phi_1 < phi_2,
    lambda_1 < lambda_2.

    Both pairs ~ N(0, 1), N(3, 1); tau and rho are given.
    """
    log_transitions = _log_transitions(alpha)
    phi = _ordered_normal("phi", (0.0, 3.0))
    centre = _ordered_normal("lambda", (0.0, 3.0))
    u = jnp.asarray(u)[:, None]
    v = jnp.asarray(v)[:, None]
    _forward(
        log_transitions,
        dist.Normal(phi, float(tau)).log_prob(u) + dist.Normal(centre, float(rho)).log_prob(v),
    )


def _log_transitions(concentrations):
    """Rows theta1, theta2 ~ Dirichlet(concentrations_k), in logs [from, to]."""
    rows = [
        numpyro.sample(f"theta{k + 1}", dist.Dirichlet(jnp.asarray(row, float)))
        for k, row in enumerate(concentrations)
    ]
    return jnp.log(jnp.stack(rows))


def _ordered_normal(name, centres, *, positive=False):
    """x_1 < x_2 (0 < x_1 where positive) with density prod_k N(x_k | centre_k, 1), not renormalised
    for the order.
    """
    value = flat_ordered(name, len(centres), positive=positive)
    numpyro.factor(f"{name}_prior", dist.Normal(jnp.asarray(centres), 1.0).log_prob(value).sum())
    return value


def _forward(log_transitions, log_emissions):
    """Adds log p(y_1, ..., y_T) = log sum_k gamma_T(k), with gamma_1 = emission_1: the first state
    has weight 1 in each.

    gamma_t(k) = emission_t(k) sum_j gamma_{t-1}(j) transition(j, k), normalised in every step so
    that a long sum keeps its digits.
    """

    def step(log_filter, log_emission):
        log_gamma = logsumexp(log_filter[:, None] + log_transitions, axis=0) + log_emission
        total = logsumexp(log_gamma)
        return log_gamma - total, total

    first = logsumexp(log_emissions[0])
    _, rest = jax.lax.scan(step, log_emissions[0] - first, log_emissions[1:])
    numpyro.factor("log_lik", first + rest.sum())
