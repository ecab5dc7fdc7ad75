"""vi_jax.diagnostics.amortised on a linear-Gaussian model, whose posterior and evidence are known,
and by quadrature.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys, normal

from vi_jax.diagnostics import amortised
from vi_jax.models import from_densities

pytestmark = pytest.mark.usefixtures("no_key_check")

D = 2
P = 3
SIGMA = 0.7
W = normal(0, P, D)
B = normal(1, P)
PRECISION = np.eye(D) + W.T @ W / SIGMA**2
COVARIANCE = np.linalg.inv(PRECISION)
X = normal(2, 11, P) @ np.linalg.cholesky(W @ W.T + SIGMA**2 * np.eye(P)).T + B
X32 = jnp.asarray(X, jnp.float32)


def posterior_mean(x):
    return (x - B) @ W @ COVARIANCE / SIGMA**2


def linear_gaussian(encode):
    """p(z) = N(0, I), p(x | z) = N(W z + b, sigma^2 I); `encode` is the guide of one x."""
    prior = dist.Normal(jnp.zeros(D), jnp.ones(D)).to_event(1)
    weights = jnp.asarray(W, jnp.float32)
    bias = jnp.asarray(B, jnp.float32)

    def decode(params, x, z):
        return dist.Normal(weights @ z + bias, SIGMA)

    return from_densities(
        init=lambda key: {},
        guide=lambda params, x: encode(x),
        prior=lambda params, x: prior,
        decode=decode,
        log_lik=lambda params, x, z: decode(params, x, z).log_prob(x).sum(),
    )


def mean32(x):
    return (x - jnp.asarray(B, jnp.float32)) @ jnp.asarray(W @ COVARIANCE / SIGMA**2, jnp.float32)


def exact_posterior(x):
    return dist.MultivariateNormal(
        mean32(x), scale_tril=jnp.asarray(np.linalg.cholesky(COVARIANCE), jnp.float32)
    )


def wrong_posterior(x):
    """Shifted, without correlation, and wider than the posterior, so that weights are bounded."""
    wide = jnp.asarray(1.3 * np.sqrt(np.linalg.eigvalsh(COVARIANCE).max()), jnp.float32)
    return dist.Normal(mean32(x) + 0.3, jnp.full(D, wide)).to_event(1)


EXACT = linear_gaussian(exact_posterior)
WRONG = linear_gaussian(wrong_posterior)


def log_marginal(x):
    """log N(x | b, W W' + sigma^2 I) in float64."""
    covariance = W @ W.T + SIGMA**2 * np.eye(P)
    off = x - B
    return -0.5 * (
        (off @ np.linalg.inv(covariance) * off).sum(-1)
        + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )


def posterior_kl(x):
    """KL(p(z | x) || p(z)) in float64."""
    mean = posterior_mean(x)
    return 0.5 * (np.trace(COVARIANCE) + (mean**2).sum(-1) - D - np.linalg.slogdet(COVARIANCE)[1])


# --- log p(x)
# -------------------------------------------------------------------------------------------------


@pytest.mark.cases(rest=None, slow=["1-100", "200-100"])
@pytest.mark.integration
@pytest.mark.parametrize(("num_samples", "chunk"), [(1, 100), (12, 4), (200, 100)])
def test_log_evidence_is_exact_where_the_guide_is_the_posterior(num_samples, chunk):
    found = amortised.log_evidence(
        jax.random.key(3), EXACT, {}, X32, num_samples=num_samples, chunk=chunk, batch_size=4
    )
    np.testing.assert_allclose(found, log_marginal(X), rtol=0, atol=2e-5)


def evidence_of_a_wrong_guide(num_samples, chunk=100, repeats=4000):
    """Estimates of log p(x_0) by a guide that is not the posterior, [repeats] of them."""
    x = jnp.broadcast_to(X32[0], (repeats, P))
    key = jax.random.fold_in(jax.random.key(4), 1000 * num_samples + chunk)
    return np.asarray(
        amortised.log_evidence(
            key, WRONG, {}, x, num_samples=num_samples, chunk=chunk, batch_size=1000
        ),
        np.float64,
    )


@pytest.mark.integration
def test_log_evidence_of_a_wrong_guide_rises_to_the_truth():
    one, ten = (evidence_of_a_wrong_guide(size, repeats=4000) for size in (1, 10))
    truth = log_marginal(X[0])
    assert one.mean() < ten.mean() - 5 * one.std() / len(one) ** 0.5
    assert ten.mean() < truth - 5 * ten.std() / len(ten) ** 0.5
    # log p(x) - L_K is of order Var(w) / 2K: at K = 1000 the bias is below a standard error of
    # these repeats
    assert_mean(evidence_of_a_wrong_guide(1000, repeats=400), truth)


@pytest.mark.cases(rest="integration", default=["6-2"])
@pytest.mark.parametrize(("num_samples", "chunk"), [(1, 1), (6, 6), (6, 2)])
def test_weights_have_mean_one_whatever_the_chunk(num_samples, chunk):
    values = evidence_of_a_wrong_guide(num_samples, chunk)
    assert_mean(np.exp(values - log_marginal(X[0])), 1.0)


@pytest.mark.integration
def test_chunks_leave_the_bound_the_same():
    """L_6 in chunks of 6 and of 2 has one distribution; a mean of three L_2 would be lower."""
    whole = evidence_of_a_wrong_guide(6, 6, repeats=4000)
    parts = evidence_of_a_wrong_guide(6, 2, repeats=4000)
    stderr = np.hypot(whole.std(), parts.std()) / len(whole) ** 0.5
    assert abs(whole.mean() - parts.mean()) < 5 * stderr
    lower = evidence_of_a_wrong_guide(2, 2, repeats=4000)
    assert lower.mean() < parts.mean() - 5 * stderr, "this test could not have failed"


@pytest.mark.parametrize(("num_samples", "chunk"), [(10, 3), (0, 5), (-4, 2), (101, 100)])
def test_chunks_that_do_not_divide_are_refused(num_samples, chunk):
    with pytest.raises(ValueError, match=rf"multiple of chunk; got {num_samples}"):
        amortised.log_evidence(
            jax.random.key(0), EXACT, {}, X32, num_samples=num_samples, chunk=chunk
        )


@pytest.mark.cases(rest="slow", integration=["4"])
@pytest.mark.integration
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_batch_size_never_changes_log_evidence(batch_size):
    args = dict(num_samples=6, chunk=3)
    want = amortised.log_evidence(jax.random.key(5), WRONG, {}, X32, **args, batch_size=11)
    np.testing.assert_allclose(
        amortised.log_evidence(jax.random.key(5), WRONG, {}, X32, **args, batch_size=batch_size),
        want,
        rtol=1e-5,
    )


# --- the terms of each example
# --------------------------------------------------------------------------------------


@pytest.mark.cases(rest="slow", integration=["4"])
@pytest.mark.integration
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_batch_size_never_changes_the_terms(batch_size):
    want = amortised.evaluate_examples(
        jax.random.key(6), WRONG, {}, X32, num_samples=2, batch_size=11
    )
    found = amortised.evaluate_examples(
        jax.random.key(6), WRONG, {}, X32, num_samples=2, batch_size=batch_size
    )
    assert set(found) == {"elbo", "log_lik", "kl", "latent_mean"}
    for name, value in want.items():
        same = functools.partial(np.testing.assert_allclose, rtol=1e-5, err_msg=name)
        jax.tree.map(same, found[name], value)
    assert found["kl"]["z"].shape == (11, D)
    assert found["elbo"].shape == (11,)


@pytest.mark.integration
def test_terms_are_those_of_the_closed_form():
    """E_q[log p(x | z)] - KL = log p(x) at the posterior; the KL and the mean are exact for every
    key.
    """
    repeats = 2000
    x = jnp.broadcast_to(X32[3], (repeats, P))
    terms = amortised.evaluate_examples(jax.random.key(7), EXACT, {}, x, batch_size=500)
    np.testing.assert_allclose(terms["kl"]["z"], posterior_kl(X[3]), rtol=1e-4)
    np.testing.assert_allclose(
        terms["latent_mean"], np.tile(posterior_mean(X[3]), (repeats, 1)), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        terms["elbo"], terms["log_lik"] - terms["kl"]["z"], rtol=1e-5, atol=1e-5
    )
    assert_mean(terms["elbo"], log_marginal(X[3]))


def test_mean_and_stderr_are_numpys():
    values = normal(8, 13, 2)
    found = amortised.mean_and_stderr(jnp.asarray(values))
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.stderr, values.std(0, ddof=1) / 13**0.5, rtol=1e-5)


