"""What there is to choose from, for `--help` and `--list`: configs, and the members of each room
with their arguments. Read from the sources; nothing is imported or run.
"""

import ast
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from absl import flags

from experiments import signatures
from experiments.choices import Room
from experiments.cli import suggest
from experiments.errors import UserError
from experiments.terminal import WIDTH
from vi_jax.files import read_bytes

CONFIGS = Path(__file__).parents[1] / "configs"
NO_CONFIGS = ("__init__.py", "base.py")  # files of the folder that are none
ALL = "all"  # of --list: the rooms, each with the names of its members; --list alone is the same


def define_flag() -> None:
    """--list, of the commands whose configs make choices."""
    flags.DEFINE_string(
        "list",
        None,
        "A kind of choice, such as model, whose members are printed; alone, all kinds.",
    )


def is_asked(rooms: Mapping[str, Room], facts: tuple[str, ...] = ()) -> bool:
    """Whether --list is given; prints what it asks for.

    Raises:
      UserError: there is no such kind.
    """
    kind = flags.FLAGS.list
    if kind is None:
        return False
    found = overview(rooms) if kind in (ALL, "") else members(find(kind, rooms), facts)
    print("\n".join(found))
    return True


def overview(rooms: Mapping[str, Room]) -> list[str]:
    """The kinds of choice, each with the names of its members."""
    lines = ["--list=KIND prints what a kind holds, with arguments:"]
    for kind, room in rooms.items():
        names = ", ".join((*room.all_names(), *room.open_names))
        lines.append("")
        lines += textwrap.wrap(
            f"{kind}: {names}", WIDTH, initial_indent="  ", subsequent_indent="      "
        )
    return lines


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
    opening = f"{room.article} is one of these names, or dict(name=..., ...) with arguments:"
    lines = textwrap.wrap(opening, WIDTH)
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


def find(kind: str, rooms: Mapping[str, Room]) -> Room:
    """The room of a kind.

    Raises:
      UserError: there is none; says which there are.
    """
    if kind not in rooms:
        near = suggest(kind, sorted(rooms))
        raise UserError(f"--list is {kind!r}{near}; it can be {', '.join(sorted(rooms))} or {ALL}.")
    return rooms[kind]


def _first_sentence(docstring: str) -> str:
    """Of its first paragraph, in one line; `et al. 2013` ends no sentence."""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=[^l.]\.) (?=[A-Z`])", paragraph, maxsplit=1)[0]


def fitted(text: str) -> str:
    """The docstring of a command in lines of at most 80 columns: prose is wrapped anew; of a line
    of code that is too long the comment goes above it, and the rest goes on after a backslash.
    """
    parts = []
    for part in text.strip().split("\n\n"):
        if part.startswith("    "):
            parts.append("\n".join(line for each in part.split("\n") for line in _code(each)))
        else:
            parts.append(textwrap.fill(part, WIDTH, break_on_hyphens=False))
    return "\n\n".join(parts)


def _code(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    command, _, comment = line.partition("    # ")
    above = [f"    # {comment}"] if comment else []
    lines = textwrap.wrap(
        command.rstrip(),
        WIDTH - 2,
        subsequent_indent="        ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines[0] = "    " + lines[0].strip()
    return [*above, *(f"{each} \\" for each in lines[:-1]), lines[-1]]
