"""CONTRIBUTING.md is true: its floors are those that are checked, and its paths exist."""

import re
from pathlib import Path

import pytest
from test_stairs import FLOORS, LIBRARY

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
NAMES = re.findall(r"`([A-Za-z_./]+/[A-Za-z_./]*|[a-z_]+\.(?:py|md|toml))`", TEXT)


def test_the_floors_are_those_that_are_checked():
    block = re.search(r"```\n(.*?)```", TEXT, re.S)[1]
    top, *rest = block.strip().splitlines()
    assert top == "experiments/ configs/ benchmarks/"
    printed = [" ".join(sorted(rooms - {"_renamed"})) for rooms in reversed(FLOORS)]
    assert rest == printed, "CONTRIBUTING.md is to print:\n" + "\n".join([top, *printed])


def test_every_room_stands_on_a_floor():
    rooms = {path.stem for path in LIBRARY.iterdir() if not path.name.startswith("_")}
    assert rooms - {"py"} <= {room for floor in FLOORS for room in floor}


@pytest.mark.parametrize("name", sorted(set(NAMES)))
def test_every_path_exists(name):
    places = (ROOT / name, LIBRARY / name)
    assert any(place.exists() for place in places), f"there is no {name}"
