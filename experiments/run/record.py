"""config.json: the config of a run as JSON, and the code that it names."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import own_code, terminal
from experiments.cli import UserError
from experiments.run import added
from experiments.run.contents import CONFIG, check_contents, kind_through_links
from vi_jax import files

FORMAT = 2  # of it; version e705c06 wrote none
BESIDE = ("format", "code")  # what it holds beside the fields of the config


def to_plain(config: Any) -> dict[str, Any]:
    """The resolved config as JSON would give it back: nested dicts, lists, numbers and strings."""
    return json.loads(json.dumps(config.copy_and_resolve_references().to_dict()))


def from_plain(plain: dict[str, Any]) -> ConfigDict:
    """A locked config from its plain form; lists become tuples again."""

    def restore(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: restore(part) for name, part in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return ConfigDict(restore(plain), type_safe=False).lock()


def read_run(folder: Path, allowed: Sequence[str]) -> ConfigDict:
    """The config of the run in a folder, whose code may be run.

    Args:
      folder: of the run.
      allowed: functions outside our own rooms that may be run (--allow_code).

    Raises:
      UserError: as `read_config`; or the config names code that was not allowed, or has changed.
    """
    config, code = read_record(folder)
    own_code.require_allowed(config, code, allowed, folder)
    return config


def read_config(folder: Path) -> ConfigDict:
    """The config of the run in a folder; nothing of the folder is executed.

    Raises:
      UserError: there is no run, its config cannot be read, or something else is in the place of
        what a run holds (`check_contents`).
    """
    return read_record(folder)[0]


def read_record(folder: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """The config of a run, and what was recorded of the code that it names; errors as
    `read_config`.
    """
    path = folder / CONFIG
    try:
        found = kind_through_links(folder)
    except OSError as error:
        raise UserError(f"--workdir={folder} cannot be read ({error.strerror}).") from None
    if found != files.FOLDER:
        raise UserError(
            f"there is no folder {folder}; --workdir wants the folder of a run, as "
            "experiments.train printed it."
        )
    check_contents(folder, writes=False)
    if not files.kind(path):
        raise UserError(
            f"{folder} holds no run: it has no {CONFIG}. --workdir wants the folder of a run of "
            "experiments.train."
        )
    plain = read_json(path)
    code = plain.get("code", {})
    refuse_old(plain, path)
    fields = fields_of(plain, path)
    try:
        if not isinstance(code, dict):
            raise TypeError("its `code` is no record")
        return from_plain(fields), code
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as a config ({error}); restore it, or train again with "
            "--overwrite."
        ) from None


def fields_of(plain: dict[str, Any], path: Path) -> dict[str, Any]:
    """The fields of a record, with those that came after it; a note on stderr says which.

    Raises:
      UserError: as `added.with_added`.
    """
    fields = {name: value for name, value in plain.items() if name not in BESIDE}
    (fields, names) = added.with_added(fields, path)
    if names:
        terminal.say(added.said(names, path))
    return fields


def refuse_old(plain: dict[str, Any], path: Path) -> None:
    """Raises UserError for the record of a training by another version of this code."""
    found = plain.get("format")
    is_training = "optim" in plain and "objective" in plain
    if found != FORMAT and (found is not None or is_training):
        version = "before configs named functions" if found is None else f"of format {found!r}"
        raise UserError(
            f"{path} is of a version of vi_jax {version}, which this one (format {FORMAT}) does "
            "not read: evaluate it with the commit in its environment.json, or train again with "
            "--overwrite."
        )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run; raises UserError where there is none that can be read."""
    try:
        return dict(json.loads(files.read_text(path)))
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); restore it, or train again with --overwrite."
        ) from None
