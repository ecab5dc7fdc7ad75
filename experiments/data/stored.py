"""Arrays in .npy and .npz files by what their headers say: which of them can be mapped, and where
their numbers begin.

A `.npy` has its numbers behind a header. A member of an `.npz` that is stored (`np.savez`) has a
whole `.npy` in one piece of the file; a compressed one has not. Nothing pickled is ever loaded.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from experiments.data.base import DataError
from vi_jax import files

NPY = b"\x93NUMPY"
ALONE = "x"  # the name of the one array of a .npy
LOCAL_HEADER = 30  # bytes of a zip's, before a name and what is extra


class Stored(NamedTuple):
    """An array in a file."""

    path: Path
    key: str  # its name in the file
    shape: tuple[int, ...] = ()
    dtype: np.dtype = np.dtype(np.uint8)
    offset: int = -1  # of the first number in the file
    why: str = "damaged"  # what keeps it from being mapped; "" for nothing

    @property
    def nbytes(self) -> int:
        """Of its numbers."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def mapped(self) -> np.memmap:
        """A memory map of it, whose pages are read when they are looked at."""
        return files.map_array(self.path, self.dtype, self.shape, self.offset, follow=True)

    def watch(self) -> Callable[[], None]:
        """A check that the file is as it is now: what is cut off from under a map ends the process,
        and what is written over it would be read as if it had been there. A file that takes its
        place is another one, which a map does not see.

        Raises (the check):
          DataError: it is not.
        """
        before = os.stat(self.path)

        def check() -> None:
            try:
                now = os.stat(self.path)
            except FileNotFoundError:
                return
            is_other = (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino)
            if is_other or (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
                return
            raise DataError(
                f"{self.path} was written to while it is read ({before.st_size:,} bytes before, "
                f"{now.st_size:,} now); put back what it was and run the same command again to go "
                "on, or start a new run."
            )

        return check

    def loaded(self) -> np.ndarray:
        """All of it in memory.

        Raises:
          DataError: it is damaged, or holds Python objects.
        """
        if self.offset >= 0 and self.key == ALONE and is_npy(self.path):
            return _load_npy(self.path)
        with open_npz(self.path) as opened:
            return read_array(opened, self.key, self.path)


def arrays_of(path: Path) -> dict[str, Stored]:
    """The arrays of a .npy or .npz by name.

    Raises:
      DataError: it is neither.
    """
    if is_npy(path):
        return {ALONE: _of_npy(path)}
    with open_npz(path) as opened:
        _require_once(opened.files, path)
        return {name: _of_member(opened.zip, path, name) for name in opened.files}


def _require_once(names: Sequence[str], path: Path) -> None:
    """Raises DataError where two members have a name, of which one would be read."""
    (name, num) = Counter(names).most_common(1)[0] if names else ("", 0)
    if num > 1:
        raise DataError(
            f"{path} holds {num} arrays {name!r}, where one was wanted; write it again with "
            "np.savez."
        )


def is_npy(path: Path) -> bool:
    """Whether a file begins as a .npy does."""
    with files.open_regular(path, follow=True) as file:
        return file.read(len(NPY)) == NPY


def _of_npy(path: Path) -> Stored:
    with files.open_regular(path, follow=True) as file:
        try:
            (shape, dtype, why) = _header(file)
        except ValueError as error:
            raise DataError(f"{path} is a damaged .npy ({error}); write it again.") from None
        start = file.tell()
        size = file.seek(0, 2)
    found = Stored(path, ALONE, shape, dtype, start, why)
    if found.nbytes > size - start and not dtype.hasobject:
        raise DataError(
            f"{path} ends after {size:,} bytes, where its header says {start + found.nbytes:,}; "
            "write it again with np.save."
        )
    return found


def _of_member(opened: ZipFile, path: Path, name: str) -> Stored:
    """A member of a zip; what is damaged is told when it is read."""
    names = set(opened.namelist())
    full = f"{name}.npy" if f"{name}.npy" in names else name
    info = opened.getinfo(full)
    try:
        with opened.open(full) as member:
            (shape, dtype, why) = _header(member)
            length = member.tell()
    except Exception:  # of damage in many ways; `read_array` says which
        return Stored(path, name)
    if info.compress_type != ZIP_STORED:
        return Stored(path, name, shape, dtype, -1, "compressed")
    start = _start_of(path, info.header_offset) + length
    found = Stored(path, name, shape, dtype, start, why)
    if found.nbytes + length != info.file_size or info.compress_size != info.file_size:
        return found._replace(why="damaged")
    return found


def _start_of(path: Path, header: int) -> int:
    """Where the content of a member begins: behind its local header, a name and what is extra."""
    with files.open_regular(path, follow=True) as file:
        file.seek(header)
        local = file.read(LOCAL_HEADER)
    lengths = np.frombuffer(local, "<u2", count=2, offset=LOCAL_HEADER - 4)
    return header + LOCAL_HEADER + int(lengths.sum())


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype, str]:
    """(shape, dtype, why it cannot be mapped) of a .npy.

    Raises:
      ValueError: it is none.
    """
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(np.lib.format.read_magic(file))
    if reader is None:
        raise ValueError("a header of another version")
    (shape, is_fortran, dtype) = reader(file)
    why = "in Fortran order" if is_fortran and len(shape) > 1 else ""
    return shape, dtype, "of Python objects" if dtype.hasobject else why


def _load_npy(path: Path) -> np.ndarray:
    try:
        with files.read_npz(path, follow=True) as array:
            return array
    except (ValueError, EOFError) as error:  # objects among them, since unpickling runs code
        raise DataError(f"{path} is damaged or no plain array ({error}); save it again.") from error


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Any]:
    """The opened NpzFile, in a `with`; raises DataError for what is no .npz."""
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(files.read_npz(path, follow=True))
        except Exception as error:  # of damage in many ways inside numpy and zipfile
            raise DataError(
                f"{path} cannot be read as an .npz ({error}); write it again with np.savez."
            ) from error
        if isinstance(opened, np.ndarray):
            raise DataError(
                f"{path} is one .npy array, where an .npz was wanted; save it with np.savez(FILE, "
                "images=array)."
            )
        yield opened


def read_array(opened: Any, key: str, path: Path) -> np.ndarray:
    """One array of an opened .npz; raises DataError where it is absent, damaged or holds Python
    objects.
    """
    if key not in opened.files:
        raise DataError(
            f"{path} has no {key!r}, it has {', '.join(opened.files)}; get it again or write it "
            "with np.savez."
        )
    try:
        array = opened[key]
    except (
        Exception
    ) as error:  # as in open_npz; object arrays are among them, refused since unpickling runs code
        raise DataError(
            f"{path}: {key!r} is damaged or no plain array ({error}); save plain arrays again."
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {key!r} is no .npy array; write the file again with np.savez.")
    return array
