"""Code outside our own rooms that a config names: what it is, and leave to run it.

A run folder runs nothing by itself. config.json records, of every function of the user's own that
the config names, the SHA-256 of its file and of the helpers in the same folder that it imports, or
the version of its package. Who names the function, in a config of their own or on the command
line, runs it; who is handed a folder has to allow it by name, and to have the same code.
"""

import ast
import hashlib
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import flags

from experiments import signatures
from experiments.choices import NAME, is_in_file
from experiments.cli import UserError
from experiments.rooms import ROOMS, choices_of
from vi_jax import files

RECORDED = "recorded "  # before a name that a record gives, and not the user (configs/replay.py)


def define_flag() -> None:
    """--allow_code, of the commands that read a record."""
    flags.DEFINE_list(
        "allow_code",
        [],
        "Functions outside this package that the record of a run names, FILE.py:FUNCTION or "
        "PACKAGE.MODULE:FUNCTION with commas between, and that may be run.",
    )


def names(config: Any) -> list[str]:
    """The functions outside our own rooms that a config names, in order, each once."""
    found: list[str] = []
    for field, room in choices_of(config).items():
        if field in config:
            found += ROOMS.outside(room, config[field], f"config.{field}")
    data = config.get("data")
    source = data.get(NAME) if hasattr(data, "get") else None
    if isinstance(source, str) and is_in_file(source):
        found.append(source)
    return list(dict.fromkeys(found))


def record(own: Collection[str]) -> dict[str, dict[str, str]]:
    """{name: {file: SHA-256, or package: version}} of functions of the user's own.

    Raises:
      UserError: a file is gone or cannot be read.
    """
    return {name: _fingerprint(name) for name in own}


def require_allowed(
    config: Any, recorded: Mapping[str, Any], allowed: Collection[str], folder: Path
) -> None:
    """Raises UserError where a folder's config names code that was not allowed by name, or that is
    not the code that it was recorded with.

    Args:
      config: of the folder.
      recorded: `record` of it.
      allowed: the names given by --allow_code.
    """
    own = names(config)
    missing = [name for name in own if name not in allowed]
    if missing:
        raise UserError(
            f"the run in {folder} names code outside this package, {', '.join(missing)}, and a "
            "folder runs nothing by itself: look at that code, and allow it by "
            f"--allow_code={','.join(own)}."
        )
    require_same(recorded, own, folder)


def require_same(recorded: Mapping[str, Any], own: Collection[str], folder: Path) -> None:
    """Raises UserError where the code of some names has changed since it was recorded."""
    for name in own:
        before = recorded.get(name)
        now = _fingerprint(name)
        if before is None:
            raise UserError(
                f"the run in {folder} has no record of the code of {name}; train again with "
                "--overwrite."
            )
        changed = sorted(part for part in {**before, **now} if before.get(part) != now.get(part))
        if changed:
            raise UserError(
                f"{', '.join(changed)} has changed since the run in {folder} recorded it for "
                f"{name}; restore it, or train again with --overwrite."
            )


def marked(value: Any, own: Collection[str]) -> Any:
    """A record's fields with every name of such code marked as the record's, not the user's."""
    if isinstance(value, dict):
        return {name: marked(part, own) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return tuple(marked(part, own) for part in value)
    return f"{RECORDED}{value}" if isinstance(value, str) and value in own else value


def released(value: Any, allowed: Collection[str]) -> Any:
    """The fields again, with the names that are allowed.

    Raises:
      UserError: a marked name is not among them.
    """
    if hasattr(value, "items"):
        return {name: released(part, allowed) for name, part in value.items()}
    if not isinstance(value, str) or not value.startswith(RECORDED):
        return value
    name = value.removeprefix(RECORDED)
    if name not in allowed:
        raise UserError(
            f"the record names code outside this package, {name}, and a record runs nothing by "
            f"itself: look at that code, and allow it by --allow_code={name} (all names, with "
            "commas between)."
        )
    return name


def _fingerprint(name: str) -> dict[str, str]:
    place = name.rpartition(":")[0]
    if not place.endswith(".py"):
        package = place.partition(".")[0]
        try:
            return {package: metadata.version(package)}
        except metadata.PackageNotFoundError:
            file = signatures.module_file(place)
            return {place: _sha256(file)}
    file = Path(place).expanduser()
    return {each.name: _sha256(each) for each in _with_helpers(file)}


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(files.read_bytes(file, follow=True)).hexdigest()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).") from None


def _with_helpers(file: Path) -> Iterator[Path]:
    """A file and the modules beside it that it imports, and those that they import."""
    waiting = [file]
    seen: set[Path] = set()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        yield each
        waiting += [
            helper
            for name in _imported(each)
            for helper in (each.parent / f"{name}.py", each.parent / name / "__init__.py")
            if helper.is_file()
        ]


def _imported(file: Path) -> Iterator[str]:
    """The first parts of the modules that a file imports."""
    try:
        tree = ast.parse(files.read_bytes(file, follow=True))
    except (OSError, SyntaxError, ValueError):
        return  # what cannot be parsed cannot be imported, and says so there
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
