"""`--config.model.family=NAME`: the same VAE with each family amortised, trained and evaluated;
means by samples are exact on average.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import small
from helpers import assert_mean, keys, normal

import vi_jax as vi
from experiments import build, config_file, evals, rooms, settings
from experiments.evals import evidence, latents
from experiments.overrides import Override

pytestmark = pytest.mark.usefixtures("no_key_check")

LEVELS = np.random.default_rng(0).integers(0, 17, (12, 4, 4), dtype=np.uint8)


def config_of(name):
    """A small config with a family, whose KL is closed where it can be."""
    fields = (f"model.family={name}", "model.kl=half_closed", "model.num_latents=2")
    given = [Override(*field.split("=", 1)) for field in fields]
    base = small(train__num_steps=2, train__ema=0.0)
    base.optim.learning_rate = 3e-3
    config = config_file.set_fields(base, given)
    settings.validate(config)
    units = build.units(config, 17)
    facts = {"x_shape": (4, 4), "num_levels": 17, "num_data": 12, "mean": None}
    return config, build.model(config, {**build.sizes(config), **facts}), units


QUICK = ("low_rank", "mixture", "planar", "real_nvp")  # one of each kind; all with `-m slow`
NAMES = [name for name in rooms.FAMILY.all_names() if name != "constrained"]
MEMBERS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in NAMES]


@pytest.mark.cases(rest=None, slow=["low_rank", "real_nvp"])
@pytest.mark.integration
@pytest.mark.parametrize("name", MEMBERS)
def test_two_steps_move_every_parameter(name):
    config, model, units = config_of(name)
    optimizer = build.optimizer(config)
    step = build.step(config, model, units)

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


@pytest.mark.cases(rest=None, slow=["planar", "mixture"])
@pytest.mark.integration
@pytest.mark.parametrize("name", MEMBERS)
def test_it_is_evaluated(name):
    config, model, units = config_of(name)
    x = jnp.asarray(LEVELS > 8, jnp.float32)
    params = jax.jit(model.init)(jax.random.key(0))
    meter = evals.make_meter(evals.Subject(model, config, units), evals.METERS)
    measures = meter.measure(jax.random.key(1), params, x)
    summary = measures.summary
    np.testing.assert_allclose(
        summary["elbo"]["mean"], summary["log_lik"]["mean"] - summary["kl"]["mean"], rtol=1e-5
    )
    assert measures.arrays["latent_mean"]["z"].shape == (12, 2)
    assert np.isfinite(measures.arrays["latent_mean"]["z"]).all()
    assert summary["num_latents"] == 2
    sampled = evidence.make_log_evidence(model, num_samples=4, most=2, batch_size=5)
    values = sampled(jax.random.key(2), params, x).log_p
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


@pytest.mark.integration
def test_means_by_samples_are_the_exact_ones():
    # the second latent ignores x
    x = jnp.asarray(normal(0, 400, 2) * np.array([0.5, 0.0]), jnp.float32)
    model = flow_model()
    mean, noise = jax.vmap(lambda key, x: latents.latent_mean(key, model, {}, x)["z"])(
        keys(1, 400), x
    )
    assert_mean(mean - x, np.zeros(2))
    assert_mean(noise, np.full(2, 1.0 / latents.MEAN_SAMPLES))
    variance = np.asarray(latents._variance(mean, noise))
    np.testing.assert_allclose(variance, np.asarray(x).var(0), atol=5 * 0.5 * 0.1 * 2 / 400**0.5)
    # without the correction it is 0.01, which counts as active
    assert abs(variance[1]) < 5 * 0.01 * (2 / 400) ** 0.5


@pytest.mark.integration
def test_a_mean_that_is_stated_has_no_noise():
    family = vi.families.student_t(3)
    start = {"loc": jnp.arange(3.0), "log_scale": jnp.zeros(3), "raw_df": jnp.zeros(3)}
    model = flow_model()
    model = model._replace(
        densities=model.densities._replace(guide=lambda params, x: family.guide(start))
    )
    mean, noise = latents.latent_mean(jax.random.key(0), model, {}, jnp.zeros(1))["z"]
    np.testing.assert_array_equal(mean, [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(noise, np.zeros(3))
