"""The linear-Gaussian model, where posterior, evidence and every gradient are known in closed form.

z ~ N(0, I) [D], x | z ~ N(W z + b, s^2 I); posterior N(m, S) with S = (I + W'W / s^2)^-1, m = S
W'(x - b) / s^2; evidence N(x | b, W W' + s^2 I).
"""

import contextlib
import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, bounds, keys, members, normal
from scipy import stats

import vi_jax as vi

BOUNDS = bounds()
EXACT_ENTROPY = {"price"}  # not log q of the draws but its mean: not constant at the posterior
ESTIMATORS = members(vi.estimators)


class Case(NamedTuple):
    weights: np.ndarray  # W [D_x, D]
    offset: np.ndarray  # b [D_x]
    noise: float  # s
    x: np.ndarray  # [D_x]

    def posterior(self):
        cov = np.linalg.inv(
            np.eye(self.weights.shape[1]) + self.weights.T @ self.weights / self.noise**2
        )
        return cov @ self.weights.T @ (self.x - self.offset) / self.noise**2, cov

    def evidence(self):
        cov = self.weights @ self.weights.T + self.noise**2 * np.eye(self.x.size)
        return stats.multivariate_normal(self.offset, cov).logpdf(self.x)

    def log_lik(self, z):
        return (
            dist.Normal(jnp.asarray(self.weights) @ z + jnp.asarray(self.offset), self.noise)
            .log_prob(self.x)
            .sum()
        )

    def prior(self):
        num_latents = self.weights.shape[1]
        return dist.Normal(jnp.zeros(num_latents), jnp.ones(num_latents)).to_event(1)

    def log_joint(self, z):
        return self.prior().log_prob(z) + self.log_lik(z)


def make_case(num_latents=2):
    return Case(normal(0, 3, num_latents), normal(1, 3), 0.7, normal(2, 3))


def full_rank_params(loc, cov):
    tril = np.linalg.cholesky(cov)
    below = tril[np.tril_indices(len(tril), -1)]
    parts = {"loc": loc, "log_diag": np.log(np.diag(tril)), "lower": below}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), parts)


def kl_of_gaussians(loc_q, cov_q, loc_p, cov_p):
    gap = loc_p - loc_q
    precision = np.linalg.inv(cov_p)
    log_dets = np.linalg.slogdet(cov_p)[1] - np.linalg.slogdet(cov_q)[1]
    return 0.5 * (np.trace(precision @ cov_q) + gap @ precision @ gap - len(gap) + log_dets)


@pytest.mark.cases(rest=None, integration=["gdreg-1-1", "disarm-1-1"])
@pytest.mark.parametrize(
    ("num_latents", "num_samples"), [(1, 1), pytest.param(3, 4, marks=pytest.mark.integration)]
)
@pytest.mark.parametrize("estimator", sorted(set(ESTIMATORS) - EXACT_ENTROPY))
def test_at_the_posterior_every_draw_gives_the_evidence(estimator, num_samples, num_latents):
    case = make_case(num_latents)

    def estimates(q, key):
        """Of all bounds that the estimator takes; it refuses those that it is not valid for."""
        values = {}
        for number, (name, bound) in enumerate(sorted(BOUNDS.items())):
            key_bound = jax.random.fold_in(key, number)
            with contextlib.suppress(ValueError):
                values[name] = ESTIMATORS[estimator](
                    key_bound, bound, case.log_joint, q, num_samples=num_samples
                )
        return values

    for wide, tolerance in ((False, 1e-5), (True, 1e-10)):
        if num_latents == 1 and not wide:
            continue  # the larger case is one of float32 too
        with jax.enable_x64(wide):
            q = vi.families.full_rank(num_latents).guide(full_rank_params(*case.posterior()))
            values = jax.jit(jax.vmap(estimates, (None, 0)))(q, keys(0, 5))
            assert estimator != "reparam" or set(values) == set(BOUNDS)
            if not values:
                pytest.skip(f"{estimator} takes no Gaussian guide, or none of {sorted(BOUNDS)}")
            for name, value in values.items():
                np.testing.assert_allclose(value, case.evidence(), rtol=tolerance, err_msg=name)


def test_the_calls_by_name_give_the_evidence_at_the_posterior():
    case = make_case()
    q = vi.families.full_rank(2).guide(full_rank_params(*case.posterior()))

    @jax.jit
    def values(a, b, c):
        return (
            vi.elbo(a, case.log_joint, q),
            vi.elbo(b, case.log_joint, q, 8),
            vi.iwae(c, case.log_joint, q, 8),
        )

    np.testing.assert_allclose(values(*keys(0, 3)), [case.evidence()] * 3, rtol=1e-5)
    assert inspect.signature(vi.elbo).parameters["num_samples"].default == 1


# a guide that is not the posterior
OFF = {"loc": np.array([0.4, -0.3]), "cov": np.array([[0.5, 0.2], [0.2, 0.8]])}


