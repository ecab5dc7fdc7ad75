"""What a config may say: wrong names, sizes and combinations are one sentence each, and every name
that is right builds.
"""

import difflib

import jax
import numpy as np
import optax
import pytest
from command_helpers import small
from hypothesis import given
from hypothesis import strategies as st

import vi_jax as vi
from configs.vae import get_config
from experiments import build, rundir, settings
from experiments.cli import UserError
from experiments.data import BINARISATIONS

FIELDS = settings.flatten(rundir.to_plain(get_config()))
SIZES = (
    *(
        "num_samples",
        "model.num_latents",
        "train.batch_size",
        "train.num_steps",
        "train.log_every",
        "train.eval_every",
    ),
    *(
        "train.checkpoint_every",
        "train.keep_checkpoints",
        "eval.batch_size",
        "eval.num_samples",
        "eval.num_importance_samples",
    ),
    *("optim.learning_rate", "model.sigma_init"),
)
AT_LEAST_0 = (
    *(
        "seed",
        "data.shuffle_seed",
        "data.static_seed",
        "objective.beta",
        "objective.warmup_steps",
        "objective.free_bits",
    ),
    *(
        "optim.lr_warmup_steps",
        "optim.weight_decay",
        "optim.clip_norm",
        "optim.ema",
        "data.device_limit_mb",
    ),
    "eval.active_threshold",
)
# who use them say so
LEFT_TO_OTHERS = {
    "name",
    "data.train",
    "data.validation",
    "data.test",
    "data.data_dir",
    "model.sigma",
}


def changed(changes):
    """The default config with some dotted fields set, whatever their type, as from a
    config.json.
    """
    plain = rundir.to_plain(get_config())
    for field, value in changes.items():
        *folders, name = field.split(".")
        place = plain
        for folder in folders:
            place = place[folder]
        place[name] = value
    return rundir.from_plain(plain)


def refused(**changes):
    """The sentence with which a change of the default config is refused; `a__b` is the field
    a.b.
    """
    with pytest.raises(UserError) as caught:
        settings.validate(
            changed({name.replace("__", "."): value for name, value in changes.items()})
        )
    assert "\n" not in str(caught.value)
    assert str(caught.value)[-1] in ".?"
    return str(caught.value)


@pytest.mark.parametrize("field", settings.CHOICES)
def test_a_wrong_name_is_answered_with_the_names(field):
    names = settings.CHOICES[field]
    text = refused(**{field: names[0][:-1] + "x"})
    assert text.startswith(
        f"config.{field} is {names[0][:-1] + 'x'!r}; it can be {', '.join(names)}"
    )
    close = difflib.get_close_matches(names[0][:-1] + "x", names, n=1)
    assert close, "a name with one letter wrong is near it"
    assert f"did you mean {close[0]!r}?" in text


@pytest.mark.parametrize("field", settings.CHOICES)
def test_a_name_near_nothing_gets_no_guess(field):
    text = refused(**{field: "0123456789"})
    assert "did you mean" not in text
    assert settings.CHOICES[field][-1] in text


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_are_above_0(field, value):
    assert f"config.{field} is {value}; it has to be greater than 0" in refused(**{field: value})


@pytest.mark.parametrize("field", AT_LEAST_0)
def test_amounts_are_at_least_0(field):
    text = refused(**{field: -1})
    assert f"config.{field} is -1" in text
    assert "at least 0" in text


@pytest.mark.parametrize("field", [*SIZES, *AT_LEAST_0, "objective.warmup_ramp"])
@pytest.mark.parametrize("value", ["7", None, True, (), float("nan"), float("inf")])
def test_numbers_are_numbers(field, value):
    """As a config.json edited by hand may have it; on the command line the flag's type sees to
    it.
    """
    assert f"config.{field} is {value!r}" in refused(**{field: value})


@pytest.mark.parametrize("field", sorted(set(FIELDS) - LEFT_TO_OTHERS))
def test_a_missing_field_is_named(field):
    plain = rundir.to_plain(get_config())
    place = plain
    for part in field.split(".")[:-1]:
        place = place[part]
    del place[field.split(".")[-1]]
    with pytest.raises(UserError, match=field):
        settings.validate(rundir.from_plain(plain))


