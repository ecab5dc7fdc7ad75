"""Gaussian processes: exact ones on 11 points, and a heteroscedastic one in a basis of cosines.

k(x, x') = alpha^2 exp(-(x - x')^2 / (2 rho^2)).
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from experiments.posteriordb.regressions import half_student_t
from vi_jax import linalg


def gp_regr(x, y):
    """y ~ N(0, k(x, x) + sigma I): sigma is the noise's variance, as in the Stan program.

    rho ~ Gamma(25, 4), alpha ~ half-N(2^2), sigma ~ half-N(1) (Stan User's Guide, Gaussian
    processes).
    """
    rho, alpha = _rho_alpha()
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    covariance = alpha**2 * _correlation(x, rho) + sigma * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), covariance), obs=jnp.asarray(y))


def gp_pois_regr(x, k):
    """k_i ~ Poisson(exp f_i), f = alpha L f_tilde, alpha^2 L L' = k(x, x), f_tilde_i ~ N(0, 1)
    sampled.

    rho ~ Gamma(25, 4), alpha ~ half-N(2^2) (Stan User's Guide, Gaussian processes). The Stan
    program adds 1e-10 to the diagonal; here the points are equally spaced and the root is exact,
    see `correlation_root`.
    """
    rho, alpha = _rho_alpha()
    f_tilde = numpyro.sample("f_tilde", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1))
    f = numpyro.deterministic("f", alpha * (correlation_root(x, rho) @ f_tilde))
    log_lik = (
        jnp.asarray(k, f.dtype) * f
        - jnp.exp(f)
        - jax.scipy.special.gammaln(jnp.asarray(k, f.dtype) + 1.0)
    )
    numpyro.factor("log_lik", log_lik.sum())


def gp_pois_latents(sites, x, k):
    """(rho, alpha, f) -> the sites that `gp_pois_regr` samples."""
    root = correlation_root(x, sites["rho"])
    f_tilde = linalg.solve_triangular(root, sites["f"] / sites["alpha"], lower=True)
    return {"rho": sites["rho"], "alpha": sites["alpha"], "f_tilde": f_tilde}


def accel_gp(Y, Xgp_1, slambda_1, Xgp_sigma_1, slambda_sigma_1):
    """Head acceleration in a motorcycle crash: Y_i ~ N(m(t_i), exp(2 s(t_i))), m and s low-rank
    Gaussian processes.

    m = Intercept + Phi (sqrt(S(w)) z), z_j ~ N(0, 1), with the eigenfunctions Phi = Xgp_1 and
    frequencies w = slambda_1 given and S the spectral density of k, S(w) = sdgp^2 sqrt(2 pi) lscale
    exp(-(lscale w)^2 / 2); s alike, of its own parameters (Solin & Sarkka 2020; brms, gp(k=40) and
    gp(k=20)). Student-t_3 priors on the intercepts, (-13, 36) and (0, 10), and on both sdgp, half
    (0, 36); lscale ~ InverseGamma(1.124909, 0.0177).
    """
    mean = _basis_gp(
        "", numpyro.sample("Intercept", dist.StudentT(3.0, -13.0, 36.0)), Xgp_1, slambda_1
    )
    centre = numpyro.sample("Intercept_sigma", dist.StudentT(3.0, 0.0, 10.0))
    log_sd = _basis_gp("sigma_", centre, Xgp_sigma_1, slambda_sigma_1)
    numpyro.sample("Y", dist.Normal(mean, jnp.exp(log_sd)).to_event(1), obs=jnp.asarray(Y, float))


def _basis_gp(prefix, intercept, basis, frequencies):
    sd = half_student_t(f"sdgp_{prefix}1", 3.0, 36.0)
    scale = numpyro.sample(f"lscale_{prefix}1", dist.InverseGamma(1.124909, 0.0177))
    z = numpyro.sample(f"zgp_{prefix}1", dist.Normal(0.0, 1.0).expand([basis.shape[1]]).to_event(1))
    # sqrt S(w) = sdgp (2 pi)^(1/4) sqrt(lscale) exp(-(lscale w)^2 / 4)
    roots = (
        sd
        * (2.0 * jnp.pi) ** 0.25
        * jnp.sqrt(scale)
        * jnp.exp(-0.25 * (scale * jnp.asarray(frequencies[:, 0])) ** 2)
    )
    return intercept + jnp.asarray(basis) @ (roots * z)


def _rho_alpha():
    return numpyro.sample("rho", dist.Gamma(25.0, 4.0)), numpyro.sample(
        "alpha", dist.HalfNormal(2.0)
    )


def _correlation(x, rho):
    x = jnp.asarray(x, float)
    return jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2)


def correlation_root(x, rho):
    """The lower Cholesky factor L of exp(-(x_i - x_j)^2 / (2 rho^2)), for equally spaced x [N].

    With q = exp(-h^2 / rho^2), h the spacing, and (q)_k = prod_{l=1}^k (1 - q^l), the q-binomial
    theorem has

        L_ij = q^((i - j)^2 / 2) (q)_i / ((q)_{i-j} sqrt((q)_j)),  i >= j, from 0.

    A product of accurate factors: no jitter, and every digit in float32, where the factorisation of
    so smooth a kernel keeps none.
    """
    x = np.asarray(x, float)
    if not np.allclose(np.diff(x), x[1] - x[0]):
        raise ValueError(f"the root in closed form wants equally spaced x; got {x}.")
    c = ((x[1] - x[0]) / rho) ** 2
    log_factors = jnp.log(-jnp.expm1(-c * np.arange(1.0, len(x))))  # log(1 - q^l)
    log_q = jnp.concatenate([jnp.zeros(1), jnp.cumsum(log_factors)])  # log (q)_k
    i, j = np.indices((len(x), len(x)))
    lag = np.maximum(i - j, 0)
    log_root = -0.5 * c * lag**2 + log_q[i] - log_q[lag] - 0.5 * log_q[j]
    return jnp.where(i >= j, jnp.exp(jnp.where(i >= j, log_root, 0.0)), 0.0)
