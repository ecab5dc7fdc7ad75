"""What there is to choose from, for `--help` and `--list`: configs, and the members of each room
with their arguments. Read from the sources; nothing is imported or run.
"""

import ast
import re
import textwrap
from pathlib import Path

from experiments import signatures
from experiments.choices import Room
from experiments.errors import UserError
from vi_jax.files import read_bytes

CONFIGS = Path(__file__).parents[1] / "configs"
NO_CONFIGS = ("__init__.py", "base.py")  # files of the folder that are none
WIDTH = 80  # columns of a terminal


def configs(folders: tuple[str, ...]) -> list[str]:
    """A line for each config of some folders of configs/: its path and its first sentence."""
    found = [path for folder in folders for path in sorted((CONFIGS / folder).glob("*.py"))]
    paths = [path for path in found if path.name not in NO_CONFIGS]
    names = [str(path.relative_to(CONFIGS.parent)) for path in paths]
    longest = max(map(len, names), default=0)
    lines = []
    for path, name in zip(paths, names, strict=True):
        docstring = ast.get_docstring(ast.parse(read_bytes(path))) or ""
        start = f"  {name:{longest}}  "
        what = textwrap.shorten(_first_sentence(docstring), WIDTH - len(start), placeholder=" ...")
        lines.append(start + what)
    return lines


def members(room: Room, facts: tuple[str, ...] = ()) -> list[str]:
    """The members of a room, each as it is called in a config and with its first sentence.

    Args:
      room: whose names are listed.
      facts: arguments that are known of the data, and that no config has to give.
    """
    lines = [f"{room.article} is one of these names, or dict(name=..., ...) with arguments:"]
    for name in room.all_names():
        signature = signatures.find(room.module, name)
        hidden = {*room.later, *facts}
        shown = {key: each for key, each in signature.parameters.items() if key not in hidden}
        call = signature._replace(function=name, parameters=shown).describe()
        lines.append("")
        lines += textwrap.wrap(call, WIDTH, initial_indent="  ", subsequent_indent="      ")
        sentence = _first_sentence(signature.summary)
        indent = " " * 4
        lines += textwrap.wrap(sentence, WIDTH, initial_indent=indent, subsequent_indent=indent)
    for name in room.open_names:
        lines += ["", f"  {name}", "    Chosen by the run itself; docs/configs.md says how."]
    lines += ["", "Or a function of your own: FILE.py:FUNCTION (docs/add_a_model.md)."]
    return lines


def find(kind: str, rooms: dict[str, Room]) -> Room:
    """The room of a kind.

    Raises:
      UserError: there is none; says which there are.
    """
    if kind not in rooms:
        raise UserError(f"--list is {kind!r}; it can be {', '.join(sorted(rooms))}.")
    return rooms[kind]


def _first_sentence(docstring: str) -> str:
    """Of its first paragraph, in one line; `et al. 2013` ends no sentence."""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=[^l.]\.) (?=[A-Z`])", paragraph, maxsplit=1)[0]
