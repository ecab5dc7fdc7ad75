"""What a config may say: wrong names, sizes and combinations are one sentence each, and every
function of every room is reachable from a config.
"""

import ast
import contextlib
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from command_helpers import ROOT, small
from hypothesis import given
from hypothesis import strategies as st

import vi_jax as vi
from configs.posterior import eight_schools
from configs.vae import get_config
from experiments import build, config_file, rooms, settings, signatures
from experiments.choices import Room
from experiments.cli import UserError
from experiments.data.fields import BINARISATIONS
from experiments.overrides import Override, flatten
from experiments.posteriors import config as posterior_config
from experiments.rooms import ROOMS
from experiments.run.record import from_plain, to_plain
from vi_jax.models.table_vae import Column

DEFAULT = config_file.set_fields(get_config(), [])
FIELDS = flatten(to_plain(DEFAULT))
OURS = sorted(name for name in FIELDS if name.split(".")[0] not in settings.FUNCTIONS)
LEFT_TO_OTHERS = {"name", "data.train", "data.validation", "data.test", "data.data_dir"}


def changed(changes):
    """The default config with some dotted fields set, whatever their type, as from a
    config.json.
    """
    plain = to_plain(DEFAULT)
    for field, value in changes.items():
        *folders, name = field.split(".")
        place = plain
        for folder in folders:
            place = place[folder]
        place[name] = value
    return from_plain(plain)


def refused(changes):
    """The sentence with which a change of the default config is refused."""
    with pytest.raises(UserError) as caught:
        settings.validate(changed(changes))
    text = str(caught.value)
    assert "\n" not in text
    assert text[-1] in ".?"
    return text


@pytest.mark.parametrize("field", settings.CHOICES)
def test_a_wrong_name_is_answered_with_the_names(field):
    names = settings.CHOICES[field]
    text = refused({field: names[0][:-1] + "x"})
    assert text.startswith(f"config.{field} is")
    assert ", ".join(names) in text
    assert f"did you mean {names[0]!r}?" in text
    assert "did you mean" not in refused({field: "0123456789"})


@pytest.mark.parametrize("field", settings.POSITIVE)
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_are_above_0(field, value):
    assert f"config.{field} is {value}; it has to be greater than 0" in refused({field: value})


@pytest.mark.parametrize("field", [*settings.NOT_NEGATIVE, *settings.SEEDS])
def test_amounts_are_at_least_0(field):
    text = refused({field: -1})
    assert f"config.{field} is -1" in text
    assert "at least 0" in text


@pytest.mark.parametrize("field", [*settings.POSITIVE, *settings.NOT_NEGATIVE, *settings.SEEDS])
@pytest.mark.parametrize(
    "value",
    ["7", None, True, (), float("nan"), float("inf"), 10**400],
    ids=lambda value: repr(value)[:5],
)
def test_numbers_are_numbers(field, value):
    """As a config.json edited by hand may have it; the command line sees to types itself."""
    assert f"config.{field} is {value!r}" in refused({field: value})


@pytest.mark.parametrize("field", sorted(set(OURS) - LEFT_TO_OTHERS))
def test_a_missing_field_is_named(field):
    plain = to_plain(DEFAULT)
    place = plain
    for part in field.split(".")[:-1]:
        place = place[part]
    del place[field.split(".")[-1]]
    with pytest.raises(UserError, match=field):
        settings.validate(from_plain(plain))


def test_a_field_that_no_one_reads_is_named():
    assert "did you mean 'num_steps'" in refused({"train.num_stesp": 3})