def test_seeds_fit_their_key():
    settings.validate(changed({"seed": 2**32 - 1}))
    assert "below 2^32" in refused(seed=2**32)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(model__hidden=()), "config.model.hidden is (); it has to be whole numbers above 0"),
        (dict(model__hidden=(8, 0)), "whole numbers above 0, such as (500,)"),
        (dict(model__hidden=8), "whole numbers above 0"),
        (dict(model__hidden="8"), "whole numbers above 0"),
        (dict(model__hidden=(8.5,)), "whole numbers above 0"),
        (dict(model__likelihood="categorical"), "set config.data.binarisation=none"),
        (
            dict(model__likelihood="discretized_logistic", data__binarisation="static"),
            "set config.data.binarisation=none",
        ),
        (
            dict(model__likelihood="gaussian"),
            "'gaussian' is of grey levels; set config.data.binarisation=none",
        ),
        (
            dict(
                model__likelihood="gaussian",
                data__binarisation="none",
                model__sigma="optimal",
                bound="iwae",
            ),
            "set config.bound=analytic_elbo, or learn sigma",
        ),
        (
            dict(model__likelihood="gaussian", data__binarisation="none", model__sigma="optimum"),
            "did you mean 'optimal'?",
        ),
        (
            dict(model__likelihood="gaussian", data__binarisation="none", model__sigma="-0.1"),
            "a number above 0, or learned",
        ),
        (
            dict(model__likelihood="gaussian", data__binarisation="none", model__sigma="nan"),
            "a number above 0, or learned",
        ),
        (
            dict(model__likelihood="gaussian", data__binarisation="none", model__sigma=[1]),
            "a number above 0, or learned",
        ),
        (
            dict(bound="iwae", objective__beta=2.0),
            "set config.bound=analytic_elbo or leave them at beta=1",
        ),
        (
            dict(bound="elbo", objective__free_bits=0.1),
            "weigh the closed-form KL, which config.bound='elbo' has not",
        ),
        (
            dict(bound="elbo", objective__warmup="linear", objective__warmup_steps=5),
            "leave them at beta=1, warmup=none",
        ),
        (dict(family="real_nvp"), "which config.family='real_nvp' has not; set config.bound=elbo"),
        (dict(family="full_rank", objective__free_bits=0.1), "they want config.family=mean_field"),
        (
            dict(train__eval_every=300),
            "config.train.eval_every is 300; it has to be a multiple of config.train.log_every, "
            "200",
        ),
        (
            dict(train__checkpoint_every=300),
            "config.train.checkpoint_every is 300; it has to be a multiple",
        ),
        (
            dict(objective__warmup="linear"),
            "config.objective.warmup_steps is 0; a warm-up wants at least 1 step",
        ),
        (dict(objective__warmup="cyclical"), "a warm-up wants at least 1 step"),
        (dict(objective__warmup_ramp=0.0), "above 0 and at most 1"),
        (dict(objective__warmup_ramp=1.5), "above 0 and at most 1"),
        (dict(optim__ema=1.0), "config.optim.ema is 1.0; a decay has to be below 1"),
        (dict(optim__weight_decay=0.1), "only config.optim.name=adamw has it"),
        (dict(optim__lr_warmup_steps=4000), "it has to be below config.train.num_steps, 4000"),
        (dict(eval__split="validation", data__validation=""), "config.data.validation is empty"),
        (dict(data__name="mnits"), "Did you mean 'mnist'?"),
        (dict(data__name="tfds"), "write tfds:NAME"),
        (dict(data__name=3), "config.data.name"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, words):
    assert words in refused(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        dict(model__likelihood="gaussian", data__binarisation="none", model__sigma="optimal"),
        dict(
            model__likelihood="gaussian",
            data__binarisation="none",
            model__sigma="learned",
            bound="iwae",
        ),
        dict(
            model__likelihood="gaussian",
            data__binarisation="none",
            model__sigma="0.1",
            bound="elbo",
        ),
        dict(model__likelihood="categorical", data__binarisation="none"),
        dict(
            objective__warmup="cyclical",
            objective__warmup_steps=10,
            objective__beta=4.0,
            objective__free_bits=0.5,
        ),
        dict(family="full_rank", bound="iwae", num_samples=5),
        dict(family="low_rank"),
        dict(family="neural_spline", bound="iwae", num_samples=5),
        dict(optim__name="adamw", optim__weight_decay=0.1),
        dict(optim__lr_warmup_steps=4000, optim__schedule="constant"),
        dict(eval__split="validation"),
        dict(data__name="tfds:mnist"),
    ],
)
def test_what_goes_together_is_accepted(changes):
    settings.validate(changed({name.replace("__", "."): value for name, value in changes.items()}))


