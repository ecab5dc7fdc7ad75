"""Which bound an estimator was handed, and the sentence for one that it is not valid for."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from vi_jax.types import Array


def bound_name(bound: Callable[[Array], Array]) -> str:
    """The file's name of one of our bounds, looking through `functools.partial`; a function's own
    name otherwise.
    """
    while isinstance(bound, functools.partial):
        bound = bound.func
    module = getattr(bound, "__module__", "") or ""
    name = getattr(bound, "__name__", repr(bound))
    return (
        module.rsplit(".", 1)[-1]
        if module.startswith("vi_jax.bounds.") and name == "bound"
        else name
    )


def bound_numbers(bound: Callable[[Array], Array]) -> Mapping[str, Any]:
    """The keywords that `functools.partial` gave a bound."""
    numbers: dict[str, Any] = {}
    while isinstance(bound, functools.partial):
        numbers = {**bound.keywords, **numbers}
        bound = bound.func
    return numbers


def require_bound(
    bound: Callable[[Array], Array], valid: tuple[str, ...], estimator: str, why: str
) -> None:
    """Raises ValueError for a bound that is not among the valid ones, with the reason."""
    name = bound_name(bound)
    if name not in valid:
        raise ValueError(f"{estimator} is valid for {' and '.join(valid)}, not for {name}: {why}")
