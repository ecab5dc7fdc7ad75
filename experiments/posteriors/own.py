"""A posterior's model in a file of the user's own, and the arrays that it is called with."""

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from experiments.beside import importable
from experiments.cli import UserError, suggest


def from_file(path_and_function: str) -> Callable[..., Any]:
    """The function of PATH.py:FUNCTION; runs the file.

    Raises:
      UserError: there is no such function, or the file fails.
    """
    path, _, name = path_and_function.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path!r} is no Python file; config.model wants file:PATH.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    try:
        with importable(Path(path).parent):
            spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"{path} fails when it is imported: {type(error).__name__}: {error}"
        ) from error
    model = getattr(module, name, None)
    if not callable(model):
        functions = [n for n, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(
            f"{path} has no function {name!r}; it has "
            f"{', '.join(functions) or 'none'}{suggest(name, functions)}."
        )
    return model


def arguments_of(model: Callable[..., Any], function: str, data: str) -> dict[str, Any]:
    """The arrays of an .npz by the names of a function's arguments; a single number is a Python
    one, fit to be a size.
    """
    arrays = _read(Path(data)) if data else {}
    takes = _Arguments.of(model)
    said = f"{function} takes {', '.join(takes.names) or 'no arguments'}"
    missing = [name for name in takes.required if name not in arrays or name not in takes.names]
    if missing and not data:
        raise UserError(
            f"{said}: give them by --config.data=FILE.npz, written by np.savez(FILE, "
            f"{missing[0]}=...)."
        )
    if missing:
        raise UserError(
            f"{said}, by these names; {data} has no {', '.join(missing)}, it has "
            f"{', '.join(arrays) or 'nothing'}."
        )
    unexpected = [name for name in arrays if name not in takes.names]
    if unexpected and not takes.any_name:
        near = suggest(unexpected[0], takes.names)
        raise UserError(f"{said}; {data} also has {', '.join(unexpected)}{near}: leave it out.")
    return arrays


class _Arguments(NamedTuple):
    """What a function may be called with by name."""

    names: list[str]
    required: list[str]  # those without a default, by name or not
    any_name: bool  # it has **kwargs

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "_Arguments":
        """Those of a function."""
        parameters = inspect.signature(function).parameters.values()
        kinds = inspect.Parameter
        several = (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        single = [each for each in parameters if each.kind not in several]
        return cls(
            [each.name for each in single if each.kind != kinds.POSITIONAL_ONLY],
            [each.name for each in single if each.default is kinds.empty],
            any(each.kind == kinds.VAR_KEYWORD for each in parameters),
        )


def _read(path: Path) -> dict[str, Any]:
    """Every array of an .npz; nothing is unpickled."""
    import jax.numpy as jnp

    from experiments.data.base import DataError
    from experiments.data.stored import open_npz, read_array

    try:
        with open_npz(path) as opened:
            arrays = {name: read_array(opened, name, path) for name in opened.files}
    except DataError as error:
        raise UserError(f"config.data: {error}") from None
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise UserError(
                f"config.data: {path}: {name!r} is of {array.dtype}; a model's arguments are "
                "numbers."
            )
    return {
        name: jnp.asarray(array) if array.ndim else array.item() for name, array in arrays.items()
    }
