"""What --help and --list print: every config, and every member of every room."""

import ast
import pathlib

import pytest

from experiments import command_line, config_file, listing, rooms, settings
from experiments.choices import Room
from experiments.errors import UserError


@pytest.mark.parametrize("kind", rooms.LISTED)
def test_every_member_of_a_room_is_listed_with_its_arguments(kind):
    room = rooms.LISTED[kind]
    lines = listing.members(room, settings.FACTS)
    calls = [line.strip() for line in lines if line.startswith("  ")]
    for name in room.all_names():
        assert any(call.startswith(f"{name}(") for call in calls), name
    assert max(map(len, lines)) <= listing.WIDTH


def test_what_is_passed_later_or_known_of_the_data_is_not_asked_for():
    bounds = "\n".join(listing.members(rooms.BOUND))
    assert "log_w" not in bounds
    assert "renyi(alpha)" in bounds
    models = "\n".join(listing.members(rooms.MODEL, settings.FACTS))
    assert "x_shape" not in models
    assert "sigmoid_belief_net(" in models


def test_each_config_has_a_line_of_its_own():
    lines = listing.configs(("", "neural"))
    paths = [line.split()[0] for line in lines]
    wanted = [path for path in listing.CONFIGS.glob("*.py") if path.name not in listing.NO_CONFIGS]
    assert {f"configs/{path.name}" for path in wanted} < set(paths)
    assert "configs/neural/lfads.py" in paths
    assert max(map(len, lines)) <= listing.WIDTH
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)


def test_an_unknown_kind_is_answered_with_those_there_are():
    with pytest.raises(UserError, match=r"'prio' \(did you mean 'prior'\?\); it can be act"):
        listing.find("prio", rooms.LISTED)


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("One thing. Another.", "One thing."),
        ("As Kingma et al. (2013) say. More.", "As Kingma et al. (2013) say."),
        ("Over two\nlines.\n\nAnother paragraph.", "Over two lines."),
        ("", ""),
    ],
)
def test_the_first_sentence_of_a_docstring(tmp_path, monkeypatch, docstring, sentence):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "one.py").write_text(f'"""{docstring}"""\n')
    monkeypatch.setattr(listing, "CONFIGS", tmp_path / "configs")
    [line] = listing.configs(("",))
    assert line.removeprefix("  configs/one.py").strip() == sentence


def test_a_room_that_is_left_open_says_so():
    room = Room("bound", "vi_jax.bounds", names=("elbo",), open_names=("auto",))
    assert "  auto" in listing.members(room)


def test_the_help_of_every_command_fits_into_80_columns():
    folder = pathlib.Path(listing.__file__).parent
    sources = {path.stem: path.read_text() for path in folder.glob("*.py")}
    commands = {name: text for name, text in sources.items() if '__name__ == "__main__"' in text}
    assert len(commands) >= 9
    for name, text in commands.items():
        lines = listing.fitted(ast.get_docstring(ast.parse(text))).split("\n")
        assert max(map(len, lines)) <= listing.WIDTH, f"experiments.{name} --help"


def test_a_long_line_of_code_stays_a_command():
    command = "    python -m a " + " ".join(f"--flag_{i}=value" for i in range(8)) + "    # why"
    _, _, above, *rest = listing.fitted(f"For one:\n\n{command}").split("\n")
    assert above == "    # why"
    joined = " ".join(line.removesuffix("\\").strip() for line in rest)
    assert joined == command.partition("    # ")[0].strip()


def test_all_kinds_are_listed_with_their_members():
    lines = listing.overview(rooms.LISTED_OF_DOCUMENTS)
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= listing.WIDTH
    assert "model: amortised_lda, etm, nvdm, prodlda, scholar" in text
    assert "estimator: " in text
    assert "auto" in text


@pytest.mark.parametrize("words", [["--list"], ["--list", "--seed=1"], ["--seed=1", "-list"]])
def test_a_list_of_no_kind_asks_for_all(words):
    assert "--list=all" in command_line._with_all_kinds(words)
    assert len(command_line._with_all_kinds(words)) == len(words)


def test_a_list_with_a_kind_is_left_as_it_is():
    assert command_line._with_all_kinds(["--list", "model"]) == ["--list", "model"]


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("vae.py", "train"),
        ("neural/plds.py", "train"),
        ("topics/lda.py", "documents"),
        ("topics/neural.py:etm", "documents"),
        ("posterior/eight_schools.py", "posterior"),
    ],
)
def test_a_config_given_to_another_command_is_sent_to_its_own(file, command):
    config = config_file.read(f"configs/{file}")
    rooms.require_command(config, command)
    other = "posterior" if command == "train" else "train"
    with pytest.raises(UserError, match=rf"experiments\.{other}; run it with .*{command}\."):
        rooms.require_command(config, other)


@pytest.mark.parametrize(
    ("argument", "meant"),
    [("configs/vea.py", "configs/vae.py"), ("configs/vae.py:minst", "mnist")],
)
def test_a_misspelt_config_or_variant_is_answered_with_the_nearest(argument, meant):
    with pytest.raises(UserError, match=rf"\(did you mean '{meant}'\?\)"):
        config_file.read(argument)