def test_names_and_tables_are_the_same():
    assert set(settings.CHOICES["model.activation"]) == set(build.ACTIVATIONS)
    assert set(settings.CHOICES["family"]) == set(build.FAMILIES)
    assert set(settings.CHOICES["estimator"]) == set(build.ESTIMATORS)
    assert set(settings.CHOICES["bound"]) == {*build.BOUNDS, "analytic_elbo"}
    assert settings.CHOICES["data.binarisation"] == BINARISATIONS


def companions(field, name):
    """What a name needs beside it to be a config at all."""
    more = {}
    if name in ("gaussian", "discretized_logistic", "categorical"):
        more["data__binarisation"] = "none"
    if field == "objective.warmup" and name != "none":
        more["objective__warmup_steps"] = 2
    if field == "family" and name not in settings.CLOSED_FORM_KL:
        more["bound"] = "elbo"
    return more


@pytest.mark.parametrize(
    ("field", "name"),
    [(field, name) for field in settings.CHOICES for name in settings.CHOICES[field]]
    + [("model.sigma", name) for name in (*settings.SIGMAS, "0.3")],
)
def test_every_name_builds(field, name):
    """Model, loss, optimiser, beta and input: one step is traced, and keeps every shape."""
    more = companions(field, name)
    if field == "model.sigma":
        more = dict(model__likelihood="gaussian", data__binarisation="none")
    config = small(model__hidden=(4,), **{field.replace(".", "__"): name, **more})
    settings.validate(config)
    model = build.model(config, (8, 8), 17, np.full((8, 8), 0.5))
    optimizer = build.optimizer(config)
    step = vi.make_step(
        build.loss(config, model),
        optimizer,
        ema_decay=config.optim.ema,
        prepare=build.prepare(config, 17),
    )
    state = jax.eval_shape(
        lambda key: vi.init_state(key, model.init, optimizer, ema=True), jax.random.key(0)
    )
    after, metrics = jax.eval_shape(step, state, jax.ShapeDtypeStruct((5, 8, 8), np.uint8))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert {"loss", "grad_norm", build.metric_name(config)} <= set(metrics)


@pytest.mark.parametrize("schedule", settings.CHOICES["optim.schedule"])
@pytest.mark.parametrize("warmup", [0, 10])
def test_learning_rate_rises_and_ends_as_its_schedule_says(schedule, warmup):
    config = small(
        optim__schedule=schedule,
        optim__lr_warmup_steps=warmup,
        optim__learning_rate=0.5,
        train__num_steps=50,
    )
    rate = build.learning_rate(config)
    if warmup:
        np.testing.assert_allclose([rate(0), rate(5)], [0.0, 0.25], atol=1e-6)
    np.testing.assert_allclose(rate(warmup), 0.5, rtol=1e-6)
    np.testing.assert_allclose(rate(50), 0.5 if schedule == "constant" else 0.0, atol=1e-6)
    middle = {"constant": 0.5, "cosine": 0.25, "linear": 0.25}[schedule]
    np.testing.assert_allclose(rate(warmup + (50 - warmup) // 2), middle, rtol=1e-5)


def test_clip_norm_bounds_the_update():
    gradient = {"a": np.full(4, 100.0, np.float32)}
    config = small(
        optim__name="sgd",
        optim__schedule="constant",
        optim__learning_rate=1.0,
        optim__lr_warmup_steps=0,
    )
    for clip_norm, want in ((0.0, 200.0), (0.5, 0.5)):
        config.optim.clip_norm = clip_norm
        optimizer = build.optimizer(config)
        update, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
        np.testing.assert_allclose(optax.tree.norm(update), want, rtol=1e-5)


def test_beta_of_a_config():
    assert build.beta(small(objective__beta=3.0)) == 3.0
    linear = build.beta(
        small(objective__beta=3.0, objective__warmup="linear", objective__warmup_steps=10)
    )
    np.testing.assert_allclose(
        [linear(0), linear(5), linear(10), linear(99)], [0.0, 1.5, 3.0, 3.0], rtol=1e-6
    )
    cyclical = build.beta(
        small(objective__beta=3.0, objective__warmup="cyclical", objective__warmup_steps=10)
    )
    np.testing.assert_allclose(
        [cyclical(0), cyclical(5), cyclical(9), cyclical(10)], [0.0, 3.0, 3.0, 0.0], rtol=1e-6
    )


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-2, 300),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(-2, 9), st.text(max_size=2)), max_size=3),
    st.sampled_from(sum(settings.CHOICES.values(), ())),
    st.just({}),
)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), VALUES, min_size=1, max_size=3))
def test_any_values_are_accepted_or_one_sentence(changes):
    text = ""
    try:
        settings.validate(changed(changes))
    except UserError as error:
        text = str(error)
    assert "\n" not in text