def test_one_example_has_no_standard_error():
    with pytest.raises(ValueError, match="at least 2"):
        amortised.mean_and_stderr(jnp.ones(1))


def test_active_units_are_those_of_known_variance():
    variances = np.array([0.0, 0.005, 0.0099, 0.0101, 0.5, 4.0])
    # variance is about the mean, not 0
    points = np.array([-1.0, 1.0, -1.0, 1.0])[:, None] * np.sqrt(variances) + 3.0
    np.testing.assert_allclose(
        amortised.latent_variance(jnp.asarray(points)), variances, rtol=1e-4, atol=1e-9
    )
    assert amortised.active_units(jnp.asarray(points)).tolist() == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]
    assert amortised.active_units(jnp.asarray(points), threshold=1.0).tolist() == [False] * 5 + [
        True
    ]


# --- the aggregate posterior
# ----------------------------------------------------------------------------------------


def line(locs, scale):
    """A model whose guide of x_n = [n] is N(locs[n], scale^2) in one dimension; the rest is of no
    account.
    """
    locs = jnp.asarray(locs, jnp.float32)
    prior = dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)
    return from_densities(
        init=lambda key: {},
        guide=lambda params, x: dist.Normal(locs[x.astype(int)], scale).to_event(1),
        prior=lambda params, x: prior,
        decode=lambda params, x, z: None,
        log_lik=lambda params, x, z: jnp.zeros(()),
    )


