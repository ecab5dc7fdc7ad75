"""A folder with one JSON document and its arrays, of one time: the arrays are in an .npz whose name
and SHA-256 the document has, and the document is written last.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vi_jax.files.formats import npz_arrays, npz_bytes, read_json, write_json
from vi_jax.files.regular import REGULAR, kind, make_folder, read_bytes, write_bytes

StrPath = str | Path


def write_document(
    folder: StrPath, name: str, document: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    """Writes a document and its arrays; what a killed process leaves is the earlier pair.

    Args:
      folder: made where it is not there; other files in it stay.
      name: of the document, such as "result.json".
      document: strict JSON; "arrays" and "sha256" are added.
      arrays: plain ones, by name.

    Raises:
      OSError: it cannot be written.
    """
    folder = Path(folder)
    make_folder(folder)
    earlier = _earlier(folder / name)
    content = npz_bytes(arrays)
    digest = hashlib.sha256(content).hexdigest()
    held = f"arrays-{digest[:16]}.npz"
    write_bytes(folder / held, content)
    write_json(folder / name, {**document, "arrays": held, "sha256": digest})
    if earlier not in ("", held):
        (folder / earlier).unlink(missing_ok=True)


def read_document(folder: StrPath, name: str) -> dict[str, Any]:
    """The document of a folder.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is no JSON object.
      OSError: it cannot be read.
    """
    path = Path(folder) / name
    if not kind(path):
        raise FileNotFoundError(f"there is no {name} in {folder}.")
    document = read_json(path)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    return document


def read_arrays(folder: StrPath, document: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a document that `read_document` gave.

    Raises:
      ValueError: their file is missing, or not the one that the document was written with.
      OSError: it cannot be read.
    """
    path = Path(folder) / (_arrays_name(document) or "arrays.npz")
    if kind(path) != REGULAR:
        raise ValueError(f"{folder} is not whole: {path.name} is missing; copy all of the folder.")
    content = read_bytes(path)
    if hashlib.sha256(content).hexdigest() != document.get("sha256"):
        raise ValueError(
            f"{path} is damaged, or of another document: its SHA-256 is not the one that was "
            "written down; copy all of the folder again."
        )
    return npz_arrays(content)


def _earlier(path: Path) -> str:
    """The file of arrays of the document that is there; empty where there is none."""
    try:
        return _arrays_name(read_document(path.parent, path.name))
    except (ValueError, OSError):
        return ""


def _arrays_name(document: Mapping[str, Any]) -> str:
    name = str(document.get("arrays"))
    is_ours = name.startswith("arrays-") and name.endswith(".npz") and name == Path(name).name
    return name if is_ours else ""