def test_seeds_fit_their_key():
    settings.validate(changed({"seed": 2**32 - 1}))
    assert "below 2^32" in refused({"seed": 2**32})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.network": {"name": "mpl"}}, "config.model.network is 'mpl'; a network can be"),
        ({"model.prior.num_components": 3}, "standard_normal has no argument 'num_components'"),
        ({"model.family": 3}, "config.model.family is 3"),
        ({"model": {"num_latents": 3}}, "a model is a name, or dict(name=..., ...)"),
        ({"model.num_latens": 3}, "did you mean 'num_latents'"),
        ({"objective": {"name": "negative_bound", "bound": "iwae"}}, "needs 'estimator'"),
        ({"objective.beta": {"name": "linear_warmpu"}}, "did you mean 'linear_warmup'"),
        ({"optim": {"name": "adam"}}, "adam needs 'learning_rate'"),
        ({"optim.weight_decay": 0.1}, "adam has no argument 'weight_decay'"),
        ({"train.eval_every": 300}, "a multiple of config.train.log_every, 200"),
        ({"train.checkpoint_every": 300}, "config.train.checkpoint_every is 300; it has to be a"),
        ({"train.ema": 1.0}, "config.train.ema is 1.0; a decay has to be below 1"),
        ({"train.num_steps": 2**31}, "at most 2,147,483,647"),
        ({"eval.split": "validation", "data.validation": ""}, "config.data.validation is empty"),
        ({"data.name": "mnits"}, "Did you mean 'mnist'?"),
        ({"data.name": "tfds"}, "write tfds:NAME"),
        ({"data.name": 3}, "config.data.name"),
        ({"sweep.learning_rates": (1e-3, 1e-3)}, "different numbers above 0"),
        ({"replicas": 2, "train.loop": "stepwise"}, "config.train.loop=compiled"),
        ({"mesh.data": 0}, "a number of devices"),
        ({"mesh.data": -1, "mesh.model": -1}, "both -1"),
        ({"train": 3}, "a group of fields"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, words):
    assert words in refused(changes)


def test_names_of_binarisations_are_the_same_everywhere():
    assert settings.CHOICES["data.binarisation"] == BINARISATIONS


@pytest.mark.parametrize(("old", "new"), rooms.RENAMED.items())
def test_a_field_of_an_older_version_is_answered_with_its_new_name(old, new):
    with pytest.raises(UserError, match=f"--config.{old} is --config.{new.split()[0]}"):
        config_file.set_fields(get_config(), [Override(old, "1")])


# --- every function of every room, from a config
# --------------------------------------------------------------------------------------------------

# arguments that have no default, and that no run or data set knows
ARGUMENTS = {
    "bound": {
        "ciwae": {"beta": 0.3},
        "jackknife": {"order": 1},
        "miwae": {"num_groups": 2},
        "renyi": {"alpha": 0.5},
        "vr_iwae": {"alpha": 0.3},
        "sumo": {"stop": 2.0},
    },
    "likelihood": {"gaussian": {"sigma": 0.3}},
    "prior": {name: {"num_latents": 3} for name in ("flow", "mixture_of_gaussians")}
    | {"standard_normal": {"num_latents": 3}},
    "model": {
        name: {"num_latents": 3}
        for name in (
            *("vae", "conditional_vae", "discrete_vae", "semi_supervised_vae", "sequence_vae"),
            "table_vae",
        )
    }
    | {
        name: {"num_latents": 3, "likelihood": "poisson"}  # the columns are of two kinds
        for name in ("gpfa", "lfads", "poisson_lds")
    }
    | {"slds": {"num_latents": 3, "num_states": 2, "likelihood": "poisson"}},
    "schedule": {"constant": {"peak": 0.1}, "cosine": {"peak": 0.1}, "linear": {"peak": 0.1}},
}
DEFAULTS = {
    "schedule": {"num_steps": 5},
    "objective": {"num_samples": 2, "bound": "iwae", "estimator": "dreg"},
    "optimiser": {"learning_rate": 0.1},
}
FACTS = {
    "x_shape": (4, 4),
    "num_levels": 17,
    "num_data": 100,
    "num_labels": 10,
    "label_copies": 2,
    "mean": np.full((4, 4), 0.5),
    "rows": np.random.default_rng(0).uniform(size=(500, 4, 4)),
    "total_steps": 50,
    "dtype": None,
    "num_classes": 10,
    "output_bias": np.zeros((4, 4, 1)),
    "columns": (Column("gaussian"), Column("ordinal", num_levels=3)),  # of a table
    "num_covariates": 1,
    "has_exposure": True,
    "max_steps": 5,  # of sequences
    "num_words": 7,  # of documents
}
ROOM_OF = {room.kind: room for room in vars(rooms).values() if isinstance(room, Room)}
EVERYTHING = [(kind, name) for kind, room in ROOM_OF.items() for name in room.all_names()]


