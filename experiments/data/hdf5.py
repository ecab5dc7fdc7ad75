"""Arrays in HDF5 files: `h5:FILE:KEY`, an array, or a group that holds arrays by name as an .npz
does (`experiments.data.arrays`); `h5:FILE` is the file's own group.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.arrays import source_of
from experiments.data.base import DataError, Source, require, require_file
from vi_jax import files


def open_source(argument: str, data_dir: str) -> Source:
    """The arrays at FILE:KEY; raises DataError."""
    file, _, key = argument.partition(":")
    path = Path(data_dir) / file
    require_file(path, f"h5:{argument}")
    h5py = require("h5py", "h5py", f"{path}, an HDF5 file,")
    where = f"{path}:{key}" if key else str(path)

    def look(use: Any) -> Any:
        """What `use` makes of the object at the key."""
        try:
            with files.open_regular(path, follow=True) as opened, h5py.File(opened, "r") as root:
                return use(_at(root, key, path, h5py))
        except DataError:
            raise
        except OSError as error:
            if error.errno is not None:
                raise
            raise DataError(f"{path} cannot be read as HDF5 ({error}); write it again.") from error

    names = look(lambda found: _names(found, h5py))
    if names is None:
        return source_of(["x"], lambda name: look(lambda found: _array(found, where)), where)
    return source_of(names, lambda name: look(lambda found: _array(found[name], where)), where)


def _at(root: Any, key: str, path: Path, h5py: Any) -> Any:
    """What lies at a key, links that leave the file not followed."""
    found = root
    for part in filter(None, key.split("/")):
        is_group = isinstance(found, h5py.Group)
        link = found.get(part, getlink=True) if is_group and part in found else None
        if not isinstance(link, h5py.HardLink):
            here = ", ".join(sorted(found)[:8]) if is_group else "no more"
            raise DataError(f"{path} has nothing at {key!r}; at {part!r} there is {here}.")
        found = found[part]
    return found


def _names(found: Any, h5py: Any) -> list[str] | None:
    """The names of arrays in a group; None of an array."""
    if isinstance(found, h5py.Dataset):
        return None
    own = [name for name in found if isinstance(found.get(name, getlink=True), h5py.HardLink)]
    names = [name for name in own if isinstance(found[name], h5py.Dataset)]
    if own and not names:
        raise DataError(
            f"{found.file.filename} holds no array at {found.name!r} and the groups "
            f"{', '.join(sorted(own)[:8])}; name one by --config.data.name=h5:FILE:GROUP."
        )
    return names


def _array(dataset: Any, where: str) -> np.ndarray | list[np.ndarray]:
    """A dataset in memory; of arrays of unequal length, HDF5's `vlen`, the list of them."""
    if dataset.external:
        raise DataError(f"{where} keeps its numbers in another file; copy them into this one.")
    if dataset.shape is None:
        raise DataError(f"{where}: {dataset.name!r} is empty; an array of numbers was wanted.")
    found = np.asarray(dataset[()])
    are_arrays = found.dtype == object and found.ndim == 1 and found.size > 0
    if are_arrays and all(isinstance(each, np.ndarray) for each in found):
        return list(found)
    return found
