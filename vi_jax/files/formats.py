"""JSON and NumPy's files: written whole or not at all, read without unpickling anything."""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vi_jax.files.regular import open_regular, read_bytes, write_text, write_whole


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON, whole or not at all; raises as `write_whole` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """The value of a JSON file.

    Raises:
      OSError: as `open_regular` does.
      ValueError: it is no JSON, or not in UTF-8.
    """
    return json.loads(read_bytes(path))


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """Plain arrays as the bytes of an .npz; raises ValueError for Python objects."""
    buffer = io.BytesIO()
    _save_npz(buffer, arrays, compressed=False)
    return buffer.getvalue()


def npz_arrays(content: bytes) -> dict[str, Any]:
    """The arrays of the bytes of an .npz; nothing is unpickled.

    Raises:
      Exception: a damaged file fails in many ways inside NumPy and zipfile; so do Python objects.
    """
    import numpy as np

    with np.load(io.BytesIO(content), allow_pickle=False) as opened:
        return {name: opened[name] for name in opened.files}


def write_npz(path: str | Path, arrays: Mapping[str, Any], *, compressed: bool = False) -> None:
    """Writes plain arrays as an .npz, whole or not at all; raises as `write_whole` does."""
    write_whole(path, lambda file: _save_npz(file, arrays, compressed=compressed))


def _save_npz(file: BinaryIO, arrays: Mapping[str, Any], *, compressed: bool) -> None:
    import numpy as np

    plain = {name: np.asarray(array) for name, array in arrays.items()}
    objects = [name for name, array in plain.items() if array.dtype.hasobject]
    if objects:
        raise ValueError(f"{objects[0]!r} holds Python objects; an .npz is of plain arrays.")
    save: Any = np.savez_compressed if compressed else np.savez
    save(file, **plain)


@contextlib.contextmanager
def read_npz(path: str | Path, *, follow: bool = False) -> Iterator[Any]:
    """What `np.load` makes of a regular file: an .npz, or one array. Nothing is ever unpickled.

    Raises:
      OSError: as `open_regular` does.
      Exception: a damaged file fails in many ways inside NumPy and zipfile; so do Python objects.
    """
    import numpy as np

    with open_regular(path, follow=follow) as file:
        yield np.load(file, allow_pickle=False)


def map_array(
    path: str | Path, dtype: Any, shape: tuple[int, ...], offset: int, *, follow: bool = False
) -> Any:
    """The numbers of a regular file from a byte on as a `np.memmap` that is only read.

    Raises:
      OSError: as `open_regular` does.
      ValueError: the file is shorter.
    """
    import numpy as np

    with open_regular(path, follow=follow) as file:
        return np.memmap(file, dtype, mode="r", offset=offset, shape=shape)
