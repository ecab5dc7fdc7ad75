"""Public objects of vi_jax: what each room and its public modules list."""

import importlib
import inspect
import types
from functools import cache
from typing import Any, NamedTuple, TypeVar

import vi_jax as vi

_NO_OBJECTS = (types.ModuleType, TypeVar)
_NO_ROOMS = ("draws",)  # names of earlier versions


class Public(NamedTuple):
    """A public object, where it is documented."""

    module: str  # dotted, such as "vi_jax.bounds"
    name: str
    value: Any

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.name}"


def names_of(module: types.ModuleType) -> list[str]:
    """The names that a module lists, or else those of what it defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def rooms() -> list[str]:
    """The rooms of the library by name, in alphabetical order."""
    found = (name for name in vi.__all__ if name not in _NO_ROOMS)
    return sorted(name for name in found if isinstance(getattr(vi, name), types.ModuleType))


@cache
def modules() -> dict[str, types.ModuleType]:
    """{dotted name: module} of the rooms and of the public modules in them."""
    found = {}
    for room in rooms():
        module = importlib.import_module(f"vi_jax.{room}")
        found[module.__name__] = module
        for name in names_of(module):
            inner = getattr(module, name)
            own = isinstance(inner, types.ModuleType) and inner.__name__ == f"vi_jax.{room}.{name}"
            if own:
                found[inner.__name__] = inner
    return found


def _distance(each: Public) -> int:
    """How far the module that lists an object is from the one that defines it: 0 for the same, 1
    for one above it, 2 for another.
    """
    home = str(getattr(each.value, "__module__", None))
    if home == each.module:
        return 0
    return 1 if home.startswith(each.module + ".") else 2


@cache
def objects() -> dict[str, Public]:
    """{full name: object} of every public object, once, at its home."""
    found: dict[str, Public] = {}
    listed = [
        Public(dotted, name, getattr(module, name))
        for dotted, module in modules().items()
        for name in names_of(module)
    ]
    listed = [each for each in listed if not isinstance(each.value, _NO_OBJECTS)]
    listed.sort(key=_distance)
    known = set()
    for each in listed:
        what = (each.name, id(each.value))
        if what not in known:
            found[each.full_name] = each
        known.add(what)
    return found


@cache
def homes() -> dict[int, str]:
    """{id: full name at its home} of functions and classes."""
    return {
        id(each.value): full_name for full_name, each in objects().items() if callable(each.value)
    }


@cache
def addresses() -> dict[str, str]:
    """{dotted name after `vi.`: full name at its home} of objects, their members, and modules."""
    by_name = {(each.name, id(each.value)): home for home, each in objects().items()}
    found = {dotted.removeprefix("vi_jax."): dotted for dotted in modules()}
    places = [
        ("", vi),
        *((dotted.removeprefix("vi_jax.") + ".", module) for dotted, module in modules().items()),
    ]
    for prefix, module in places:
        for name in names_of(module):
            value = getattr(module, name)
            if isinstance(value, types.ModuleType):
                continue
            full_name = f"vi_jax.{prefix}{name}"
            home = full_name if full_name in objects() else by_name.get((name, id(value)))
            if home is None:
                continue
            found[prefix + name] = home
            for member in members(value):
                found[f"{prefix}{name}.{member}"] = f"{home}.{member}"
    return found


def _given(value: type) -> dict[str, Any]:
    """{name: member} of a class, and of bases here that have no entry of their own."""
    entries = {each.value for each in objects().values() if inspect.isclass(each.value)}
    given: dict[str, Any] = {}
    for kind in value.__mro__:
        is_ours = kind.__module__.startswith("vi_jax.")
        if kind is value or (is_ours and kind not in entries):
            given = dict(vars(kind)) | given
    return given


def members(value: Any) -> dict[str, Any]:
    """{name: function or property} of the documented members of a class, those of bases that have
    no entry of their own included.
    """
    if not inspect.isclass(value):
        return {}
    given = _given(value)
    found = {}
    for name, member in given.items():
        function = getattr(member, "fget", None) or getattr(member, "func", None) or member
        if isinstance(function, (staticmethod, classmethod)):
            function = function.__func__
        if not name.startswith("_") and inspect.isfunction(function) and function.__doc__:
            found[name] = member
    return found
