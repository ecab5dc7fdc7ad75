"""Arrays that grow on disk, written as an .npz at the end: nothing of them is held."""

import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vi_jax import files

COPIED = 2**20  # bytes at a time


class Spool:
    """One array [N, ...] that grows along its first axis, in a file without a name: it goes with
    the process.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (`close` ends it)
        self._num = 0
        self._dtype = np.dtype(float)
        self._shape: tuple[int, ...] = ()

    def add(self, array: np.ndarray) -> None:
        """Appends rows [n, ...].

        Raises:
          ValueError: they are of another shape or type than those before.
        """
        if not self._num:
            self._dtype = array.dtype
            self._shape = array.shape[1:]
        if (array.dtype, array.shape[1:]) != (self._dtype, self._shape) or array.dtype.hasobject:
            raise ValueError(
                f"a spool of {self._dtype} of shape {self._shape} was given {array.dtype} of shape "
                f"{array.shape[1:]}."
            )
        self._file.write(np.ascontiguousarray(array).tobytes())
        self._num += len(array)

    def write(self, member: Any) -> None:
        """Writes all of it as a .npy."""
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._num, *self._shape),
        }
        np.lib.format.write_array_header_1_0(member, header)
        self._file.seek(0)
        shutil.copyfileobj(self._file, member, COPIED)

    def close(self) -> None:
        """Gives the disk back."""
        self._file.close()


class Spools:
    """Arrays by name that grow together; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spools: dict[str, Spool] = {}

    def __enter__(self) -> "Spools":
        return self

    def __exit__(self, *exception: object) -> None:
        for spool in self._spools.values():
            spool.close()

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Appends rows to each of them; raises as `Spool.add` does."""
        for name, array in arrays.items():
            if name not in self._spools:
                self._spools[name] = Spool(self._folder)
            self._spools[name].add(array)

    def write_npz(self, path: Path) -> None:
        """Writes all of them, compressed, whole or not at all; raises as `files.writing` does."""
        with (
            files.writing(path) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened,
        ):
            for name, spool in self._spools.items():
                with opened.open(f"{name}.npy", "w", force_zip64=True) as member:
                    spool.write(member)
