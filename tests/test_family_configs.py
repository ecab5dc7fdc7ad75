"""`--config.family=NAME`: the same VAE with each family amortised, trained and measured; measures
by draws are exact on average.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import small
from helpers import assert_mean, normal

import vi_jax as vi
from experiments import build, by_draws, measure, settings

pytestmark = pytest.mark.usefixtures("no_key_check")

LEVELS = np.random.default_rng(0).integers(0, 17, (12, 4, 4), dtype=np.uint8)


def config_of(name):
    bound = "analytic_elbo" if name in settings.CLOSED_FORM_KL else "elbo"
    config = small(
        family=name,
        bound=bound,
        model__num_latents=2,
        train__num_steps=2,
        optim__lr_warmup_steps=0,
        optim__ema=0.0,
    )
    settings.validate(config)
    return config, build.model(config, (4, 4), 17)


# one of each kind; all of them with `-m slow`
QUICK = ("low_rank", "mixture", "planar", "real_nvp")
MEMBERS = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in settings.CHOICES["family"]
]


@pytest.mark.parametrize("name", MEMBERS)
def test_two_steps_move_every_parameter(name):
    config, model = config_of(name)
    optimizer = build.optimizer(config)
    step = vi.make_step(build.loss(config, model), optimizer, prepare=build.prepare(config, 17))

    @jax.jit
    def two(key):
        start = vi.init_state(key, model.init, optimizer)
        end, metrics = jax.lax.scan(lambda state, _: step(state, LEVELS), start, length=2)
        return start.params, end.params, metrics

    before, after, metrics = two(jax.random.key(0))
    assert all(np.isfinite(value).all() for value in metrics.values())
    assert "elbo" in metrics
    moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), before, after)
    still = [
        jax.tree_util.keystr(path)
        for path, each in jax.tree_util.tree_flatten_with_path(moved)[0]
        if not each
    ]
    assert not still, f"these parameters did not move: {still}"


@pytest.mark.parametrize("name", MEMBERS)
def test_it_is_measured(name):
    config, model = config_of(name)
    x = jnp.asarray(LEVELS > 8, jnp.float32)
    params = jax.jit(model.init)(jax.random.key(0))
    measures = measure.make_measure(model, config)(jax.random.key(1), params, x)
    summary = measures.summary
    np.testing.assert_allclose(
        summary["elbo"]["mean"], summary["log_lik"]["mean"] - summary["kl"]["mean"], rtol=1e-5
    )
    assert measures.latent_mean.shape == (12, 2)
    assert np.isfinite(measures.latent_mean).all()
    assert summary["num_latents"] == 2
    log_evidence = measure.make_log_evidence(model, num_samples=4, chunk=2, batch_size=5)
    values = log_evidence(jax.random.key(2), params, x)
    assert values.shape == (12,)
    assert abs(values.mean() - summary["elbo"]["mean"]) < 3.0  # of 16 pixels, at the start


def flow_model():
    """q(z | x) = N(z | x, I) as a flow, which states no mean; p(z) = N(0, I), and nothing to
    decode.
    """
    family = vi.families.real_nvp(2)  # six layers, an even number of turns, at the identity
    start = family.init(jax.random.key(0))
    prior = vi.families.mean_field(2).guide({"loc": jnp.zeros(2), "log_scale": jnp.zeros(2)})
    return vi.models.from_densities(
        init=lambda key: {},
        guide=lambda params, x: family.guide({**start, "loc": x}),
        prior=lambda params, x: prior,
        decode=lambda params, x, z: None,
        log_lik=lambda params, x, z: jnp.zeros(()),
    )


def test_measures_by_draws_are_the_exact_ones():
    # the second latent ignores x
    x = jnp.asarray(normal(0, 400, 2) * np.array([0.5, 0.0]), jnp.float32)
    evaluate = jax.jit(
        lambda key: by_draws.evaluate_examples(
            key, flow_model(), {}, x, num_samples=8, batch_size=100
        )
    )
    terms = evaluate(jax.random.key(1))
    assert_mean(terms["kl"]["z"] - 0.5 * (x**2).sum(-1), 0.0)
    np.testing.assert_array_equal(terms["elbo"], -terms["kl"]["z"])
    assert_mean(terms["latent_mean"] - x, np.zeros(2))
    assert_mean(terms["latent_noise"], np.full(2, 1.0 / by_draws.MEAN_DRAWS))
    variance = np.asarray(by_draws.latent_variance(terms))
    np.testing.assert_allclose(variance, np.asarray(x).var(0), atol=5 * 0.5 * 0.1 * 2 / 400**0.5)
    # without the correction it is 0.01, which counts as active
    assert abs(variance[1]) < 5 * 0.01 * (2 / 400) ** 0.5


def test_a_mean_that_is_stated_has_no_noise():
    q = vi.families.student_t(3).guide(
        {"loc": jnp.arange(3.0), "log_scale": jnp.zeros(3), "raw_df": jnp.zeros(3)}
    )
    mean, noise = by_draws.mean_and_noise(jax.random.key(0), q)
    np.testing.assert_array_equal(mean, [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(noise, 0.0)