def choice_of(kind, name):
    """A choice with the arguments that its function cannot do without."""
    room = ROOM_OF[kind]
    takes = signatures.find(room.module, name).parameters
    own = ARGUMENTS.get(kind, {}).get(name)
    if own is None:
        required = {each.name for each in takes.values() if each.is_required}
        own = {k: v for k, v in DEFAULTS.get(kind, {}).items() if k in required}
        if kind == "objective" and "num_samples" in takes:
            own["num_samples"] = 2
    return {"name": name, **own}


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_everything_is_reachable_from_a_config(kind, name):
    found = ROOMS.build(ROOM_OF[kind], choice_of(kind, name), where=f"config.{kind}", facts=FACTS)
    assert found is not None or name == "default"


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_every_option_is_reachable_from_a_config(kind, name):
    """Those with a default are given it, as its source has it, where a config can hold that."""
    room = ROOM_OF[kind]
    options = choice_of(kind, name)
    for option, parameter in signatures.find(room.module, name).parameters.items():
        if parameter.is_required or option in (*room.later, *options):
            continue
        with contextlib.suppress(ValueError):  # a function, or a constant of its module
            options[option] = ast.literal_eval(parameter.default)
    found = ROOMS.build(room, options, where=f"config.{kind}", facts=FACTS)
    assert found is not None or name == "default"


def test_no_public_function_of_the_library_is_left_out():
    """A new bound, estimator, family or method can be named by a config at once."""
    for kind in ("bound", "estimator", "family", "prior", "likelihood", "model"):
        room = ROOM_OF[kind]
        assert set(room.all_names()) | set(room.without) == set(signatures.members(room.module))
    folder = Path(vi.methods.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert set(rooms.METHOD.all_names()) == files


@pytest.mark.parametrize("name", rooms.METHOD.all_names())
def test_methods_take_their_options_from_a_config(name):
    """`--config.method=NAME --config.method.OPTION=...` of a posterior."""
    config = eight_schools.get_config()
    given = [Override("method", name)]
    if name == "advi":
        given += [Override("method.family", "full_rank"), Override("method.num_draws", "3")]
    config = config_file.set_fields(config, given)
    posterior_config.validate(config)
    method = ROOMS.build(rooms.METHOD, config.method, where="config.method", facts={})
    assert method is None if name == "default" else method.name


KINDS_OF_MODELS = ("model", "network", "likelihood", "family", "prior")
LAYOUTS = {"experiments/figures/page.py": {"constrained"}}  # a word of matplotlib's
KINDS_OF_COLUMNS = {f"experiments/data/{name}.py" for name in ("columns", "kinds")}


def names_in(source):
    """The names of models, networks, likelihoods, families and priors that a source spells out."""
    names = {name for kind in KINDS_OF_MODELS for name in ROOM_OF[kind].all_names()}
    nodes = ast.walk(ast.parse(source))
    return {node.value for node in nodes if isinstance(node, ast.Constant)} & names


@pytest.mark.integration
def test_what_a_model_is_made_of_is_asked_by_name_in_build_alone():
    """Elsewhere by what it can do, so that a new one, or a user's own, is treated like ours."""
    homes = {"experiments/build.py", "experiments/rooms.py", "experiments/posteriors/methods.py"}
    homes |= KINDS_OF_COLUMNS  # are named as the likelihoods are
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        found = names_in(path.read_text()) - LAYOUTS.get(name, set())
        assert not found or name in homes, f"{name} asks for {', '.join(found)} by name"
    assert names_in("if config.model.likelihood == 'bernoulli': pass") == {"bernoulli"}


def trace(config):
    """One step of a config, traced on digits of 4 x 4: the metrics."""
    settings.validate(config)
    known = {**FACTS, **build.sizes(config)}
    units = build.units(config, 17)
    if units.support != "binary":
        known["output_bias"] = None
    model = build.model(config, known)
    optimizer = build.optimizer(config)
    step = build.step(config, model, units, num_data=FACTS["num_data"])
    state = jax.eval_shape(
        lambda key: vi.init_state(key, model.init, optimizer, ema=bool(config.train.ema)),
        jax.random.key(0),
    )
    after, metrics = jax.eval_shape(step, state, jax.ShapeDtypeStruct((5, 4, 4), np.uint8))
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), after, state)
    assert all(jax.tree.leaves(same))
    return metrics


def with_fields(*fields):
    """The small config with `FIELD=VALUE` set as on the command line."""
    given = [Override(*field.split("=", 1)) for field in fields]
    return config_file.set_fields(small(model__network__hidden=(4,)), given)


@pytest.mark.cases(
    rest="slow",
    default=["mean_field", "full_rank", "planar"],
    integration=["mixture", "student_t", "gaussian_markov_chain", "sylvester"],
)
@pytest.mark.parametrize("name", rooms.FAMILY.all_names())
def test_every_family_trains_from_a_config(name):
    if name == "constrained":
        pytest.skip("its argument is the latents' supports: it is for code, not for amortising")
    metrics = trace(with_fields(f"model.family={name}", "model.kl=half_closed"))
    assert {"loss", "grad_norm", "elbo"} <= set(metrics)


