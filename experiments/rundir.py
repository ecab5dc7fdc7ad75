"""The run folder: where it is, whether it may be used, and the files that say how the run came about."""

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
from experiments.settings import flatten

CONFIG, ENVIRONMENT, DATA = "config.json", "environment.json", "data.json"
_PACKAGES = (
    "vi_jax", "jax", "jaxlib", "flax", "optax", "numpyro", "numpy", "orbax-checkpoint", "ml-collections", "chex",
    "scikit-learn", "tensorflow-datasets", "matplotlib",
)  # fmt: skip


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
    """runs/NAME-HASH: the same config finds its run again, another one gets a folder of its own."""
    digest = hashlib.sha256(json.dumps(to_plain(config), sort_keys=True).encode()).hexdigest()[:8]
    return Path("runs") / f"{config.name}-{digest}"


def open_folder(folder: Path, config: Any, *, overwrite: bool) -> bool:
    """Makes the folder ready for a run; True where it holds a run of this config that is to be gone on with.

    Raises:
      UserError: it holds a run of another config (the differing fields are named), is no run folder, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--workdir={folder} is a file; name a folder.")
    resumed = False
    if (folder / CONFIG).exists():
        if overwrite:
            shutil.rmtree(folder)
        else:
            resumed = (folder / DATA).exists()  # else it never got as far as its data, and there is nothing to lose
            if resumed:
                _refuse_other(folder, read_config(folder), config)
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"--workdir={folder} is not empty and holds no run; name a new folder, or one of an earlier run.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG, to_plain(config))
        write_json(folder / ENVIRONMENT, environment())
    except OSError as error:
        raise UserError(f"--workdir={folder} cannot be written ({error.strerror}); name a folder of your own.") from None
    return resumed


def check_data(folder: Path, dataset: Any) -> None:
    """Records what a run is trained on, or raises UserError where a run that was begun finds other data."""
    path, found = folder / DATA, {"name": dataset.name, "source": dataset.source, "fingerprint": dataset.fingerprint}
    if path.exists():
        try:
            before = dict(json.loads(path.read_text()))
        except (OSError, TypeError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); restore it, or train again with --overwrite.") from None
        if before.get("fingerprint") != found["fingerprint"]:
            raise UserError(
                f"the data have changed since the run in {folder} began ({before.get('source')} then, {dataset.source} now): "
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
        raise UserError(f"there is no folder {folder}; --workdir wants the folder of a run, as experiments.train printed it.")
    if not path.exists():
        raise UserError(f"{folder} holds no run: it has no {CONFIG}. --workdir wants the folder of a run of experiments.train.")
    try:
        plain = json.loads(path.read_text())
        if not isinstance(plain, dict):
            raise ValueError("not a config")
        return from_plain(plain)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a config ({error}); restore it, or train again with --overwrite.") from None


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def environment() -> dict[str, Any]:
    """What a run ran on: interpreter, packages, devices, command, and the commit of the checkout where there is one."""
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


def _refuse_other(folder: Path, old: Any, new: Any) -> None:
    was, is_now = flatten(to_plain(old)), flatten(to_plain(new))
    changed = [name for name in sorted(was | is_now) if was.get(name) != is_now.get(name)]
    if changed:
        fields = "; ".join(f"{name} was {was.get(name)!r} and is {is_now.get(name)!r}" for name in changed)
        raise UserError(
            f"--workdir={folder} holds a run of another config: {fields}. Name another folder, or --overwrite to delete that run."
        )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
