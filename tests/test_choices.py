"""A name plus numbers is a call: signatures from source, choices of rooms, overrides of fields."""

import subprocess
import sys

import pytest

from experiments import overrides, signatures
from experiments.choices import Room, Rooms
from experiments.cli import UserError
from experiments.overrides import Override

BOUND = Room("bound", "vi_jax.bounds", later=("log_w",), is_called=False)
SCHEDULE = Room("schedule", "optax", names=("constant_schedule", "cosine_decay_schedule"))
OPTIMISER = Room("optimiser", "optax", names=("adam", "adamw", "sgd"))
ROOMS = Rooms({"learning_rate": SCHEDULE, "bound": BOUND})
COSINE = {"name": "cosine_decay_schedule", "init_value": 1e-3}


@pytest.mark.parametrize(
    ("module", "name", "argument"),
    [
        ("optax", "adamw", "weight_decay"),
        ("optax.contrib", "muon", "learning_rate"),
        ("jax.nn", "leaky_relu", "negative_slope"),
        ("flax.linen", "gelu", "approximate"),
        ("vi_jax.bounds", "vr_iwae", "alpha"),
        ("vi_jax.methods", "advi", "num_steps"),
        ("vi_jax", "elbo", "num_samples"),
    ],
)
def test_signatures_are_read_through_re_exports(module, name, argument):
    assert argument in signatures.find(module, name).parameters


def test_nothing_slow_is_imported_to_check_a_choice():
    code = (
        "import sys; from experiments import signatures; signatures.find('vi_jax.bounds', 'iwae');"
        "signatures.find('optax', 'adam'); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("room", "value", "message"),
    [
        (BOUND, "iwea", "did you mean 'iwae'"),
        (BOUND, 3, "a bound is a name"),
        (BOUND, {"name": "vr_iwae"}, "vr_iwae needs 'alpha'"),
        (BOUND, {"name": "vr_iwae", "alpa": 0.2}, "no argument 'alpa' .did you mean 'alpha'"),
        (BOUND, {"name": "iwae", "log_w": 1}, "no argument 'log_w'"),
        (OPTIMISER, {"name": "adam"}, "adam needs 'learning_rate'"),
        (OPTIMISER, {"name": "adam", "learning_rate": "cosine"}, "x.learning_rate is 'cosine'"),
        (BOUND, "absent.py:mine", "absent.py cannot be read"),
        (BOUND, "no_such_package.x:mine", "there is no module no_such_package.x"),
        (BOUND, "json:no_such_function", "json defines no function no_such_function"),
    ],
)
def test_what_is_wrong_with_a_choice_is_said(room, value, message):
    with pytest.raises(UserError, match=message):
        ROOMS.check(room, value, where="config.x")


def test_a_choice_is_built_with_its_inner_choices_and_the_facts():
    choice = {"name": "adam", "learning_rate": COSINE}
    adam = ROOMS.build(OPTIMISER, choice, where="config.optim", facts={"decay_steps": 10})
    assert adam.init({"w": 0.0})
    bound = ROOMS.build(BOUND, {"name": "vr_iwae", "alpha": 0.5}, where="config.bound", facts={})
    assert bound.keywords == {"alpha": 0.5}


def test_a_refused_argument_is_said_in_the_words_of_the_function():
    room = Room("likelihood", "vi_jax.models.likelihoods", names=("gaussian",))
    with pytest.raises(UserError, match=r"config\.likelihood: gaussian: .*sigma > 0"):
        ROOMS.build(room, {"name": "gaussian", "sigma": -1.0}, where="config.likelihood", facts={})


def test_a_function_of_the_users_own_file_and_its_helper(tmp_path):
    (tmp_path / "helper_of_mine.py").write_text("TWO = 2.0\n")
    file = tmp_path / "mine.py"
    file.write_text(
        "from helper_of_mine import TWO\n"
        "def half(log_w, *, scale=1.0):\n    return scale * log_w.mean() / TWO\n"
    )
    name = f"{file}:half"
    bound = ROOMS.build(BOUND, {"name": name, "scale": 4.0}, where="config.bound", facts={})
    import numpy as np

    assert bound(np.ones(3)) == 2.0
    assert list(ROOMS.outside(BOUND, name)) == [name]
    assert not list(ROOMS.outside(BOUND, "iwae"))
    with pytest.raises(UserError, match="no argument 'scael'"):
        ROOMS.check(BOUND, {"name": name, "scael": 4.0}, where="config.bound")
    file.write_text("import no_such_module\ndef half(log_w): ...\n")
    (tmp_path / "broken.py").write_text("1 / 0\ndef half(log_w): ...\n")
    with pytest.raises(UserError, match="importing it failed: ZeroDivisionError"):
        ROOMS.build(BOUND, f"{tmp_path / 'broken.py'}:half", where="config.bound", facts={})


