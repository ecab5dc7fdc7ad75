"""Attributes of functions: what a bound or an estimator says of itself.

Any function says it by plain attributes, so one of your own can too:

    def my_bound(log_w): ...
    my_bound.smooth = True

They are found through `functools.partial`, `functools.wraps`, `jax.jit` and whatever else leaves
`__wrapped__` behind.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def declare(**attributes: Any) -> Callable[[F], F]:
    """A decorator that sets these attributes on a function, and returns the function itself."""

    def decorate(function: F) -> F:
        for name, value in attributes.items():
            setattr(function, name, value)
        return function

    return decorate


def attribute(function: Callable[..., Any], name: str, default: Any = None) -> Any:
    """The attribute of a function, or else of the function that it wraps, or else the default."""
    for layer in _layers(function):
        if hasattr(layer, name):
            return getattr(layer, name)
    return default


def keywords(function: Callable[..., Any]) -> dict[str, Any]:
    """The keywords that `functools.partial` gave a function, the outermost of each name."""
    given: dict[str, Any] = {}
    for layer in _layers(function):
        if isinstance(layer, functools.partial):
            given = {**layer.keywords, **given}
    return given


def name_of(function: Callable[..., Any]) -> str:
    """The function's own name, for an error message."""
    return attribute(function, "__name__", repr(function))


def _layers(function: Any) -> Iterator[Any]:
    """The function, what it wraps, what that wraps, and so on."""
    while function is not None:
        yield function
        if isinstance(function, functools.partial):
            function = function.func
        else:
            function = getattr(function, "__wrapped__", None)
