"""What --help and --list print: every config, and every member of every room."""

import ast
import pathlib

import pytest

from experiments import listing, rooms, settings
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
    with pytest.raises(UserError, match=r"'prio'; it can be activation, .*prior"):
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
