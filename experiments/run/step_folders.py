"""Checkpoint folders by step: replaced and removed by renames, so that one is always whole.

In a folder of checkpoints lie

    STEP/             a checkpoint, whole: it gets this name by a rename once all of it is written
    STEP.successor/   the whole successor of STEP, about to take its place
    STEP.removing/    what has been replaced, or is no longer kept, while it is being removed
    STEP.orbax-checkpoint-tmp/, STEP.successor.orbax-checkpoint-tmp/   one that is being written

Whatever moment a process ends at, `recover` finishes what it had begun. Nothing here decides what
is kept; where several processes run, only the first one calls what renames or removes.
"""

import os
import re
import shutil
from pathlib import Path

from experiments import terminal
from vi_jax import files

SUCCESSOR = ".successor"
REMOVING = ".removing"
_STEP = re.compile(r"(0|[1-9][0-9]{0,17})(\.successor)?")
_LITTER = re.compile(r"[0-9]+(\.removing|(\.successor)?\.orbax-checkpoint-tmp.*)")


def steps_in(folder: Path) -> list[int]:
    """The steps that have a checkpoint, in order; [] where there is no folder.

    Raises:
      OSError: the folder cannot be listed, or is none.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted({int(found[1]) for name in names if (found := _STEP.fullmatch(name))})


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is; its successor, where a process ended before that was in
    its place and nobody has recovered since: to look is to see what `recover` would leave.
    """
    new = folder / f"{step}{SUCCESSOR}"
    return new if files.kind(new) else folder / str(step)


def path_to_write(folder: Path, step: int, *, replaces: bool) -> Path:
    """Where a checkpoint is to be written; one that replaces another is put in its place by
    `settle`.
    """
    return folder / (f"{step}{SUCCESSOR}" if replaces else str(step))


def recover(folder: Path) -> None:
    """Makes the folder, finishes what a process that ended has begun, and removes what it had not
    finished.

    Raises:
      OSError: the folder cannot be written, or is none.
    """
    files.make_folder(folder)
    for name in sorted(os.listdir(folder)):
        found = _STEP.fullmatch(name)
        if found and found[2]:
            settle(folder, int(found[1]))
    for name in sorted(os.listdir(folder)):
        if _LITTER.fullmatch(name):
            _delete(folder / name)


def settle(folder: Path, step: int) -> None:
    """Puts the successor of a checkpoint in its place, where there is one.

    Raises:
      OSError: a rename was refused.
    """
    new = folder / f"{step}{SUCCESSOR}"
    if not files.kind(new):
        return
    old = _moved_away(folder, step)
    new.rename(folder / str(step))
    if old is not None:
        _delete(old)


def remove(folder: Path, step: int) -> None:
    """Removes a checkpoint: it loses its name at once, and then its files.

    Raises:
      OSError: the rename was refused.
    """
    old = _moved_away(folder, step)
    if old is not None:
        _delete(old)


def to_disk(path: Path) -> None:
    """Waits until a folder and all in it are on the disk, so that another may be removed.

    Raises:
      OSError: the disk could not take it.
    """
    for parent, _, names in os.walk(path):
        folder_too = ("",) if hasattr(os, "O_DIRECTORY") else ()  # Windows opens no folder
        for name in (*names, *folder_too):
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _moved_away(folder: Path, step: int) -> Path | None:
    """Renames a checkpoint to STEP.removing and returns that; None where there is no such step."""
    path = folder / str(step)
    old = folder / f"{step}{REMOVING}"
    if not files.kind(path):
        return None
    if files.kind(old):
        _delete(old)
    path.rename(old)
    return old


def _delete(path: Path) -> None:
    """Removes a folder, or a file or link in its place; what the system keeps is named."""
    try:
        if files.kind(path) == files.FOLDER:
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        terminal.say(
            f"warning: {error.filename or path} could not be removed ({error.strerror}); the next "
            "start tries again.",
        )
