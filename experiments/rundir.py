"""The run folder: where it is, whether it may be used, and the files that say how the run came
about.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase as fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import files, own_code
from experiments.cli import UserError
from experiments.lock import LOCK
from experiments.settings import flatten

CONFIG = "config.json"
FORMAT = 2  # of it; version e705c06 wrote none
BESIDE = ("format", "code")  # what it holds beside the fields of the config
ENVIRONMENT = "environment.json"
DATA = "data.json"
# Fields, or how their names begin, that say nothing of the numbers of a run: it may go on with
# others.
MAY_CHANGE = (
    "mesh.",
    "train.checkpoint_",
    "train.keep_",
    "train.on_nonfinite",
    "train.max_skipped",
)
# What a run folder holds: of itself ("") and of the folders in it, names or patterns of names and
# what has to be there, if anything is.
CONTENTS = {
    "": {
        CONFIG: files.REGULAR,
        ENVIRONMENT: files.REGULAR,
        DATA: files.REGULAR,
        LOCK: files.REGULAR,
        "metrics.jsonl": files.REGULAR,
        "timing.jsonl": files.REGULAR,
        "summary.json": files.REGULAR,
        "evaluation-*.json": files.REGULAR,
        "stopped.json": files.REGULAR,
        "replicas.json": files.REGULAR,
        "result.json": files.REGULAR,  # this one and the next three of a posterior
        "moments.json": files.REGULAR,
        "history.json": files.REGULAR,
        "draws.npz": files.REGULAR,
        "checkpoints": files.FOLDER,
        "figures": files.FOLDER,
        "nonfinite": files.FOLDER,
        "samples": files.FOLDER,
        "tensorboard": files.FOLDER,
        "replica_[0-9]*": files.FOLDER,
    },
    "figures": {"*.png": files.REGULAR},
    "nonfinite": {"step_*.npz": files.REGULAR},
    "samples": {"*.png": files.REGULAR, "samples.npz": files.REGULAR},
    "tensorboard": {"events*": files.REGULAR},
}
PATTERN = "*?[\\"
LONGEST = 3_500  # bytes of the path of a run folder: those in it have to be below 4,096
_READ = (CONFIG, DATA, "metrics.jsonl", "timing.jsonl", "stopped.json")
_PACKAGES = (
    "vi_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpyro",
    "numpy",
    "orbax-checkpoint",
    "ml-collections",
    "chex",
    "scikit-learn",
    "tensorflow-datasets",
    "matplotlib",
)


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
        found = _kind_through_links(folder)
        is_run = bool(found) and bool(files.kind(folder / CONFIG))
    except OSError as error:
        raise UserError(
            f"--workdir={folder} cannot be used ({error.strerror}); name another folder."
        ) from None
    if found not in ("", files.FOLDER):
        raise UserError(f"--workdir={folder} is {found}; name a folder.")
    if found and not is_run and set(_names(folder)) - {LOCK}:
        raise UserError(
            f"--workdir={folder} is not empty and holds no run; name a new folder, or one of an "
            "earlier run."
        )


def _kind_through_links(folder: Path) -> str:
    """What the user's own path leads to, as `files.kind` says it; raises OSError."""
    try:
        return files.kind(folder.resolve(strict=True))
    except FileNotFoundError:
        return f"{files.kind(folder)} that leads nowhere" if files.kind(folder) else ""
    except RuntimeError:  # what pathlib makes of a loop up to Python 3.12
        return "a symbolic link that leads to itself"


def check_contents(folder: Path, *, writes: bool) -> None:
    """Raises UserError where something else is in the place of what a run folder holds.

    What is not there is fine: a run makes it. What is there has to be what `CONTENTS` says, no link
    to it and nothing that would be waited for; and what is read has to be readable.

    Args:
      folder: of a run.
      writes: a run is going to write there.
    """
    for part in CONTENTS:
        check_part(folder / part, part, writes=writes)


def check_part(folder: Path, part: str, *, writes: bool) -> None:
    """The same for one folder of a run alone, which may lie elsewhere (`--out`).

    Args:
      folder: where it is.
      part: a key of `CONTENTS`.
      writes: something is going to be written there.
    """
    if part and not files.kind(folder):
        return
    for name in _names(folder):
        wanted = [CONTENTS[part][like] for like in CONTENTS[part] if fnmatch(name, like)]
        path = folder / name
        try:
            for kind in wanted:
                files.require(path, kind)
            if wanted == [files.FOLDER] and not _may(path, writes=writes):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            if not part and name in _READ:
                files.open_regular(path).close()
        except files.NotRegular as error:
            raise UserError(f"{error}; remove it, or name another folder.") from None
        except OSError as error:
            raise UserError(
                f"{path} cannot be {'written' if writes else 'read'} ({error.strerror}); check "
                "its rights."
            ) from None


def _may(folder: Path, *, writes: bool) -> bool:
    """Whether a folder may be listed, and written to."""
    rights = os.R_OK | os.X_OK | (os.W_OK if writes else 0)
    return os.access(folder, rights, effective_ids=os.access in os.supports_effective_ids)


def _names(folder: Path) -> list[str]:
    """What a folder holds, in order; raises UserError where it may not be listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be listed ({error.strerror}); check its rights."
        ) from None


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
        if files.kind(folder / DATA) or _has_checkpoints(
            folder
        ):  # else it never got as far as its data, and there is nothing to lose
            resumed = True
            was, code = read_record(folder)
            _refuse_other(folder, was, config)
            own_code.require_same(code, own_code.names(config), folder)
        folder.mkdir(parents=True, exist_ok=True)
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
    if not files.kind(folder / DATA) and _has_checkpoints(folder):
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
                "their pixels differ. Give back the old data, or name another --workdir."
            )
    else:
        files.write_json(path, found)


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
        found = _kind_through_links(folder)
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
    fields = {name: value for name, value in plain.items() if name not in BESIDE}
    try:
        if not isinstance(code, dict):
            raise TypeError("its `code` is no record")
        return from_plain(fields), code
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as a config ({error}); restore it, or train again with "
            "--overwrite."
        ) from None


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


def environment() -> dict[str, Any]:
    """What a run ran on: interpreter, packages, devices, command, and the commit of the checkout
    where there is one.
    """
    import jax

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": _commit(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


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


def _has_checkpoints(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("[0-9]*"))


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
        print(f"note: {said}, from here on.", file=sys.stderr)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
