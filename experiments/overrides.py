"""Fields of a config set from the command line: `--config.FIELD=VALUE`.

A field keeps the type that it has in the config file. Where a field holds a choice of a room
(`experiments.choices`), its name may be set, and then the arguments that the new function does not
take are dropped with a note; arguments that the function takes may be set though the file leaves
them at their defaults.
"""

import ast
import difflib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from experiments.choices import NAME, Room, Rooms, as_choice, find
from experiments.cli import UserError, suggest

PREFIX = "--config."
TRUE = ("true", "1", "yes")
FALSE = ("false", "0", "no")
USUAL = ("train.", "optim.", "model.")  # groups whose fields are meant first


class Override(NamedTuple):
    """One field of the command line."""

    field: str  # dotted
    text: str


def split(argv: Sequence[str]) -> tuple[list[str], list[Override]]:
    """The command line without its overrides, and those.

    `--config.FIELD VALUE` and `-config.FIELD=VALUE` are read as `--config.FIELD=VALUE` is; a bare
    `--config.FIELD` is True, and `--noconfig.FIELD` False.

    Raises:
      UserError: a field is followed by no value.
    """
    rest = []
    found = []
    waiting = list(argv)
    while waiting:
        word = waiting.pop(0)
        flag = "-" + word if word.startswith("-config.") else word
        if word == "--":
            rest += [word, *waiting]
            break
        if flag.startswith("--noconfig."):
            found.append(Override(flag.removeprefix("--noconfig."), "false"))
        elif flag.startswith(PREFIX) and "=" in flag:
            field, _, text = flag.removeprefix(PREFIX).partition("=")
            found.append(Override(field, text))
        elif flag.startswith(PREFIX):
            is_bare = not waiting or waiting[0].startswith("--")
            text = "true" if is_bare else waiting.pop(0)
            found.append(Override(flag.removeprefix(PREFIX), text))
        else:
            rest.append(word)
    return rest, found


def apply(
    config: Mapping[str, Any],
    overrides: Sequence[Override],
    *,
    rooms: Rooms,
    choices: Mapping[str, Room],
) -> tuple[dict[str, Any], list[str]]:
    """A config with fields set, and notes of what was dropped on the way.

    Args:
      config: as the file gave it.
      overrides: in the order of the command line; a name goes before its arguments, wherever it
        stands.
      rooms: for the arguments of choices.
      choices: top-level fields that are choices, and their rooms.

    Raises:
      UserError: there is no such field, or the value is not of its type.
    """
    fields = _copy(config)
    notes: list[str] = []
    ordered = sorted(overrides, key=lambda each: _rank(each.field))
    for override in ordered:
        _set(fields, override, rooms, choices, notes)
    return fields, notes


def _rank(field: str) -> int:
    """Shallow choices first, then names, then the rest, so that arguments meet their function."""
    parts = field.split(".")
    return 2 * (len(parts) - 1) if parts[-1] == NAME else 2 * len(parts) + 1


class _Place(NamedTuple):
    """The group of fields that a dotted field is in."""

    node: dict[str, Any]
    where: str  # its own dotted name, for messages
    room: Room | None  # of the function that it chooses, where it is a choice
    table: Mapping[str, Room]  # which fields of it are choices themselves


def _set(
    fields: dict[str, Any],
    override: Override,
    rooms: Rooms,
    choices: Mapping[str, Room],
    notes: list[str],
) -> None:
    """Sets one dotted field in place."""
    (field, text) = override
    (node, where, room, table) = _find_place(fields, field, rooms, choices)
    last = field.rpartition(".")[2]
    inner = table.get(last)
    if room is not None and last == NAME:
        _rename(node, room, text, where, notes)
    elif last in node and inner is not None:
        node[last] = _choice(node[last], inner, text, f"config.{field}", notes)
    elif last in node:
        node[last] = parse(text, node[last], f"config.{field}")
    elif room is not None:
        _require_argument(node[NAME], last, room, where)
        node[last] = _literal(text)
    else:
        raise _unknown(fields, field)


def _find_place(
    fields: dict[str, Any], field: str, rooms: Rooms, choices: Mapping[str, Room]
) -> _Place:
    """The group of a dotted field; a choice on the way that is a bare name becomes a dictionary."""
    *path, last = field.split(".")
    node = fields
    room: Room | None = None
    table: Mapping[str, Room] = choices
    for depth, part in enumerate(path):
        where = f"config.{'.'.join(path[: depth + 1])}"
        if part not in node:
            raise _unknown(fields, field)
        room = table.get(part)
        if isinstance(node[part], str) and room is not None:
            node[part] = as_choice(node[part], room, where)
        if not isinstance(node[part], dict):
            raise UserError(f"{where} is {node[part]!r} and has no field {last!r}.")
        node = node[part]
        table = rooms.by_argument if room is not None else {}
    return _Place(node, f"config.{'.'.join(path)}", room, table)


