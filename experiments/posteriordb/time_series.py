"""Autoregressions and volatility: AR(K), ARMA(1,1) and GARCH(1,1), on simulated series of 200."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from experiments.posteriordb.gaussian import columns, least_squares, log_lik_ratio
from experiments.posteriordb.priors import flat_positive, flat_real


def arK(y, K):
    """y_t ~ N(alpha + sum_k beta_k y_{t-k}, sigma^2) for t > K; alpha, beta_k ~ N(0, 10^2), sigma ~
    half-Cauchy(2.5).

    The first K values are conditioned on (Stan User's Guide, Autoregressive models).
    """
    order = int(K)
    lags = columns(*(y[order - k : len(y) - k] for k in range(1, order + 1)))  # [T - K, 1 + K]
    fit = least_squares(lags, y[order:])
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([order]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    coefficients = jnp.concatenate([alpha[None], beta])
    numpyro.factor("log_lik", log_lik_ratio(fit, coefficients, sigma) + fit.log_max)


def arma11(y):
    """y_t = mu + phi y_{t-1} + theta e_{t-1} + e_t, e_t ~ N(0, sigma^2), started from y_0 = mu and
    e_0 = 0.

    mu ~ N(0, 10^2), phi, theta ~ N(0, 2^2), sigma ~ half-Cauchy(2.5) (Stan User's Guide, Moving
    average models).
    """
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    phi = numpyro.sample("phi", dist.Normal(0.0, 2.0))
    theta = numpyro.sample("theta", dist.Normal(0.0, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    y = jnp.asarray(y)
    drive = y - mu - phi * jnp.concatenate([mu[None], y[:-1]])  # e_t + theta e_{t-1}

    def step(error, drive_t):
        error = drive_t - theta * error
        return error, error

    _, errors = jax.lax.scan(step, jnp.zeros_like(mu), drive)
    numpyro.factor("log_lik", dist.Normal(0.0, sigma).log_prob(errors).sum())


def garch11(y, sigma1):
    """y_t ~ N(mu, s_t^2), s_t^2 = alpha0 + alpha1 (y_{t-1} - mu)^2 + beta1 s_{t-1}^2, s_1 given.

    Flat on alpha0 > 0, 0 < alpha1 < 1 and 0 < beta1 < 1 - alpha1 (Stan User's Guide, GARCH).
    Sampled is beta1_share = beta1 / (1 - alpha1) in (0, 1), with the Jacobian 1 - alpha1: no
    support depends on another parameter, and the unconstrained space, logit(beta1_share), is
    Stan's.
    """
    mu = flat_real("mu")
    alpha0 = flat_positive("alpha0")
    alpha1 = numpyro.sample("alpha1", dist.Uniform(0.0, 1.0))
    share = numpyro.sample("beta1_share", dist.Uniform(0.0, 1.0))
    numpyro.factor("beta1_jacobian", jnp.log1p(-alpha1))
    beta1 = numpyro.deterministic("beta1", share * (1.0 - alpha1))
    y = jnp.asarray(y)
    shocks = alpha0 + alpha1 * (y[:-1] - mu) ** 2

    def step(variance, shock):
        variance = shock + beta1 * variance
        return variance, variance

    first = jnp.full_like(mu, float(np.asarray(sigma1)) ** 2)
    _, later = jax.lax.scan(step, first, shocks)
    variances = jnp.concatenate([first[None], later])
    numpyro.factor("log_lik", dist.Normal(mu, jnp.sqrt(variances)).log_prob(y).sum())


def garch_latents(sites, y, sigma1):
    """(mu, alpha0, alpha1, beta1) -> the sites that `garch11` samples."""
    latents = {name: sites[name] for name in ("mu", "alpha0", "alpha1")}
    return latents | {"beta1_share": sites["beta1"] / (1.0 - sites["alpha1"])}