@pytest.mark.parametrize("name", ["gaussian_learned", "gaussian_optimal", "categorical"])
def test_likelihoods_train_from_a_config(name):
    fields = (f"model.likelihood={name}", "data.binarisation=none")
    assert "elbo" in trace(with_fields(*fields))


@pytest.mark.parametrize(
    ("bound", "estimator"), [("iwae", "dreg"), ("elbo", "stl"), ("jackknife", "reparam")]
)
def test_bounds_and_estimators_train_from_a_config(bound, estimator):
    fields = ("objective=negative_bound", f"objective.bound={bound}", "objective.num_samples=3")
    assert bound in trace(with_fields(*fields, f"objective.estimator={estimator}"))


@pytest.mark.parametrize("name", rooms.OPTIMISER.all_names())
def test_optimisers_take_a_schedule(name):
    config = with_fields(
        f"optim={name}", "optim.learning_rate=cosine", "optim.learning_rate.peak=1e-3"
    )
    assert callable(build.optimizer(config).update)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("warmup", [0, 10])
def test_learning_rate_rises_and_ends_as_its_schedule_says(schedule, warmup):
    choice = {"name": schedule, "peak": 0.5, "warmup_steps": warmup}
    config = small(train__num_steps=50)
    config.optim.learning_rate = choice
    rate = build.learning_rate(config)
    if warmup:
        np.testing.assert_allclose([rate(0), rate(5)], [0.0, 0.25], atol=1e-6)
    np.testing.assert_allclose(rate(warmup), 0.5, rtol=1e-6)
    np.testing.assert_allclose(rate(50), 0.5 if schedule == "constant" else 0.0, atol=1e-6)
    middle = {"constant": 0.5, "cosine": 0.25, "linear": 0.25}[schedule]
    np.testing.assert_allclose(rate(warmup + (50 - warmup) // 2), middle, rtol=1e-5)


def test_clip_norm_bounds_the_update():
    gradient = {"a": np.full(4, 100.0, np.float32)}
    config = with_fields("optim=sgd", "optim.learning_rate=1.0")
    for clip_norm, expected in ((0.0, 200.0), (0.5, 0.5)):
        with config.unlocked():
            config.train.clip_norm = clip_norm
        optimizer = build.optimizer(config)
        update, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
        np.testing.assert_allclose(optax.tree.norm(update), expected, rtol=1e-5)


def test_beta_of_a_config():
    assert build.beta(with_fields("objective.beta=3.0"))(0) == 3.0
    names = ("objective.beta.num_steps=10", "objective.beta.final=3.0")
    linear = build.beta(with_fields("objective.beta=linear_warmup", *names))
    np.testing.assert_allclose(
        [linear(0), linear(5), linear(10), linear(99)], [0.0, 1.5, 3.0, 3.0], rtol=1e-6
    )
    cyclical = build.beta(with_fields("objective.beta=cyclical_warmup", *names))
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
    st.sampled_from([name for _, name in EVERYTHING]),
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


# --- what is meant
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("num_steps", "train.num_steps"),
        ("steps", "train.num_steps"),
        ("learning_rate", "optim.learning_rate"),
        ("latents", "model.num_latents"),
        ("batch_size", "train.batch_size"),
        ("data.num_step", "train.num_steps"),
    ],
)
def test_a_field_that_is_not_there_is_answered_by_the_nearest_of_its_last_word(field, meant):
    with pytest.raises(UserError, match=f"no field '{field}'; did you mean '{meant}'"):
        with_fields(f"{field}=3")


@pytest.mark.parametrize(
    ("given", "field", "expected"),
    [
        (("train.num_steps=50",), "optim.learning_rate.warmup_steps", 5),
        (("train.num_steps=101",), "optim.learning_rate.warmup_steps", 100),
        (("train.num_steps=1",), "optim.learning_rate.warmup_steps", 0),
        (
            ("train.num_steps=50", "objective.beta=linear_warmup", "objective.beta.num_steps=50"),
            "objective.beta.num_steps",
            25,
        ),
    ],
)
def test_a_run_shorter_than_its_warm_up_shortens_it_and_says_so(given, field, expected, capsys):
    config = with_fields("optim.learning_rate.warmup_steps=100", *given)
    assert settings.get(config, field) == expected
    assert (f"config.{field} is {expected} now" in capsys.readouterr().err) == (expected != 100)
    build.learning_rate(config)(0)
