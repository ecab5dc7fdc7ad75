"""Models whose evidence is known: linear ones by their maximum likelihood, belief networks and
discrete VAEs by enumeration, a mixture prior by quadrature.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_mean, keys, normal
from scipy import integrate, stats

import vi_jax as vi
from vi_jax.diagnostics import amortised
from vi_jax.models import likelihoods, priors
from vi_jax.models.networks import Network

# --- probabilistic PCA: a linear VAE's ELBO is tight at its maximum (Lucas et al. 2019)
# --------------------------------------------------------------------------------------------

N = 300
P = 5
D = 2
ROWS = normal(0, N, D) @ normal(1, D, P) + 0.5 * normal(2, N, P) + normal(3, P)


def affine(num_inputs, shape, start):
    """A linear layer with a bias."""
    size = int(np.prod(shape))
    return Network(
        lambda key: {"w": start * jax.random.normal(key, (num_inputs, size)), "b": jnp.zeros(size)},
        lambda params, h: (h.ravel() @ params["w"] + params["b"]).reshape(shape),
    )


def linear_vae():
    return vi.models.amortised(
        (P,),
        lambda num_outputs: affine(P, (num_outputs,), 0.1),
        lambda num_outputs: affine(D, (P, num_outputs), 0.5),
        vi.families.mean_field(D),
        likelihoods.gaussian_learned(1.0),
        num_latents=D,
    )


def maximum_likelihood():
    """The mean log-likelihood of PPCA at its maximum, and sigma (Tipping & Bishop 1999, eq. 8)."""
    eigenvalues = np.linalg.eigvalsh(np.cov(ROWS.T, bias=True))[::-1]
    variance = eigenvalues[D:].mean()
    log_det = np.log(eigenvalues[:D]).sum() + (P - D) * np.log(variance)
    return -0.5 * (P * np.log(2 * np.pi) + log_det + P), variance**0.5


@pytest.mark.integration
def test_a_linear_vae_reaches_the_maximum_likelihood_of_ppca():
    x = jnp.asarray(ROWS, jnp.float32)
    model = linear_vae()
    rate = optax.cosine_decay_schedule(0.03, 1_500)
    loss = vi.losses.negative_elbo(model, num_samples=4)
    params, _ = vi.train(
        jax.random.key(0), model, loss, optax.adam(rate), x, num_steps=1_500, batch_size=N,
        log_every=500,
    )  # fmt: skip
    log_lik, sigma = maximum_likelihood()
    np.testing.assert_allclose(jnp.exp(params["likelihood"]["log_sigma"]), sigma, rtol=0.02)
    with jax.debug_key_reuse(False):
        found = amortised.log_evidence(jax.random.key(1), model, params, x, num_samples=200)
        terms = amortised.evaluate_examples(jax.random.key(2), model, params, x, num_samples=50)
    assert abs(float(found.mean()) - log_lik) < 0.01  # the posterior is the guide's, so no noise
    elbo = amortised.mean_and_stderr(terms["elbo"])
    assert 0.0 < log_lik - float(elbo.mean) + 0.05 < 0.1


# --- latents of zeros and ones, by enumeration
# --------------------------------------------------------------------------------------------

SHAPE = (4,)
X = jnp.array([1.0, 0.0, 1.0, 1.0])
NET = vi.models.sigmoid_belief_net(SHAPE, num_latents=(2, 1))
COINS = vi.models.discrete_vae(SHAPE, num_latents=3, hidden=(3,))


def moved(model):
    params = jax.jit(model.init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    shifted = [
        leaf + 0.7 * jnp.asarray(normal(number, *leaf.shape), leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, shifted)


def states_of(model):
    """Every z, leaves [S, ...]."""
    points = jnp.array(list(itertools.product((0.0, 1.0), repeat=3)))
    return {"z1": points[:, :2], "z2": points[:, 2:]} if model is NET else points


def tables(model, params):
    """log p(x, z) and log q(z | x) at every z, [S] each."""
    z = states_of(model)
    joint = vi.losses.log_joint(model, params, X)
    q = model.densities.guide(params, X)
    return jax.vmap(joint)(z), jax.vmap(q.log_prob)(z)


@pytest.mark.integration
@pytest.mark.parametrize("model", [NET, COINS], ids=["belief net", "discrete VAE"])
def test_log_evidence_is_that_of_the_enumeration(model):
    params = moved(model)
    log_p, log_q = tables(model, params)
    np.testing.assert_allclose(jax.nn.logsumexp(log_q), 0.0, atol=1e-5)
    # p(x) sums to 1 over all x: the generative side is normalised
    images = jnp.array(list(itertools.product((0.0, 1.0), repeat=4)))
    z = states_of(model)
    every = jax.vmap(lambda x: jax.vmap(vi.losses.log_joint(model, params, x))(z))(images)
    np.testing.assert_allclose(jax.nn.logsumexp(every), 0.0, atol=1e-5)
    with jax.debug_key_reuse(False):
        found = jax.jit(
            lambda key: amortised.log_evidence(
                key, model, params, X[None], num_samples=20_000, chunk=1_000
            )
        )(jax.random.key(3))
    np.testing.assert_allclose(found[0], jax.nn.logsumexp(log_p), atol=0.03)


def expected_bound(model, params, bound, num_samples):
    """E[bound] over all K-tuples of states."""
    log_p, log_q = tables(model, params)
    tuples = jnp.array(list(itertools.product(range(8), repeat=num_samples)))
    values = jax.vmap(bound)((log_p - log_q)[tuples])
    return (jnp.exp(log_q[tuples].sum(1)) * values).sum()


PAIRS = {
    "vimco": (NET, vi.bounds.iwae, vi.estimators.vimco, 2),
    "score": (NET, vi.bounds.elbo, vi.estimators.score, 2),
    "disarm": (COINS, vi.bounds.elbo, vi.estimators.disarm, 2),
    "rebar": (COINS, vi.bounds.elbo, vi.estimators.rebar, 1),
    "vimco, one layer": (COINS, vi.bounds.iwae, vi.estimators.vimco, 2),
}


@pytest.mark.cases(rest=None, slow=["rebar", "vimco"])
@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_the_mean_gradient_is_that_of_the_enumeration(name):
    model, bound, estimator, num_samples = PAIRS[name]
    params = moved(model)
    loss = vi.losses.negative_bound(model, bound, estimator, num_samples=num_samples)

    @jax.jit
    def many(params, keys):
        one = lambda key: jax.grad(  # noqa: E731
            lambda params: loss(params, key, X[None], jnp.int32(0))[0]
        )(params)
        return jax.vmap(lambda key: jax.flatten_util.ravel_pytree(one(key))[0])(keys)

    exact = jax.grad(lambda params: -expected_bound(model, params, bound, num_samples))(params)
    exact = jax.flatten_util.ravel_pytree(exact)[0]
    assert_mean(many(params, keys(4, 4_000)), exact)
    assert np.abs(exact).max() > 0.05


@pytest.mark.integration
def test_enumeration_has_the_gradient_without_noise():
    params = moved(COINS)

    def value(params):
        return vi.losses.batch_bound(
            jax.random.key(0), COINS, params, X[None], vi.bounds.elbo, vi.estimators.enumerated,
            num_samples=1,
        )[0]  # fmt: skip

    ours = jax.jit(jax.grad(value))(params)
    exact = jax.grad(lambda params: expected_bound(COINS, params, vi.bounds.elbo, 1))(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# --- a mixture prior, by quadrature
# --------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_mixture_prior_by_quadrature():
    prior = priors.mixture_of_gaussians(1, 3, spread=2.0)
    model = vi.models.vae(SHAPE, num_latents=1, hidden=(3,), prior=prior, kl="drawn")
    params = moved(model)
    of_prior = params["prior"]
    weights = np.asarray(jax.nn.softmax(of_prior["logits"]), np.float64)
    loc = np.asarray(of_prior["loc"], np.float64)[:, 0]
    scale = np.exp(np.asarray(of_prior["log_scale"], np.float64))[:, 0]
    z = np.linspace(-60, 60, 12_001)
    each = np.log(weights) + stats.norm.logpdf(z[:, None], loc, scale)
    log_prior = np.logaddexp.reduce(each, axis=1)
    log_lik = jax.vmap(lambda z: model.densities.log_lik(params, X, z))(
        jnp.asarray(z, jnp.float32)[:, None]
    )
    evidence = integrate.trapezoid(np.exp(np.asarray(log_lik, np.float64) + log_prior), z)
    q = model.densities.guide(params, X)
    log_q = stats.norm.logpdf(z, float(q.mean[0]), float(q.base_dist.scale[0]))
    kl = integrate.trapezoid(np.exp(log_q) * (log_q - log_prior), z)
    # proposals from the prior, so that weights are bounded
    by_prior = model._replace(densities=model.densities._replace(guide=model.densities.prior))
    with jax.debug_key_reuse(False):
        found = amortised.log_evidence(
            jax.random.key(5), by_prior, params, X[None], num_samples=20_000, chunk=20_000
        )
    np.testing.assert_allclose(found[0], np.log(evidence), atol=0.02)
    by_entropy = vi.models.vae(SHAPE, num_latents=1, hidden=(3,), prior=prior, kl="entropy")
    for each in (model, by_entropy):
        terms = jax.jit(jax.vmap(lambda key, m=each: m.terms(key, params, X)))(keys(6, 5_000))
        assert_mean(terms.kl["z"].value, kl)


def test_an_entropy_without_a_closed_form_is_refused():
    model = vi.models.vae(
        SHAPE, num_latents=2, hidden=(3,), family=vi.families.real_nvp, kl="entropy"
    )
    params = jax.eval_shape(model.init, jax.random.key(0))
    with pytest.raises(NotImplementedError, match="take kl='drawn'"):
        jax.eval_shape(model.terms, jax.random.key(0), params, X)
