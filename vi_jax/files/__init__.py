"""Files: regular ones only, each written whole or not at all; nothing that is read is run."""

from typing import TYPE_CHECKING, Any

from vi_jax.files.documents import StrPath, read_arrays, read_document, write_document
from vi_jax.files.formats import (
    map_array,
    npz_arrays,
    npz_bytes,
    read_json,
    read_npz,
    write_json,
    write_npz,
)
from vi_jax.files.regular import (
    FOLDER,
    REGULAR,
    NotRegular,
    create,
    is_partial,
    kind,
    make_folder,
    open_regular,
    open_to_append,
    read_bytes,
    read_text,
    require,
    require_regular_tree,
    write_bytes,
    write_text,
    write_whole,
    writing,
)

if TYPE_CHECKING:
    from vi_jax.files.tensors import by_path, load_safetensors, save_safetensors

# what needs JAX is loaded when it is first used: the commands look at files before
_LATER = ("by_path", "load_safetensors", "save_safetensors")

__all__ = [
    "FOLDER",
    "REGULAR",
    "NotRegular",
    "StrPath",
    "by_path",
    "create",
    "is_partial",
    "kind",
    "load_safetensors",
    "make_folder",
    "map_array",
    "npz_arrays",
    "npz_bytes",
    "open_regular",
    "open_to_append",
    "read_arrays",
    "read_bytes",
    "read_document",
    "read_json",
    "read_npz",
    "read_text",
    "require",
    "require_regular_tree",
    "save_safetensors",
    "write_bytes",
    "write_document",
    "write_json",
    "write_npz",
    "write_text",
    "write_whole",
    "writing",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"vi_jax.files has no {name!r}.")
    from vi_jax.files import tensors

    return getattr(tensors, name)