@pytest.mark.parametrize("num_samples", [1, 4])
def test_the_gap_of_the_elbo_is_the_kl_to_the_posterior(num_samples):
    case = make_case()
    q = vi.families.full_rank(2).guide(full_rank_params(**OFF))
    gap = kl_of_gaussians(OFF["loc"], OFF["cov"], *case.posterior())
    assert gap > 0.1
    values = jax.jit(jax.vmap(lambda key: vi.elbo(key, case.log_joint, q, num_samples)))(
        keys(1, 4000)
    )
    assert_mean(values, case.evidence() - gap)
    values = jax.jit(
        jax.vmap(lambda key: vi.analytic_elbo(key, case.log_lik, q, case.prior(), num_samples))
    )(keys(2, 4000))
    assert_mean(values, case.evidence() - gap)


def test_the_elbo_is_below_iwae_is_below_the_evidence():
    case = make_case()
    q = vi.families.full_rank(2).guide(full_rank_params(**OFF))
    elbo = np.asarray(
        jax.jit(jax.vmap(lambda key: vi.elbo(key, case.log_joint, q, 8)))(keys(3, 4000))
    )
    iwae = np.asarray(
        jax.jit(jax.vmap(lambda key: vi.iwae(key, case.log_joint, q, 8)))(keys(3, 4000))
    )
    assert np.all(iwae >= elbo - 1e-4)  # the same draws
    gap = case.evidence() - iwae
    assert gap.mean() > 5 * gap.std() / len(gap) ** 0.5
    w = np.exp(iwae.astype(np.float64) - case.evidence())
    assert_mean(w, 1.0)  # the average of weights is unbiased for p(x)


def elbo_gradient(case, loc, tril):
    """d ELBO / d loc and d ELBO / d L: W'(x - b - W m) / s^2 - m and -(I + W'W / s^2) L + L^-T."""
    precision = np.eye(len(loc)) + case.weights.T @ case.weights / case.noise**2
    d_loc = case.weights.T @ (case.x - case.offset - case.weights @ loc) / case.noise**2 - loc
    return d_loc, -precision @ tril + np.linalg.inv(tril).T


def estimates(case, guide, params, num_samples):
    """The gradients of both ELBOs in the parameters for many keys."""

    def plain(params, key):
        return vi.elbo(key, case.log_joint, guide(params), num_samples)

    def analytic(params, key):
        return vi.analytic_elbo(key, case.log_lik, guide(params), case.prior(), num_samples)

    for f in (plain, analytic):
        yield jax.jit(jax.vmap(jax.grad(f), (None, 0)))(params, keys(4, 8000))


@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_mean_gradient_is_the_exact_gradient_for_mean_field(num_samples):
    case = make_case()
    scale = np.array([0.5, 1.3])
    params = {
        "loc": jnp.asarray(OFF["loc"], jnp.float32),
        "log_scale": jnp.log(jnp.asarray(scale, jnp.float32)),
    }
    d_loc, d_tril = elbo_gradient(case, OFF["loc"], np.diag(scale))
    for gradients in estimates(case, vi.families.mean_field(2).guide, params, num_samples):
        assert_mean(gradients["loc"], d_loc)
        assert_mean(gradients["log_scale"], np.diag(d_tril) * scale)


def test_the_mean_gradient_is_the_exact_gradient_for_full_rank():
    case = make_case(3)
    loc = normal(7, 3)
    tril = np.tril(0.3 * normal(8, 3, 3), -1) + np.diag([0.5, 0.9, 1.4])
    params = full_rank_params(loc, tril @ tril.T)
    d_loc, d_tril = elbo_gradient(case, loc, tril)
    for gradients in estimates(case, vi.families.full_rank(3).guide, params, 1):
        assert_mean(gradients["loc"], d_loc)
        assert_mean(gradients["log_diag"], np.diag(d_tril) * np.diag(tril))
        assert_mean(gradients["lower"], d_tril[np.tril_indices(3, -1)])


def test_the_mean_gradient_is_zero_at_the_posterior():
    case = make_case()
    params = full_rank_params(*case.posterior())
    for gradients in estimates(case, vi.families.full_rank(2).guide, params, 1):
        for leaf in gradients.values():
            assert_mean(leaf, np.zeros(leaf.shape[1:]))


def test_the_closed_form_kl_lowers_the_variance_where_the_data_say_little():
    # as in a VAE: 8 latents, guides narrower than the prior and off it, a decoder that moves slowly
    # with z
    case = Case(0.1 * normal(10, 20, 8), normal(11, 20), 1.0, normal(12, 20))
    q = dist.Normal(jnp.asarray(normal(13, 8), jnp.float32), jnp.full(8, 0.5)).to_event(1)
    plain = jax.jit(jax.vmap(lambda key: vi.elbo(key, case.log_joint, q)))(keys(5, 2000))
    analytic = jax.jit(jax.vmap(lambda key: vi.analytic_elbo(key, case.log_lik, q, case.prior())))(
        keys(6, 2000)
    )
    # 0.045 when written; the standard error of the ratio is about 5 % of it
    assert analytic.var() < 0.1 * plain.var()
    assert abs(analytic.mean() - plain.mean()) < 5 * ((analytic.var() + plain.var()) / 2000) ** 0.5