def _choice(old: Any, room: Room, text: str, where: str, notes: list[str]) -> Any:
    """What takes the place of a choice: another name, or a number such as a constant rate."""
    if not _is_name(text, old):
        return _literal(text)
    is_choice = isinstance(old, str | dict) and bool(old)
    chosen = as_choice(old, room, where) if is_choice else {}
    _rename(chosen, room, text, where, notes)
    return chosen if len(chosen) > 1 else text


def _require_argument(function: str, name: str, room: Room, where: str) -> None:
    """Raises UserError where a function has no argument of a name; says which it has."""
    signature = find(room, function, where)
    takes = sorted(set(signature.parameters) - set(room.later))
    if name not in takes and not signature.takes_any:
        raise UserError(
            f"{where}: {function} has no argument {name!r}{suggest(name, takes)}; it takes "
            f"{', '.join(takes) or 'none'}."
        )


def _rename(choice: dict[str, Any], room: Room, name: str, where: str, notes: list[str]) -> None:
    """Gives a choice another name, in place; a note says which arguments were dropped."""
    if choice.get(NAME) == name:
        return
    find(room, name, where)  # raises where there is no such function
    old = choice.get(NAME)
    kept = {NAME: name}
    dropped: list[str] = []
    if old is not None:
        kept, dropped = Rooms({}).switch(room, choice, name, where)
    if dropped:
        values = ", ".join(f"{each}={choice[each]!r}" for each in dropped)
        notes.append(f"{where} is {name!r} now; {values} of {old!r} is dropped.")
    choice.clear()
    choice.update(kept)


def _is_name(text: str, old: Any) -> bool:
    """Whether a value for a choice is a name, and no number."""
    if isinstance(old, str | dict):
        return not isinstance(_literal(text), int | float | dict)
    return isinstance(_literal(text), str)


def parse(text: str, old: Any, where: str) -> Any:
    """A value of the type of the one that it replaces.

    Raises:
      UserError: the text is not of that type.
    """
    if isinstance(old, str):
        return text
    if isinstance(old, bool):
        if text.lower() in (*TRUE, *FALSE):
            return text.lower() in TRUE
        raise UserError(f"{where} is {text!r}; it has to be True or False.")
    value = _literal(text)
    if isinstance(old, tuple | list):
        is_number = isinstance(value, int | float)
        if is_number:
            value = (value,)
        if not isinstance(value, tuple | list):
            raise UserError(f"{where} is {text!r}; it has to be a tuple, such as (1,2) or ().")
        return tuple(value)
    if isinstance(old, int | float):
        return _number(value, old, text, where)
    if isinstance(old, dict) and not isinstance(value, dict):
        raise UserError(
            f"{where} is {text!r}; it is a group of fields: {', '.join(old)}. Set one of them."
        )
    return value


def _number(value: Any, old: float, text: str, where: str) -> float:
    """A number of the type of the one that it replaces."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(old, int) and not (is_number and isinstance(value, int)):
        raise UserError(f"{where} is {text!r}; it has to be a whole number.")
    if not is_number:
        raise UserError(f"{where} is {text!r}; it has to be a number.")
    if isinstance(old, int):
        return value
    if abs(value) > sys.float_info.max:
        raise UserError(f"{where} is {text!r}; it has to be a finite number.")
    return float(value)


def _literal(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text


def _unknown(fields: Mapping[str, Any], field: str) -> UserError:
    """That there is no such field, and which was meant: by its last word, or by a part of it."""
    known = [*flatten(fields), *_groups(fields)]
    if field in flags.FLAGS:
        return UserError(
            f"the config has no field {field!r}; it is a flag of the command: --{field}=VALUE."
        )
    last = field.split(".")[-1]
    by_word: dict[str, str] = {}
    for each in sorted(known, key=lambda name: (not name.startswith(USUAL), name.count("."))):
        by_word.setdefault(each.split(".")[-1], each)
    parts = [word for word in by_word if last in word.split("_")]
    near = difflib.get_close_matches(last, [*by_word], n=1)
    words = [last] if last in by_word else [*parts[:1], *near]
    if words:
        found = by_word[words[0]]
        return UserError(f"the config has no field {field!r}; did you mean {found!r}?")
    return UserError(f"the config has no field {field!r}{suggest(field, known)}.")


def _groups(fields: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the groups of fields."""
    found = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found += [f"{prefix}{name}", *_groups(value, f"{prefix}{name}.")]
    return found


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted fields and their values."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _copy(value: Any) -> Any:
    """Nested mappings as dictionaries of their own."""
    if hasattr(value, "items"):
        return {name: _copy(part) for name, part in value.items()}
    return value
