"""The run folder: where it is, whether it may be used, and the files that say how the run came
about.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.cli import UserError
from experiments.lock import LOCK
from experiments.settings import flatten

CONFIG = "config.json"
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

    return ConfigDict(restore(plain)).lock()


def default_folder(config: Any) -> Path:
    """runs/NAME-HASH: the same config finds its run again, MAY_CHANGE apart; another one gets a
    folder of its own.
    """
    digest = hashlib.sha256(
        json.dumps(_of_the_numbers(to_plain(config)), sort_keys=True).encode()
    ).hexdigest()[:8]
    return Path("runs") / f"{config.name}-{digest}"


def refuse_foreign(folder: Path) -> None:
    """Raises UserError where a folder is a file, or holds something that is no run; touches
    nothing.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--workdir={folder} is a file; name a folder.")
    if (
        folder.exists()
        and not (folder / CONFIG).exists()
        and any(path.name != LOCK for path in folder.iterdir())
    ):
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
        if (folder / CONFIG).exists() and overwrite:
            _empty(folder)
        elif (folder / DATA).exists() or _has_checkpoints(
            folder
        ):  # else it never got as far as its data, and there is nothing to lose
            resumed = True
            _refuse_other(folder, read_config(folder), config)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG, to_plain(config))
        write_json(folder / ENVIRONMENT, environment())
    except OSError as error:
        raise UserError(
            f"--workdir={folder} cannot be written ({error.strerror}); name a folder of your own."
        ) from None
    return resumed


def check_data(folder: Path, dataset: Any) -> None:
    """Records what a run is trained on, or raises UserError where a run that was begun finds other
    data.
    """
    if not (folder / DATA).exists() and _has_checkpoints(folder):
        raise UserError(
            f"{folder} has checkpoints and no {DATA}, which says what they were trained on; "
            "restore it, or train again with "
            "--overwrite."
        )
    path = folder / DATA
    found = {"name": dataset.name, "source": dataset.source, "fingerprint": dataset.fingerprint}
    if path.exists():
        try:
            before = dict(json.loads(path.read_text()))
        except (OSError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read ({error}); restore it, or train again with --overwrite."
            ) from None
        if before.get("fingerprint") != found["fingerprint"]:
            raise UserError(
                f"the data have changed since the run in {folder} began ({before.get('source')} "
                f"then, {dataset.source} now): "
                "their pixels differ. Give back the old data, or name another --workdir."
            )
    else:
        write_json(path, found)


def read_config(folder: Path) -> ConfigDict:
    """The config of the run in a folder; nothing of the folder is executed.

    Raises:
      UserError: there is no run, or its config cannot be read.
    """
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}; --workdir wants the folder of a run, as "
            "experiments.train printed it."
        )
    if not path.exists():
        raise UserError(
            f"{folder} holds no run: it has no {CONFIG}. --workdir wants the folder of a run of "
            "experiments.train."
        )
    try:
        plain = json.loads(path.read_text())
        if not isinstance(plain, dict):
            raise ValueError("not a config")
        return from_plain(plain)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a config ({error}); restore it, or train again with "
            "--overwrite."
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


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
