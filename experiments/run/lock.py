"""One run at a time in a folder: a lock that the kernel lets go of however its process ends, `kill
-9` included.
"""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from experiments import terminal
from experiments.cli import UserError
from vi_jax import files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"
_WITHOUT_LOCKS = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a run folder, which is made if it is not there.

    The lock is `flock` on a file in it, which says who holds it. Linux passes it on to the server
    of an NFS, so that it holds between hosts too, unless the mount says `nolock` or `local_lock`;
    on Lustre it wants the mount option `flock`.

    Raises:
      UserError: another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = files.open_to_append(folder / LOCK)
    except files.NotRegular as error:
        raise UserError(f"{error}; remove it.") from None
    except OSError as error:
        raise UserError(
            f"--workdir={folder} cannot be written ({error.strerror}); name a folder of your own."
        ) from None
    with file:
        try:
            _take(file.fileno())
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"a run is going on in --workdir={folder} ({_holder(file.read())}); wait for its "
                "end, stop it, or name another "
                "folder."
            ) from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            terminal.say(
                f"note: {folder} takes no locks ({error.strerror}): nothing keeps a second run "
                "out of it.",
            )
        _sign(file, folder)
        yield


def _sign(file: TextIO, folder: Path) -> None:
    """Writes who holds the lock; raises UserError."""
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    try:  # not by the file's buffer, whose rest would be written, and fail, again when it closes
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), json.dumps(holder).encode())
    except OSError as error:
        raise UserError(
            f"--workdir={folder} cannot be written ({error.strerror}); make room, or name another "
            "folder."
        ) from None


def _take(descriptor: int) -> None:
    if fcntl is None:
        raise OSError(errno.ENOSYS, "this system has no flock")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(text: str) -> str:
    try:
        held = json.loads(text)
        return f"process {held['pid']} on {held['host']}, since {held['since']}"
    except (ValueError, TypeError, KeyError):  # it has taken the lock and not yet written
        return "its process has not said which it is"
