"""Config files: `--config=FILE.py[:VARIANT]`, loaded with the fields of the command line set.

A config file is the user's own, wherever it lies: it is imported, with the helpers beside it, and
its `get_config()` or `get_config(VARIANT)` returns the config. A path that does not exist below the
working folder is looked for in the checkout of this code, so that `configs/vae.py` works from any
folder.
"""

import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError

from experiments import overrides, terminal, titles, warmup
from experiments.choices import import_file, is_outside
from experiments.cli import UserError, suggest
from experiments.overrides import Override
from experiments.rooms import ROOMS, choices_of, renamed
from experiments.startup import is_text

ROOT = Path(__file__).parents[1]
NONE = ("__init__", "base")  # files below configs/ that are no configs
MAX_BITS = 1_000  # of a whole number
_FILE_AND_VARIANT = re.compile(r"(?P<file>.+?\.py)(?::(?P<variant>.*))?", re.DOTALL)


def load(argument: str, given: Sequence[Override]) -> ConfigDict:
    """The locked config of a file with fields set; notes go to stderr.

    Args:
      argument: of --config, `FILE.py` or `FILE.py:VARIANT`.
      given: fields from the command line.

    Raises:
      UserError: there is no such file or variant, the file fails, or a field is wrong.
    """
    return set_fields(read(argument), given)


def set_fields(config: Any, given: Sequence[Override]) -> ConfigDict:
    """The locked config with fields set and every choice written out; notes go to stderr.

    Raises:
      UserError: there is no such field, or its value is wrong.
    """
    plain = to_dict(config, "the config")
    known = [renamed(each, plain) for each in given]
    choices = choices_of(plain)
    fields, notes = overrides.apply(plain, known, rooms=ROOMS, choices=choices)
    for note in notes:
        terminal.say(f"note: {note}")
    for field, room in choices.items():
        if field in fields:
            fields[field] = ROOMS.normal(room, fields[field], where=f"config.{field}")
    for note in warmup.shortened(fields):
        terminal.say(f"note: {note}")
    if not any(each.field == "name" for each in known):
        _name_the_data(fields, plain)
    return as_config(fields)


def _name_the_data(fields: dict[str, Any], plain: dict[str, Any]) -> None:
    """Sets `name` where the command line gives a config other data than its own, in place."""
    groups = (plain.get("data"), fields.get("data"))
    names = [group.get("name") for group in groups if isinstance(group, dict)]
    name = plain.get("name")
    is_text = all(isinstance(each, str) for each in (name, *names))
    if is_text and len(names) == len(groups) and names[0] != names[1]:
        fields["name"] = titles.renamed(str(name), *map(str, names))


def read(argument: str) -> dict[str, Any]:
    """The config of a file, as dictionaries.

    Raises:
      UserError: there is no such file or variant, or the file fails or returns no config.
    """
    path, colon, variant = _split(argument)
    file = _find(path)
    try:
        get_config = import_file(file).get_config
    except AttributeError:
        raise UserError(f"{path} has no function get_config; a config file needs one.") from None
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}.") from error
    except Exception as error:  # whatever the user's own file raises
        raise UserError(_said(error, file)) from error
    try:
        config = get_config(variant) if colon else get_config()
    except Exception as error:  # the same: its own words say which variants there are
        raise UserError(_said(error, file)) from error
    return _beside(to_dict(config, path), file.parent)


def _beside(value: Any, folder: Path) -> Any:
    """Names FILE.py:FUNCTION whose file is not in the working folder but beside the config, by
    their whole path.
    """
    if isinstance(value, dict):
        return {name: _beside(part, folder) for name, part in value.items()}
    if isinstance(value, str) and is_outside(value):
        file, _, function = value.rpartition(":")
        beside = folder.resolve() / file
        if file.endswith(".py") and not Path(file).expanduser().is_file() and beside.is_file():
            return f"{beside}:{function}"
    return value


def to_dict(config: Any, where: str) -> dict[str, Any]:
    """Nested dictionaries of plain values, lists as tuples.

    Raises:
      UserError: it is no mapping, contains itself, or holds what no JSON file can.
    """
    try:
        if isinstance(config, ConfigDict):
            config = config.copy_and_resolve_references()
    except RecursionError:
        raise UserError(f"the config of {where} contains itself.") from None
    except RequiredValueError:
        raise UserError(
            f"a field of {where} is a required_placeholder without a value; give it one in the "
            "file, or make it a placeholder."
        ) from None
    if not hasattr(config, "items"):
        raise UserError(
            f"get_config of {where} returned {type(config).__name__}; it has to be a ConfigDict or "
            "a dictionary."
        )
    return _plain(config, "config", ())


def _plain(value: Any, where: str, inside: tuple[int, ...]) -> Any:
    """A value and what is in it, plain; `inside` are the ids of the groups around it."""
    if id(value) in inside:
        raise UserError(f"{where} contains itself; a config is a tree of plain values.")
    deeper = (*inside, id(value))
    if hasattr(value, "items"):
        for name in value:
            if not isinstance(name, str):
                raise UserError(f"{where} has a field {name!r}; names of fields are text.")
        return {name: _plain(part, f"{where}.{name}", deeper) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(part, f"{where}[{i}]", deeper) for i, part in enumerate(value))
    _require_plain(value, where)
    return value


def _require_plain(value: Any, where: str) -> None:
    """Raises UserError for a single value that no JSON file can hold."""
    if isinstance(value, str) and ("\0" in value or not is_text(value)):
        raise UserError(f"{where} is {value!r}; it has to be text of Unicode, without zero bytes.")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise UserError(f"{where} is a number of {value.bit_length():,} bits; take a smaller one.")
    if value is not None and not isinstance(value, bool | int | float | str):
        shown = " ".join(repr(value).split())[:60]
        raise UserError(
            f"{where} is {shown} of type {type(value).__name__}; a config holds numbers, text, "
            "True, False, None, tuples and groups of them, so that it can be written down and run "
            "again."
        )


def as_config(fields: dict[str, Any]) -> ConfigDict:
    """A locked ConfigDict of nested dictionaries."""
    return ConfigDict(fields, type_safe=False).lock()


def _split(argument: str) -> tuple[str, str, str]:
    """FILE, a colon where there is one, and VARIANT, which may hold colons itself."""
    found = _FILE_AND_VARIANT.fullmatch(argument)
    if found is None:
        raise UserError(f"--config={argument}; it has to be FILE.py or FILE.py:VARIANT.")
    return found["file"], ":" if found["variant"] is not None else "", found["variant"] or ""


def _find(path: str) -> Path:
    candidates = (Path(path).expanduser(), ROOT / path)
    for file in candidates:
        if file.is_file():
            return file
    folder = ROOT / "configs"
    known = sorted(str(p.relative_to(ROOT)) for p in folder.rglob("*.py") if p.stem not in NONE)
    near = suggest(path, known)
    raise UserError(f"there is no config file {path}{near}; there are {', '.join(known)}.")


def _said(error: Exception, file: Path) -> str:
    """What went wrong in a config file, with its line; a ValueError that the file raises by itself
    is a sentence and stands as it is.
    """
    text = " ".join(str(error).split())
    places = traceback.extract_tb(error.__traceback__)
    inside = [place for place in places if Path(place.filename) == file.resolve()]
    is_raised = bool(places) and (places[-1].line or "").startswith("raise ")
    if isinstance(error, ValueError) and text and is_raised:
        return text
    where = f"{file}, line {inside[-1].lineno}" if inside else f"{file}"
    return f"{where}: {type(error).__name__}: {text.rstrip('.')}."