CONFIG = {
    "seed": 0,
    "optim": {"name": "adamw", "learning_rate": COSINE, "weight_decay": 0.1},
    "train": {"num_steps": 10, "ratio": 0.5, "widths": (3, 4), "keep": False},
}
CHOICES = {"optim": OPTIMISER}


def set_fields(*pairs):
    """The config after overrides, and the notes."""
    given = [Override(field, text) for field, text in pairs]
    return overrides.apply(CONFIG, given, rooms=ROOMS, choices=CHOICES)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("seed", "3", 3),
        ("train.ratio", "2", 2.0),
        ("train.ratio", "1e-3", 1e-3),
        ("train.widths", "(1,2)", (1, 2)),
        ("train.widths", "5", (5,)),
        ("train.widths", "()", ()),
        ("train.keep", "true", True),
        ("optim.b1", "0.5", 0.5),  # at its default in the file
        ("optim.learning_rate", "0.1", 0.1),
        ("optim.learning_rate.alpha", "0.1", 0.1),
    ],
)
def test_fields_keep_their_types_and_functions_bring_their_arguments(field, text, value):
    config, notes = set_fields((field, text))
    assert overrides.flatten(config)[field] == value
    assert not notes
    assert overrides.flatten(CONFIG).get(field) != value, "the config that came is left as it was"


def test_another_name_drops_the_arguments_that_it_does_not_take_and_says_so():
    config, notes = set_fields(("optim.momentum", "0.9"), ("optim.name", "sgd"))
    assert config["optim"] == {"name": "sgd", "learning_rate": COSINE, "momentum": 0.9}
    assert notes == ["config.optim is 'sgd' now; weight_decay=0.1 of 'adamw' is dropped."]
    config, notes = set_fields(("optim.learning_rate", "constant_schedule"))
    assert config["optim"]["learning_rate"] == "constant_schedule"
    assert "init_value=0.001" in notes[0]
    config, _ = set_fields(("optim", "sgd"), ("optim.learning_rate", "0.1"))
    assert config["optim"] == {"name": "sgd", "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("num_steps", "3", "no field 'num_steps'; did you mean 'train.num_steps'"),
        ("train.num_stesp", "3", "did you mean 'train.num_steps'"),
        ("train.num_steps.more", "3", "config.train.num_steps is 10 and has no field"),
        ("train.num_steps", "1.5", "a whole number"),
        ("train.num_steps", "many", "a whole number"),
        ("train.ratio", "x", "it has to be a number"),
        ("train.ratio", "1" + 400 * "0", "it has to be a finite number"),
        ("train.keep", "maybe", "True or False"),
        ("train.widths", "x", "a tuple"),
        ("train", "3", "a group of fields: num_steps"),
        ("optim.learning_rates", "3", "no argument 'learning_rates' .did you mean"),
        ("optim.name", "adan", "did you mean 'adam'"),
        ("optim.learning_rate", "cosine_decay_schedul", "did you mean 'cosine_decay_schedule'"),
    ],
)
def test_what_is_wrong_with_an_override_is_said(field, text, message):
    with pytest.raises(UserError, match=message):
        set_fields((field, text))


def test_a_flag_that_is_given_as_a_field_is_named(monkeypatch):
    monkeypatch.setattr(overrides.flags, "FLAGS", {"workdir": None})
    with pytest.raises(UserError, match="a flag of the command: --workdir=VALUE"):
        set_fields(("workdir", "runs/mine"))


def test_overrides_are_split_from_the_command_line():
    argv = ["train", "--config=a.py", "--config.a.b=1", "--config.c", "--workdir=x"]
    rest, found = overrides.split([*argv, "--noconfig.d", "--config.e", "5", "-config.f=g=h"])
    assert rest == ["train", "--config=a.py", "--workdir=x"]
    assert found == [
        Override("a.b", "1"),
        Override("c", "true"),
        Override("d", "false"),
        Override("e", "5"),
        Override("f", "g=h"),
    ]
