"""Parameters in one .safetensors file: plain numbers, no code, read by many libraries.

The format is eight bytes with the length of a header, the header in JSON, {name: {"dtype", "shape",
"data_offsets"}}, and the numbers themselves, little-endian and by rows, without gaps
(github.com/huggingface/safetensors).
"""

import json
import struct
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.files.documents import StrPath
from vi_jax.files.regular import read_bytes, write_bytes

# by the names that the format has for them
_KINDS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
}
_NAMES = {np.dtype(kind): name for name, kind in _KINDS.items()}
_METADATA = "__metadata__"
_ALIGNMENT = 8  # bytes, of where the numbers begin


def by_path(params: Any) -> dict[str, Any]:
    """{path: leaf} of a pytree, the parts of a path joined by dots: "encoder.0.kernel".

    Raises:
      ValueError: two leaves have one path, as where a name has a dot in it.
    """
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "params"
        if name in named:
            raise ValueError(f"two leaves of the pytree have the path {name!r}; rename one.")
        named[name] = leaf
    return named


def save_safetensors(path: StrPath, params: Any, metadata: dict[str, str] | None = None) -> None:
    """Writes a pytree of arrays to a .safetensors file, each leaf under its path.

    Args:
      path: of the file, which is written whole or not at all.
      params: a pytree of arrays.
      metadata: words that go with them.

    Raises:
      ValueError: a leaf is no array of plain numbers, or two have one path.
      OSError: it cannot be written.
    """
    arrays = {name: _plain(name, leaf) for name, leaf in by_path(params).items()}
    header: dict[str, Any] = {_METADATA: metadata} if metadata else {}
    end = 0
    # the widest first, so that all begin at a multiple of their size
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    for name in names:
        array = arrays[name]
        begin = end
        end = begin + array.nbytes
        kind = _NAMES[array.dtype]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    parts = [struct.pack("<Q", len(text)), text, *(arrays[name].tobytes() for name in names)]
    write_bytes(path, b"".join(parts))


def load_safetensors(path: StrPath, like: Any = None) -> Any:
    """The arrays of a .safetensors file.

    Args:
      path: of the file.
      like: a pytree of arrays (or of `jax.ShapeDtypeStruct`) whose paths, shapes and dtypes the
        file has, such as `jax.eval_shape(model.init, key)`.

    Returns:
      A pytree like `like`, of JAX's arrays; without it {path: NumPy array}.

    Raises:
      ValueError: it is no such file, or its arrays are not those of `like`; names the first.
      OSError: it cannot be read.
    """
    content = read_bytes(path, follow=True)
    try:
        arrays = _arrays(content)
    except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise ValueError(
            f"{path} is no .safetensors file of plain numbers: {error!r}; write it anew."
        ) from None
    if like is None:
        return arrays
    wanted = by_path(like)
    missing = sorted(set(wanted) - set(arrays)) or sorted(set(arrays) - set(wanted))
    if missing:
        where = "the file" if missing[0] in wanted else "the pytree"
        raise ValueError(f"{path}: {missing[0]!r} is not in {where}; give the pytree of its model.")
    leaves = [_as_wanted(path, name, arrays[name], leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    """{name: array} of the bytes of a file; any of several errors where it is none."""
    (size,) = struct.unpack("<Q", content[:8])
    if size > len(content) - 8:
        raise ValueError("its header is longer than the file")
    header = json.loads(content[8 : 8 + size])
    header.pop(_METADATA, None)
    numbers = memoryview(content)[8 + size :]
    arrays = {}
    for name, part in header.items():
        begin, end = part["data_offsets"]
        if not 0 <= begin <= end <= len(numbers):
            raise ValueError(f"the numbers of {name!r} are not in it")
        kind = np.dtype(_KINDS[part["dtype"]]).newbyteorder("<")
        arrays[name] = np.frombuffer(numbers[begin:end], kind).reshape(part["shape"])
    return arrays


def _plain(name: str, leaf: Any) -> np.ndarray:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    array = None if is_key else np.asarray(leaf)
    if array is None or array.dtype not in _NAMES:
        kind = leaf.dtype if hasattr(leaf, "dtype") else type(leaf).__name__
        raise ValueError(f"{name!r} is of {kind}; a .safetensors file is of plain numbers.")
    return np.ascontiguousarray(array).reshape(array.shape)


def _as_wanted(path: StrPath, name: str, array: np.ndarray, leaf: Any) -> jax.Array:
    wanted = (tuple(np.shape(leaf)), np.dtype(jnp.result_type(leaf)))
    if (array.shape, array.dtype) != wanted:
        raise ValueError(
            f"{path}: {name!r} is {array.dtype}{list(array.shape)}, where the pytree has "
            f"{wanted[1]}{list(wanted[0])}."
        )
    return jnp.asarray(array)
