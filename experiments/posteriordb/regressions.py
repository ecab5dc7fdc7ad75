"""Linear regressions: two shared forms, and the posteriors that stand alone.

The likelihoods go through `gaussian.log_lik_ratio`. Under a flat prior on beta or sigma, which has
no marginal likelihood, the log density is relative to the likelihood's maximum: a large constant
would only cost digits.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from experiments.posteriordb.gaussian import Fit, columns, least_squares, log_lik_ratio
from experiments.posteriordb.priors import flat, flat_positive


def flat_regression(design: np.ndarray, outcome: np.ndarray) -> None:
    """y ~ N(X beta, sigma^2 I), p(beta, sigma) = 1 on sigma > 0."""
    fit = least_squares(design, outcome)
    numpyro.factor(
        "log_lik", log_lik_ratio(fit, flat("beta", len(fit.beta)), flat_positive("sigma"))
    )


def half_cauchy_regression(design: np.ndarray, outcome: np.ndarray) -> None:
    """y ~ N(X beta, sigma^2 I), p(beta) = 1, sigma ~ half-Cauchy(2.5)."""
    fit = least_squares(design, outcome)
    beta = flat("beta", len(fit.beta))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    numpyro.factor("log_lik", log_lik_ratio(fit, beta, sigma))


def nes(partyid7, real_ideo, race_adj, age_discrete, educ1, gender, income):
    """Party identification on ideology, race, age group, education, sex and income; flat priors.

    y ~ N(beta_1 + beta_2 ideology + beta_3 race + sum_{a=2}^4 beta_{a+2} [age group a] + beta_7
    education + beta_8 sex + beta_9 income, sigma^2). American National Election Studies, one year
    each (Gelman & Hill 2007, section 4.7).
    """
    ages = [age_discrete == group for group in (2, 3, 4)]
    flat_regression(columns(real_ideo, race_adj, *ages, educ1, gender, income), partyid7)


def kilpisjarvi(x, y, pmualpha, psalpha, pmubeta, psbeta):
    """Summer temperature at Kilpisjarvi against the year: y ~ N(alpha + beta x, sigma^2), p(sigma)
    = 1.

    alpha ~ N(pmualpha, psalpha^2), beta ~ N(pmubeta, psbeta^2), their constants given as data
    (Vehtari, BDA demos).
    """
    alpha = numpyro.sample("alpha", dist.Normal(float(pmualpha), float(psalpha)))
    beta = numpyro.sample("beta", dist.Normal(float(pmubeta), float(psbeta)))
    sigma = flat_positive("sigma")
    numpyro.factor(
        "log_lik", log_lik_ratio(least_squares(columns(x), y), jnp.stack([alpha, beta]), sigma)
    )


def blr(X, y):
    """Bayesian linear regression: y ~ N(X beta, sigma^2 I), beta_k ~ N(0, 10^2), sigma ~
    half-N(10^2).

    Simulated designs of five predictors, independent (sblri) or correlated (sblrc);
    stat_comp_benchmarks (Betancourt).
    """
    fit = least_squares(X, y)
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([len(fit.beta)]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10.0))
    _proper_likelihood(fit, beta, sigma)


def diamonds(X, Y):
    """Log price of diamonds on 24 predictors: Y ~ N(a + (X - mean X) b, sigma^2); X's first column,
    ones, is left out.

    b_k ~ N(0, 1), a ~ Student-t_3(8, 10), sigma ~ half-Student-t_3(0, 10): the defaults of brms
    (Burkner 2017).
    """
    centred = X[:, 1:] - X[:, 1:].mean(0)
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([centred.shape[1]]).to_event(1))
    intercept = numpyro.sample("Intercept", dist.StudentT(3.0, 8.0, 10.0))
    sigma = half_student_t("sigma", 3.0, 10.0)
    _proper_likelihood(
        least_squares(columns(*centred.T), Y), jnp.concatenate([intercept[None], b]), sigma
    )


def half_student_t(name: str, degrees: float, scale: float):
    """x > 0 with twice the density of Student-t_degrees(0, scale)."""
    return numpyro.sample(name, dist.FoldedDistribution(dist.StudentT(degrees, 0.0, scale)))


def _proper_likelihood(fit: Fit, beta, sigma) -> None:
    numpyro.factor("log_lik", log_lik_ratio(fit, beta, sigma) + fit.log_max)