def rows(num):
    return jnp.arange(num, dtype=jnp.float32)[:, None]


def by_quadrature(locs, scale):
    """I_q(x; z) and KL(q(z) || p(z)) on a fine grid, float64."""
    z = np.linspace(-15.0, 15.0, 20_001)
    each = np.exp(-0.5 * ((z - np.asarray(locs)[:, None]) / scale) ** 2) / (
        scale * np.sqrt(2 * np.pi)
    )
    mixture = each.mean(0)
    prior = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)

    def integral(density, other):
        ratio = density / np.maximum(other, 1e-300)
        return np.trapezoid(
            np.where(density > 0, density * np.log(np.where(density > 0, ratio, 1.0)), 0.0), z
        )

    return np.mean([integral(q, mixture) for q in each]), integral(mixture, prior)


@pytest.mark.parametrize("scale", [0.2, 0.8])
def test_aggregate_posterior_equals_enumeration(scale):
    locs = [-1.0, 0.0, 1.5]
    model = line(locs, scale)
    x = rows(3)
    many = jax.jit(jax.vmap(lambda key: amortised.aggregate_posterior(key, model, {}, x)))(
        keys(9, 3000)
    )
    information, marginal_kl = by_quadrature(locs, scale)
    assert_mean(many.mutual_information.mean, information)
    assert_mean(many.marginal_kl.mean, marginal_kl)
    np.testing.assert_allclose(many.max_information, np.log(3), rtol=1e-6)


@pytest.mark.integration
def test_information_and_marginal_kl_add_up_to_the_mean_kl():
    q = jax.vmap(wrong_posterior)(X32).base_dist
    loc = np.asarray(q.loc, np.float64)
    scale = np.asarray(q.scale, np.float64)
    mean_kl = (0.5 * (scale**2 + loc**2 - 1.0) - np.log(scale)).sum(-1).mean()
    many = jax.jit(jax.vmap(lambda key: amortised.aggregate_posterior(key, WRONG, {}, X32)))(
        keys(10, 500)
    )
    assert_mean(many.mutual_information.mean + many.marginal_kl.mean, mean_kl)
    once = amortised.aggregate_posterior(jax.random.key(11), WRONG, {}, X32)
    gap = once.mutual_information.mean + once.marginal_kl.mean - mean_kl
    assert abs(gap) < 5 * (once.mutual_information.stderr + once.marginal_kl.stderr)


@pytest.mark.cases(rest="slow", integration=["3"])
@pytest.mark.integration
@pytest.mark.parametrize("batch_size", [1, 3, 10, 1000])
def test_batch_size_never_changes_the_aggregate(batch_size):
    """11 examples in batches that do not divide them: the rows that fill the last batch count for
    nothing.
    """
    want = amortised.aggregate_posterior(jax.random.key(12), WRONG, {}, X32, batch_size=11)
    found = amortised.aggregate_posterior(jax.random.key(12), WRONG, {}, X32, batch_size=batch_size)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.integration
@pytest.mark.parametrize("gap", [0.0, 1.0, 100.0])
def test_information_is_between_nothing_and_log_n(gap):
    num = 7
    model = line(gap * np.arange(num), 1.0)
    found = amortised.aggregate_posterior(
        jax.random.key(13), model, {}, rows(num), batch_size=3
    ).mutual_information
    assert found.mean <= np.log(num) + 1e-5
    if gap == 0.0:
        np.testing.assert_allclose(found.mean, 0.0, atol=1e-6)
    if gap == 100.0:
        np.testing.assert_allclose(found.mean, np.log(num), rtol=1e-6)
