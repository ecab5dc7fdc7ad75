"""The run folder: its name, whether it may be used, and what is written there before a run."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from experiments import own_code, terminal
from experiments.cli import UserError
from experiments.run.contents import (
    CONFIG,
    DATA,
    ENVIRONMENT,
    check_contents,
    has_begun,
    has_checkpoints,
    kind_through_links,
    names_in,
)
from experiments.run.environment import environment
from experiments.run.lock import LOCK
from experiments.run.record import FORMAT, read_json, read_record, to_plain
from experiments.settings import flatten
from vi_jax import files

# Fields, or how their names begin, that say nothing of the numbers of a run: it may go on with
# others.
MAY_CHANGE = (
    "mesh.",
    "train.checkpoint_",
    "train.keep_",
    "train.on_nonfinite",
    "train.max_skipped",
)
PATTERN = "*?[\\"
LONGEST = 3_500  # bytes of the path of a run folder: those in it have to be below 4,096


def default_folder(config: Any) -> Path:
    """runs/NAME-HASH: the same config finds its run again, MAY_CHANGE apart; another one gets a
    folder of its own.

    Raises:
      UserError: the name is not that of a folder in runs/.
    """
    digest = hashlib.sha256(
        json.dumps(_of_the_numbers(to_plain(config)), sort_keys=True).encode()
    ).hexdigest()[:8]
    name = f"{config.name}-{digest}"
    if Path(name).name != name or not name.isprintable():
        raise UserError(
            f"config.name is {config.name!r}, which cannot be the name of a folder; set another, "
            "or name a --workdir."
        )
    return Path("runs") / name


def refuse_foreign(folder: Path) -> None:
    """Raises UserError where a folder cannot be one of a run: it is a file, or holds something that
    is no run, or its name cannot be served; touches nothing.
    """
    _refuse_name(folder)
    try:
        found = kind_through_links(folder)
        is_run = bool(found) and bool(files.kind(folder / CONFIG))
    except OSError as error:
        raise UserError(
            f"--workdir={folder} cannot be used ({error.strerror}); name another folder."
        ) from None
    if found not in ("", files.FOLDER):
        raise UserError(f"--workdir={folder} is {found}; name a folder.")
    others = [name for name in names_in(folder) if not files.is_partial(name)] if found else []
    if not is_run and set(others) - {LOCK}:
        raise UserError(
            f"--workdir={folder} is not empty and holds no run; name a new folder, or one of an "
            "earlier run."
        )


def open_folder(folder: Path, config: Any, *, overwrite: bool) -> bool:
    """Makes the folder ready for a run; True where it holds a run of this config that is to be gone
    on with.

    Raises:
      UserError: it holds a run of another config (the differing fields are named), is no run
        folder, or cannot be written.
    """
    refuse_foreign(folder)
    resumed = False
    try:
        if overwrite and files.kind(folder / CONFIG):
            _empty(folder)
        if folder.exists():
            check_contents(folder, writes=True)
        if folder.exists() and has_begun(folder):
            resumed = True
            was, code = read_record(folder)
            _refuse_other(folder, was, config)
            own_code.require_same(code, own_code.names(config), folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not resumed and files.kind(folder / DATA):
            (folder / DATA).unlink()  # of a start that was refused before its first step
        code = own_code.record(own_code.names(config))
        files.write_json(folder / CONFIG, {"format": FORMAT, "code": code, **to_plain(config)})
        files.write_json(folder / ENVIRONMENT, environment())
    except OSError as error:
        raise UserError(
            f"--workdir={folder} cannot be written ({error.strerror}); name a folder of your own."
        ) from None
    return resumed


def check_data(folder: Path, dataset: Any) -> None:
    """Records what a run is trained on, or raises UserError where a run that was begun finds other
    data.
    """
    if not files.kind(folder / DATA) and has_checkpoints(folder):
        raise UserError(
            f"{folder} has checkpoints and no {DATA}, which says what they were trained on; "
            "restore it, or train again with "
            "--overwrite."
        )
    path = folder / DATA
    found = {"name": dataset.name, "source": dataset.source, "fingerprint": dataset.fingerprint}
    if files.kind(path):
        before = read_json(path)
        if before.get("fingerprint") != found["fingerprint"]:
            raise UserError(
                f"the data have changed since the run in {folder} began ({before.get('source')} "
                f"then, {dataset.source} now): "
                "their values differ. Give back the old data, or name another --workdir."
            )
    else:
        files.write_json(path, found)


def _refuse_name(folder: Path) -> None:
    """Raises UserError for a path that checkpoints could not be written to, or not be read from.

    Orbax looks for the files it has just written by a pattern that begins with the path, so that it
    finds none, or those of a folder beside it too; it takes what ends in a colon for the beginning
    of a URL, and hands the path on as UTF-8.
    """
    path = os.path.realpath(folder)
    problem = ""
    if any(character in path for character in PATTERN if character != os.sep):
        problem = f"has one of {' '.join(PATTERN)} in it, which stand for other characters"
    elif any(part.endswith(":") for part in Path(path).parts):
        problem = "has a part that ends in a colon, as a URL does"
    elif not path.isprintable() and _is_not_utf8(path):
        problem = "is not UTF-8"
    elif len(os.fsencode(path)) > LONGEST:
        problem = f"is over {LONGEST:,} bytes long"
    if problem:
        raise UserError(
            f"--workdir={str(folder)!r} cannot hold checkpoints: its path {problem}; name another "
            "folder."
        )


def _is_not_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return True
    return False


def _of_the_numbers(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config without the fields of MAY_CHANGE."""
    kept = {}
    for name, value in plain.items():
        if not f"{prefix}{name}.".startswith(MAY_CHANGE):
            kept[name] = (
                _of_the_numbers(value, f"{prefix}{name}.") if isinstance(value, dict) else value
            )
    return kept


def _empty(folder: Path) -> None:
    """Deletes a run, its config last: a deletion that is cut short is of a run still. Its lock
    stays, held.
    """
    for path in sorted(folder.iterdir(), key=lambda path: path.name == CONFIG):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _refuse_other(folder: Path, old: Any, new: Any) -> None:
    was = flatten(to_plain(old))
    is_now = flatten(to_plain(new))
    changed = [name for name in sorted(was | is_now) if was.get(name) != is_now.get(name)]
    fields = {name: f"{name} was {was.get(name)!r} and is {is_now.get(name)!r}" for name in changed}
    if others := [said for name, said in fields.items() if not name.startswith(MAY_CHANGE)]:
        raise UserError(
            f"--workdir={folder} holds a run of another config: {'; '.join(others)}. Name "
            "another folder, or --overwrite to delete "
            "that run."
        )
    for said in fields.values():
        terminal.say(f"note: {said}, from here on.")
