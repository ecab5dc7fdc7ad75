"""Safe file access: regular files only, no link followed, each file written whole or not at all.

The single home of it: no other module opens a file by its path. A run folder may be
someone else's, or a link in it may lead elsewhere. What is opened is therefore checked on the open
handle, writing never goes through a link, and a named pipe or a device in the place of a file is
refused instead of waited for. Files that are named by the user (data, an --out) may be links for
reading. Everything raises `OSError`; `NotRegular` is one of them.
"""

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

# Windows has neither; what they are for does not exist there.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_COMMON = _NO_WAIT
for _name in ("O_CLOEXEC", "O_BINARY", "O_NOCTTY"):
    _COMMON |= getattr(os, _name, 0)
# What opening a link, a folder, a pipe without a reader, a socket or a device fails with.
_OF_ANOTHER_KIND = (
    errno.ELOOP,
    errno.EISDIR,
    errno.ENXIO,
    errno.ENODEV,
    errno.EOPNOTSUPP,
    errno.EMLINK,  # FreeBSD, of a link
)
REGULAR = "a regular file"
_PARTIAL = ".partial"  # how the name of a file ends that is being written
FOLDER = "a folder"
_KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: FOLDER,
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegular(OSError):
    """Something of another kind is in the place of a file or folder: a link, a named pipe, ..."""

    def __init__(self, path: str | Path, found: str, wanted: str) -> None:
        super().__init__(errno.EPERM, f"it is {found}, where {wanted} was expected", str(path))
        self._sentence = f"{path} is {found}, where {wanted} was expected"

    def __str__(self) -> str:
        return self._sentence


# --- what is there


def kind(path: str | Path) -> str:
    """What is at a path, links not followed: REGULAR, FOLDER, ...; "" where nothing is.

    Raises:
      OSError: the path cannot be looked at, as a name that is too long.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return _kind_of(mode)


def require(path: str | Path, wanted: str) -> None:
    """Raises NotRegular where what is at a path is not of the kind wanted; nothing there is fine.

    Args:
      wanted: REGULAR or FOLDER.
    """
    found = kind(path)
    if found and found != wanted:
        raise NotRegular(path, found, wanted)


def require_regular_tree(folder: str | Path) -> None:
    """Raises NotRegular where a folder, or anything in it, is neither a folder nor a regular file.

    For folders that another library reads by path: it would follow a link, and wait for ever for a
    named pipe. A folder that is not there is fine, and so is one that goes away meanwhile.

    Raises:
      OSError: a part of it cannot be listed.
    """
    require(folder, FOLDER)
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            entries = sorted(os.scandir(waiting.pop()), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                require(entry.path, REGULAR)


# --- reading


def open_regular(path: str | Path, *, follow: bool = False) -> io.BufferedReader:
    """A regular file, open for reading; checked on the open handle, so that nothing else is read.

    Args:
      follow: a link at the path is followed, as the user's own data may be; else it is refused.

    Raises:
      NotRegular: a folder, a link, a named pipe, a socket or a device is there.
      OSError: it cannot be opened.
    """
    return os.fdopen(_open(path, os.O_RDONLY, follow=follow), "rb")


def read_bytes(path: str | Path, *, follow: bool = False) -> bytes:
    """The bytes of a regular file; raises as `open_regular` does."""
    with open_regular(path, follow=follow) as file:
        return file.read()


def read_text(path: str | Path, *, follow: bool = False) -> str:
    """The text of a regular file in UTF-8; raises as `open_regular`, or UnicodeDecodeError."""
    return read_bytes(path, follow=follow).decode()


# --- writing


def make_folder(folder: str | Path) -> None:
    """Makes a folder of a run, and those above it; raises NotRegular where a link is there."""
    require(folder, FOLDER)
    Path(folder).mkdir(parents=True, exist_ok=True)


def create(path: str | Path) -> io.BufferedWriter:
    """A new file, open for writing; raises FileExistsError where anything has the name."""
    return os.fdopen(_open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")


def open_to_append(path: str | Path) -> TextIO:
    """A regular file, made if it is not there, open for reading and for writing at its end.

    One that has another name too (a hard link) is refused, since writing would change what is
    known by that name.

    Raises:
      NotRegular: a folder, a link, a named pipe, a socket or a device is there.
      OSError: it cannot be opened.
    """
    descriptor = _open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise NotRegular(path, "a hard link to a file that has another name too", REGULAR)
    return os.fdopen(descriptor, "a+", encoding="utf-8")


def write_whole(path: str | Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file whole or not at all, as `writing`; `write` is handed the open file."""
    with writing(path) as file:
        write(file)


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write whole or not at all: another name in its folder, which is brought to the disk
    and renamed where the block ends well; it can be sought in.

    A reader sees the old file or the new one, also after a crash or on a full disk.

    Raises:
      NotRegular: something that is no regular file is there.
      OSError: it cannot be written; what had been there is there still.
    """
    path = Path(path)
    require(path, REGULAR)
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    partial.unlink(missing_ok=True)  # of a process that was killed and had the same number
    try:
        with create(partial) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a write knows no name
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def is_partial(name: str) -> bool:
    """Whether a file of this name is what `write_whole` leaves where its process is killed."""
    return name.startswith(".") and name.endswith(_PARTIAL)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes bytes, whole or not at all; raises as `write_whole` does."""
    write_whole(path, lambda file: file.write(content))


def write_text(path: str | Path, text: str) -> None:
    """Writes text in UTF-8, whole or not at all; raises as `write_whole` does."""
    write_bytes(path, text.encode())


# --- steps of the above


def _kind_of(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "no file")


def _open(path: str | Path, flags: int, *, follow: bool = False) -> int:
    """A descriptor of a regular file; raises NotRegular where it is of another kind."""
    flags |= _COMMON if follow else _COMMON | _NO_LINK
    # 1. what is known to be of another kind is not opened: opening a device may do something
    if not flags & os.O_EXCL:
        with contextlib.suppress(FileNotFoundError):
            _require_regular(path, os.stat(path, follow_symlinks=follow))
    # 2. what may have come since then neither leads elsewhere nor makes the open wait
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in _OF_ANOTHER_KIND:
            _require_regular(path, os.stat(path, follow_symlinks=follow))
        raise
    # 3. the open file itself
    try:
        _require_regular(path, os.fstat(descriptor))
        if _NO_WAIT:
            os.set_blocking(descriptor, True)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(path: str | Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(path, _kind_of(status.st_mode), REGULAR)
