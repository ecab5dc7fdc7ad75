"""What a run folder may hold, and the refusal of anything else in its place."""

import errno
import os
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path

from experiments.cli import UserError
from experiments.run.lock import LOCK
from vi_jax import files

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
DATA = "data.json"
CHECKPOINTS = "checkpoints"
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
        "estimators.json": files.REGULAR,
        "result.json": files.REGULAR,  # this one and the next three of a posterior
        "moments.json": files.REGULAR,
        "history.json": files.REGULAR,
        "draws.npz": files.REGULAR,
        "topics.npz": files.REGULAR,  # this one and those down to the state of a topic model
        "doc_topics.*": files.REGULAR,
        "doc_evidence.npz": files.REGULAR,
        "top_words.*": files.REGULAR,
        "covariates.*": files.REGULAR,  # of one with covariates
        "exemplars.txt": files.REGULAR,
        "ldavis.json": files.REGULAR,
        "mallet_*.txt": files.REGULAR,
        "state.npz": files.REGULAR,
        CHECKPOINTS: files.FOLDER,
        "figures": files.FOLDER,
        "nonfinite": files.FOLDER,
        "samples": files.FOLDER,
        "latents": files.FOLDER,
        "imputed": files.FOLDER,
        "decoded": files.FOLDER,
        "exported": files.FOLDER,
        "result": files.FOLDER,
        "tensorboard": files.FOLDER,
        "replica_[0-9]*": files.FOLDER,
    },
    "figures": {"*.png": files.REGULAR},
    "nonfinite": {"step_*.npz": files.REGULAR},
    "samples": {
        "*.png": files.REGULAR,
        "samples.npz": files.REGULAR,
        "samples.csv": files.REGULAR,
    },
    "latents": {
        "latents.npz": files.REGULAR,
        "latents.csv": files.REGULAR,
        "scores.csv": files.REGULAR,
    },
    "imputed": {
        "*.png": files.REGULAR,
        "imputed.csv": files.REGULAR,
        "imputed.json": files.REGULAR,
        "imputed.npz": files.REGULAR,
        "intervals.csv": files.REGULAR,
        "intervals.json": files.REGULAR,
        "draws.npz": files.REGULAR,
    },
    "decoded": {
        "decoded.npz": files.REGULAR,
        "decoded.json": files.REGULAR,
        "rates.h5": files.REGULAR,
    },
    "result": {"result.json": files.REGULAR, "arrays-*.npz": files.REGULAR},
    "exported": {"params.safetensors": files.REGULAR},
    "tensorboard": {"events*": files.REGULAR},
}
READ_WHOLE = (CONFIG, DATA, "metrics.jsonl", "timing.jsonl", "stopped.json")


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
    for name in names_in(folder):
        wanted = [CONTENTS[part][like] for like in CONTENTS[part] if fnmatch(name, like)]
        path = folder / name
        try:
            _check_entry(path, wanted, writes=writes)
            if not part and name in READ_WHOLE:
                files.open_regular(path).close()
        except files.NotRegular as error:
            raise UserError(f"{error}; remove it, or name another folder.") from None
        except OSError as error:
            what = "written" if writes else "read"
            raise UserError(
                f"{path} cannot be {what} ({error.strerror}); check its rights."
            ) from None


def open_part(folder: Path, part: str) -> Path:
    """A folder that a command writes its files to, made if it is not there; `--out`, or of a run.

    Args:
      folder: where it is.
      part: a key of `CONTENTS`.

    Raises:
      UserError: it cannot be made or written, or something else is in the place of a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_part(folder, part, writes=True)
    except OSError as error:
        raise UserError(
            f"--out={folder} cannot be written ({error.strerror}); name a folder of your own."
        ) from None
    return folder


def _check_entry(path: Path, wanted: list[str], *, writes: bool) -> None:
    """Raises OSError where a path is not of the kinds wanted, or is a folder without the rights."""
    for kind in wanted:
        files.require(path, kind)
    if wanted == [files.FOLDER] and not _may(path, writes=writes):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _may(folder: Path, *, writes: bool) -> bool:
    """Whether a folder may be listed, and written to."""
    rights = os.R_OK | os.X_OK | (os.W_OK if writes else 0)
    return os.access(folder, rights, effective_ids=os.access in os.supports_effective_ids)


def names_in(folder: Path) -> list[str]:
    """What a folder holds, in order; raises UserError where it may not be listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be listed ({error.strerror}); check its rights."
        ) from None


def kind_through_links(folder: Path) -> str:
    """What the user's own path leads to, as `files.kind` says it; raises OSError."""
    try:
        return files.kind(folder.resolve(strict=True))
    except FileNotFoundError:
        return f"{files.kind(folder)} that leads nowhere" if files.kind(folder) else ""
    except RuntimeError:  # what pathlib makes of a loop up to Python 3.12
        return "a symbolic link that leads to itself"


def has_begun(folder: Path) -> bool:
    """Whether a run has left anything that another config would destroy: more than what is written
    before its first step.
    """
    names = set(names_in(folder)) - {CONFIG, ENVIRONMENT, DATA, LOCK}
    if has_checkpoints(folder):
        return True
    names = {name for name in names if not files.is_partial(name)}
    return any(_is_begun(folder / name) for name in names - {CHECKPOINTS, "tensorboard"})


def _is_begun(path: Path) -> bool:
    """Whether one file or folder of a run holds anything."""
    if fnmatch(path.name, "replica_[0-9]*"):
        return has_begun(path)
    kind = files.kind(path)
    return bool(names_in(path)) if kind == files.FOLDER else path.stat().st_size > 0


def has_checkpoints(folder: Path) -> bool:
    return any((folder / CHECKPOINTS).glob("[0-9]*"))
