"""Eight schools (Rubin 1981): effects of coaching, theta_j, of which y_j is measured with a known
standard error.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def eight_schools_centered(y, sigma):
    """y_j ~ N(theta_j, sigma_j^2), theta_j ~ N(mu, tau^2), mu ~ N(0, 5^2), tau ~ half-Cauchy(5)."""
    mu, tau = _mu_tau()
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([len(y)]).to_event(1))
    _likelihood(y, sigma, theta)


def eight_schools_noncentered(y, sigma):
    """The same with theta = mu + tau theta_trans and theta_trans_j ~ N(0, 1) sampled."""
    mu, tau = _mu_tau()
    theta_trans = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1))
    _likelihood(y, sigma, numpyro.deterministic("theta", mu + tau * theta_trans))


def noncentered_latents(sites, y, sigma):
    """(theta, mu, tau) -> the sites that `eight_schools_noncentered` samples."""
    mu = sites["mu"]
    tau = sites["tau"]
    return {"mu": mu, "tau": tau, "theta_trans": (sites["theta"] - mu) / tau}


def _mu_tau():
    return numpyro.sample("mu", dist.Normal(0.0, 5.0)), numpyro.sample("tau", dist.HalfCauchy(5.0))


def _likelihood(y, sigma, theta):
    numpyro.sample(
        "y", dist.Normal(theta, jnp.asarray(sigma, float)).to_event(1), obs=jnp.asarray(y, float)
    )
