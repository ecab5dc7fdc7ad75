"""Monte Carlo EM on a linear normal model, whose evidence and posterior are known."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys, normal

import vi_jax as vi
from vi_jax.losses import mcem

D = 2
P = 3
NOISE = 0.7
BATCH = jnp.asarray(normal(1, 2, P), jnp.float32)
WEIGHTS = jnp.asarray(normal(0, D, P), jnp.float32)


def decode(params, x, z):
    return dist.Normal(z @ params["w"], NOISE).to_event(1)


def guide(params, x):
    """N(W_q x, L L'), of which the posterior is a member."""
    return dist.MultivariateNormal(x @ params["q"], scale_tril=params["tril"])


MODEL = vi.models.from_densities(
    init=lambda key: {},
    guide=guide,
    prior=lambda params, x: dist.Normal(jnp.zeros(D), jnp.ones(D)).to_event(1),
    decode=decode,
    log_lik=lambda params, x, z: decode(params, x, z).log_prob(x),
)


def at_posterior():
    cov = np.linalg.inv(np.eye(D) + WEIGHTS @ WEIGHTS.T / NOISE**2)
    tril = jnp.asarray(np.linalg.cholesky(cov), jnp.float32)
    return {"w": WEIGHTS, "q": jnp.asarray((cov @ WEIGHTS).T / NOISE**2), "tril": tril}


def log_evidence(w):
    cov = w.T @ w + NOISE**2 * jnp.eye(P)
    return dist.MultivariateNormal(jnp.zeros(P), cov).log_prob(BATCH).mean()


def gradients(params, num, **options):
    loss = mcem(MODEL, **options)

    def one(key):
        (_, info), slope = jax.value_and_grad(loss, has_aux=True)(params, key, BATCH, jnp.int32(0))
        return info.metrics, slope

    return jax.jit(jax.vmap(one))(keys(2, num))


@pytest.mark.integration
def test_at_the_posterior_the_model_climbs_the_evidence_and_the_guide_rests(no_key_check):
    """Fisher's identity, by a single transition, since the chain begins at the posterior."""
    metrics, slopes = gradients(at_posterior(), 3_000)
    assert_mean(slopes["w"], -jax.grad(log_evidence)(WEIGHTS))
    for name in ("q", "tril"):
        shape = slopes[name].shape[1:]
        wanted = np.zeros(shape)
        assert_mean(slopes[name], wanted)
    np.testing.assert_allclose(metrics["elbo"], log_evidence(WEIGHTS), rtol=1e-4)
    assert 0.9 < float(metrics["acceptance"].mean()) <= 1.0


@pytest.mark.cases(rest=None, slow=["blackjax"])
@pytest.mark.integration
@pytest.mark.parametrize("sampler", ["own", "blackjax"])
def test_a_long_chain_from_a_wrong_guide_has_the_gradient_of_the_evidence(sampler, no_key_check):
    if sampler == "blackjax":
        pytest.importorskip("blackjax")
    params = at_posterior()
    wrong = {**params, "q": params["q"] + 0.3, "tril": 1.5 * params["tril"]}
    options = {"num_transitions": 20, "step_size": 0.35, "num_leapfrog": 4, "sampler": sampler}
    metrics, slopes = gradients(wrong, 2_000, **options)
    exact = -jax.grad(log_evidence)(WEIGHTS)
    assert_mean(slopes["w"], exact)
    assert float(metrics["elbo"].mean()) < float(log_evidence(WEIGHTS)) - 0.1
    # the guide comes to the posterior: its gradient is that of -E_p[log q]
    cov = params["tril"] @ params["tril"].T
    precision = jnp.linalg.inv(wrong["tril"] @ wrong["tril"].T)

    def cross_entropy(q):
        def of_example(x):
            error = x @ q - x @ params["q"]
            return 0.5 * (error @ precision @ error + jnp.trace(precision @ cov))

        return jax.vmap(of_example)(BATCH).mean()

    assert_mean(slopes["q"], jax.grad(cross_entropy)(wrong["q"]))


def test_what_mcem_does_not_know_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="at least 1 and step_size > 0"):
        mcem(MODEL, num_transitions=0)
    with pytest.raises(ValueError, match="one of own, blackjax; got 'stan'"):
        mcem(MODEL, sampler="stan")
    with pytest.raises(ValueError, match="trains without dropout"):
        mcem(MODEL._replace(train_terms=MODEL.terms))
    monkeypatch.setitem(sys.modules, "blackjax", None)
    with pytest.raises(ImportError, match="install it"):
        mcem(MODEL, sampler="blackjax")
