"""The two wake-sleep losses on a model that can be enumerated: z in {0, 1, 2}, x in {0, 1}^2, every
table a parameter.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys, normal

import vi_jax as vi
from vi_jax.distributions import Bernoulli
from vi_jax.losses import wake_sleep, wake_wake

STATES = 3
K = 2
IMAGES = jnp.array(list(itertools.product((0.0, 1.0), repeat=2)))  # every x, [4, 2]
BATCH = IMAGES[jnp.array([1, 3, 3])]
PARAMS = {
    "guide": jnp.asarray(normal(0, 4, STATES), jnp.float32),  # logits of q(z | x), a row for each x
    "lik": jnp.asarray(1.5 * normal(1, STATES, 2), jnp.float32),
    "prior": jnp.asarray(normal(2, STATES), jnp.float32),
}


def number_of(x):
    return (2 * x[0] + x[1]).astype(int)


def decode(params, x, z):
    return Bernoulli(params["lik"][z]).to_event(1)


MODEL = vi.models.from_densities(
    init=lambda key: PARAMS,
    guide=lambda params, x: dist.CategoricalLogits(params["guide"][number_of(x)]),
    prior=lambda params, x: dist.CategoricalLogits(params["prior"]),
    decode=decode,
    log_lik=lambda params, x, z: decode(params, x, z).log_prob(x),
)


def log_joint(params, x):
    """log p(x, z) at every z, [STATES]."""
    return jax.nn.log_softmax(params["prior"]) + jax.vmap(
        lambda z: MODEL.densities.log_lik(params, x, z)
    )(jnp.arange(STATES))


def log_guide(params, x):
    return jax.nn.log_softmax(params["guide"][number_of(x)])


def expected(params, *, asleep):
    """What the loss is minus a constant, in expectation: all K-tuples of draws, or all dreams,
    whose chances are held fixed.
    """
    tuples = jnp.array(list(itertools.product(range(STATES), repeat=K)))

    def awake(x):
        log_p = log_joint(params, x)
        log_q = log_guide(params, x)
        still = vi.freeze(log_q)
        chance = jnp.exp(still[tuples].sum(1))
        log_w = (log_p - still)[tuples]
        weights = vi.freeze(jax.nn.softmax(log_w, axis=1))
        iwae = jax.nn.logsumexp(log_w, axis=1) - jnp.log(K)
        return (chance * iwae).sum(), -(chance[:, None] * weights * log_q[tuples]).sum()

    def dream(x):
        return -(jnp.exp(vi.freeze(log_joint(params, x))) * log_guide(params, x)).sum()

    iwae, pull = jax.vmap(awake)(BATCH)
    return (jax.vmap(dream)(IMAGES).sum() if asleep else pull.mean()) - iwae.mean()


def gradients(loss, params, num_keys):
    def one(key):
        return jax.grad(lambda params: loss(params, key, BATCH, jnp.int32(0))[0])(params)

    return jax.device_get(jax.jit(jax.vmap(one))(keys(3, num_keys)))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("make", "asleep"), [(wake_wake, False), (wake_sleep, True)], ids=["wake-wake", "wake-sleep"]
)
def test_the_mean_gradient_is_that_of_the_enumeration(make, asleep):
    samples = gradients(make(MODEL, num_samples=K), PARAMS, 20_000)
    exact = jax.grad(lambda params: expected(params, asleep=asleep))(PARAMS)
    for name in PARAMS:
        assert_mean(samples[name], exact[name])
        assert np.abs(exact[name]).max() > 0.01, f"a gradient of 0 in {name} tests nothing"


@pytest.mark.integration
def test_at_the_posterior_the_model_climbs_the_evidence_and_the_guide_rests():
    posterior = jax.vmap(lambda x: jax.nn.log_softmax(log_joint(PARAMS, x)))(IMAGES)
    params = {**PARAMS, "guide": posterior}
    evidence = jax.grad(
        lambda params: jax.vmap(lambda x: jax.nn.logsumexp(log_joint(params, x)))(BATCH).mean()
    )(params)
    for make in (wake_wake, wake_sleep):
        samples = gradients(make(MODEL, num_samples=K), params, 20_000)
        for name in ("lik", "prior"):
            assert_mean(samples[name], -evidence[name])
        assert_mean(samples["guide"], np.zeros((4, STATES)))


@pytest.mark.integration
def test_one_sample_climbs_the_elbo_in_the_model():
    """Hinton et al. (1995): the wake phase is the ELBO's gradient in the model, q held."""

    def elbo(params):
        def one(x):
            log_q = log_guide(PARAMS, x)
            return jnp.sum(jnp.exp(log_q) * (log_joint(params, x) - log_q))

        return jax.vmap(one)(BATCH).mean()

    exact = jax.grad(elbo)(PARAMS)
    samples = gradients(wake_sleep(MODEL, num_samples=1), PARAMS, 20_000)
    for name in ("lik", "prior"):
        assert_mean(samples[name], -exact[name])


@pytest.mark.integration
def test_the_value_is_minus_iwae_and_the_metrics_say_what_pulls_the_guide():
    def key():
        return jax.random.key(4)

    for make, name in ((wake_wake, "wake_phi"), (wake_sleep, "sleep_phi")):
        value, info = make(MODEL, num_samples=5)(PARAMS, key(), BATCH, jnp.int32(0))
        assert set(info.metrics) == {"iwae", name}
        np.testing.assert_allclose(value, -info.metrics["iwae"], rtol=1e-6)
        assert info.metrics[name] > 0  # a cross-entropy of a discrete z
    many, _ = wake_wake(MODEL, num_samples=20_000)(PARAMS, key(), BATCH, jnp.int32(0))
    evidence = jax.vmap(lambda x: jax.nn.logsumexp(log_joint(PARAMS, x)))(BATCH).mean()
    np.testing.assert_allclose(many, -evidence, atol=0.02)


def test_what_wake_sleep_does_not_know_is_refused():
    refused = {
        "update": MODEL._replace(update=lambda key, params, stats: params),
        "train_terms": MODEL._replace(train_terms=MODEL.terms),
    }
    for make in (wake_wake, wake_sleep):
        least = 1 if make is wake_sleep else 2
        with pytest.raises(ValueError, match=f"at least {least}"):
            make(MODEL, num_samples=least - 1)
        for name, model in refused.items():
            with pytest.raises(ValueError, match=f"no {name}"):
                make(model, num_samples=2)
        with pytest.raises(ValueError, match="a model with densities"):
            make(MODEL._replace(densities=None), num_samples=2)
