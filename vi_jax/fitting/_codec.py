"""Pytrees of known classes as strict JSON and plain arrays, and back; nothing that is read is
run.

A named tuple, a dataclass, a distribution or a constraint is its class, by the name under which
vi_jax, NumPyro or Optax have it, and its fields. The layer of a flow is the name of its family with
the numbers that it was made with. What is of another class, or a function, is its name alone
(`Unknown`).
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, constraints

from vi_jax import families
from vi_jax.families import Bijection
from vi_jax.local import guides
from vi_jax.local.guides import LocalGuides

_PACKAGES = ("vi_jax", "numpyro", "optax")


class Unknown:
    """Stands for what a folder has the name of and no more: an object of a class, or a function, of
    the user's own.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Unknown({self.name!r})"

    def __getattr__(self, attribute: str) -> Any:
        raise AttributeError(
            f"this is of {self.name}, of which a saved result has the name alone; it has no "
            f"{attribute!r}. Fit anew where the guide itself is needed."
        )


class UnknownClass(ValueError):
    """A class that this version of vi_jax, NumPyro or Optax has not."""


# --- values to JSON


def encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The value as strict JSON; its arrays are put into `arrays`, each under a new name."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _array(value, arrays)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if type(value) in (list, tuple):
        return {type(value).__name__: [encode(one, arrays) for one in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(name, arrays), encode(value[name], arrays)] for name in value]}
    return _thing(value, arrays)


def _thing(value: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """An object as its class and fields, or as no more than a name."""
    if isinstance(value, Bijection):
        return _layer_name(value)
    if isinstance(value, LocalGuides):
        return {"rows": list(value.made_by)} if value.made_by else _unknown(value.guide)
    fields = _fields(value)
    if fields is None:
        return _unknown(value)
    return {
        "class": _name(type(value)),
        "fields": {name: encode(one, arrays) for name, one in fields.items()},
    }


def _array(value: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    name = f"array_{len(arrays)}"
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        arrays[name] = np.asarray(jax.random.key_data(value))
        return {"key": name, "impl": str(jax.random.key_impl(value))}
    arrays[name] = np.asarray(value)
    of = "jax" if isinstance(value, jax.Array) else "numpy"
    return {"array": name, "of": "scalar" if isinstance(value, np.generic) else of}


def _layer_name(layer: Bijection) -> dict[str, Any]:
    if layer.made_by is None:
        return _unknown(layer.forward)
    name, size, options = layer.made_by
    return {"layer": [name, size, dict(options)]}


def _unknown(value: Any) -> dict[str, str]:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return {"unknown": f"{kind.__module__}.{kind.__qualname__}"}


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of an object of a known class, by name; None for any other."""
    kind = type(value)
    if not _is_known(kind):
        return None
    if isinstance(value, Distribution):
        names = (*kind.gather_pytree_data_fields(), *kind.gather_pytree_aux_fields())
        return {name: value.__dict__.get(name) for name in sorted(names)}
    if isinstance(value, constraints.Constraint):
        values, (names, more) = value.tree_flatten()
        return dict(zip(names, values, strict=True)) | more
    if hasattr(kind, "_fields"):
        return value._asdict()
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _is_known(kind: type) -> bool:
    is_record = hasattr(kind, "_fields") or dataclasses.is_dataclass(kind)
    is_numpyro = issubclass(kind, Distribution | constraints.Constraint)
    return kind.__module__.split(".")[0] in _PACKAGES and (is_record or is_numpyro)


# --- JSON to values


def decode(document: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value of a document by `encode`.

    Raises:
      UnknownClass: a class in it is not in the versions that are installed here.
      ValueError: an array has more digits than JAX takes here.
      Exception: it is no such document.
    """
    if not isinstance(document, dict):
        return document
    for kind, read in _READERS.items():
        if kind in document:
            return read(document, arrays)
    raise KeyError(f"one of {', '.join(_READERS)}")


def _read_key(document: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(arrays[document["key"]]), impl=document["impl"])


def _read_object(document: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    fields = {name: decode(one, arrays) for name, one in document["fields"].items()}
    return _object(_class(document["class"]), fields)


def _read_dict(document: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    return {decode(name, arrays): decode(one, arrays) for name, one in document["dict"]}


def _read_array(document: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    array = arrays[document["array"]]
    if document["of"] == "scalar":
        return array[()]
    if document["of"] == "numpy":
        return array
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(
            f"the saved numbers are of {array.dtype}, which JAX takes with "
            'jax.config.update("jax_enable_x64", True) alone: set that before you load them.'
        )
    return jnp.asarray(array)


def _layer(name: str, size: int, options: dict[str, Any]) -> Any:
    """The layer of a flow, from its family."""
    if name not in families.__all__:
        raise UnknownClass(f"the family {name}")
    plain = {key: tuple(one) if isinstance(one, list) else one for key, one in options.items()}
    family = getattr(families, name)(size, **plain)
    return family.guide(jax.eval_shape(family.init, jax.random.key(0))).layer


def _rows(name: str, family: str) -> LocalGuides:
    """The guides of rows, from their function and family."""
    functions = {"table": guides.table, "coupled_table": guides.coupled_table}
    if name not in functions or family not in families.__all__:
        raise UnknownClass(f"the rows' guides {name}({family})")
    return functions[name](getattr(families, family))


def _class(name: str) -> type:
    """The class of a name, if it is one of those that `encode` writes; none is imported for it."""
    module, _, path = name.partition(":")
    kind = getattr(sys.modules.get(module), path, None)
    if not isinstance(kind, type) or not _is_known(kind):
        raise UnknownClass(f"the class {name.replace(':', '.')}")
    return kind


def _object(kind: Any, fields: dict[str, Any]) -> Any:
    if issubclass(kind, Distribution):
        data = kind.gather_pytree_data_fields()
        aux = kind.gather_pytree_aux_fields()
        return kind.tree_unflatten(
            tuple(fields[name] for name in aux), tuple(fields[name] for name in data)
        )
    if issubclass(kind, constraints.Constraint):
        for name in constraints.__all__ if not fields else ():
            single = getattr(constraints, name)
            if type(single) is kind:
                return single
        return kind.tree_unflatten((tuple(fields), {}), tuple(fields.values()))
    return kind(**fields)


_READERS: dict[str, Callable[[dict[str, Any], Mapping[str, np.ndarray]], Any]] = {
    "float": lambda document, arrays: float(document["float"]),
    "array": _read_array,
    "key": _read_key,
    "layer": lambda document, arrays: _layer(*document["layer"]),
    "rows": lambda document, arrays: _rows(*document["rows"]),
    "unknown": lambda document, arrays: Unknown(document["unknown"]),
    "class": _read_object,
    "dict": _read_dict,
    "list": lambda document, arrays: [decode(one, arrays) for one in document["list"]],
    "tuple": lambda document, arrays: tuple(decode(one, arrays) for one in document["tuple"]),
}
