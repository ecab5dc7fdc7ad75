"""A name plus numbers is a call: how a value of a config becomes a function of a room.

A *room* is a package whose public functions a config may name, such as `vi_jax.bounds`. A *choice*
is `dict(name="vamp", num_components=500)`: a function of the room and its keyword arguments; a bare
string is short for one without arguments. An argument whose name stands for a room, such as
`prior`, is a choice itself; where its function asks for an argument that the choice around it has,
such as `num_latents`, it is given that one. `file.py:function` and `package.module:function` name
a function of the user's own in any room.

`check` answers a wrong name or argument from the syntax trees alone, before JAX is imported;
`build` imports and calls.
"""

import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from experiments import signatures
from experiments.beside import importable
from experiments.cli import UserError, suggest
from experiments.errors import in_own_code
from experiments.signatures import NoSuchFunction, Signature

NAME = "name"
_OUTSIDE = re.compile(r"(?P<place>.+\.py|[A-Za-z_]\w*(?:\.\w+)*):(?P<function>[A-Za-z_]\w*)")


class Room(NamedTuple):
    """A kind of function that configs name.

    `later` are the arguments that our own code passes when it calls the function; no config gives
    them. `is_called`: the choice is the function's result; else it is the function itself with the
    choice's numbers filled in, and `later` are still to come.
    """

    kind: str  # what an error message calls it, such as "prior"
    module: str  # whose functions it holds
    names: tuple[str, ...] = ()  # those there are; the module's `__all__` if empty
    without: tuple[str, ...] = ()  # what of `__all__` is no function of the kind
    later: tuple[str, ...] = ()
    is_called: bool = True
    # what stands for a choice that a run makes by itself: a name without a function
    open_names: tuple[str, ...] = ()
    takes_numbers: bool = False  # a number may stand in place of a choice, such as a constant rate

    @property
    def article(self) -> str:
        """The kind with its article."""
        return f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"

    def all_names(self) -> tuple[str, ...]:
        """The names that a config may give."""
        if self.names:
            return self.names
        public = signatures.members(self.module)
        return tuple(name for name in public if name not in self.without)


class Rooms(NamedTuple):
    """All rooms, and which argument names stand for a choice of which room."""

    by_argument: Mapping[str, Room]

    def check(self, room: Room, value: Any, *, where: str, facts: Collection[str] = ()) -> None:
        """Raises UserError where a choice does not name a function with such arguments.

        Args:
          room: that the choice is of.
          value: a name, or a mapping with a name and arguments.
          where: the field of the config, such as "config.model.prior", for messages.
          facts: names of what is known of the data by then, given where a signature asks for it.
        """
        choice = as_choice(value, room, where)
        signature = find(room, choice[NAME], where)
        given = {name for name in choice if name != NAME}
        takes = set(signature.parameters) - set(room.later)
        for name in sorted(given - takes):
            if signature.takes_any and name not in room.later:
                continue
            raise UserError(
                f"{where}: {choice[NAME]} has no argument {name!r}{suggest(name, sorted(takes))}; "
                f"it is {_shown(signature, room)}."
            )
        for name, parameter in signature.parameters.items():
            known = given | set(room.later) | set(facts)
            if parameter.is_required and name not in known:
                raise UserError(
                    f"{where}: {choice[NAME]} needs {name!r}; it is {_shown(signature, room)}."
                )
        for name, wanted in signatures.wrong_sizes(signature, choice):
            raise UserError(
                f"{where}.{name} is {choice[name]!r}; {choice[NAME]} takes {wanted} for it."
            )
        known = {*facts, *given}
        for name, inner in self._nested(choice):
            self.check(inner, choice[name], where=f"{where}.{name}", facts=known)

    def build(self, room: Room, value: Any, *, where: str, facts: Mapping[str, Any]) -> Any:
        """The function that a choice names, called with its arguments and with the facts it asks
        for; `Room.is_called` says where it is only filled in.

        Raises:
          UserError: as `check`; or the function refused its arguments, in its own words.
        """
        self.check(room, value, where=where, facts=facts)
        choice = as_choice(value, room, where)
        signature = find(room, choice[NAME], where)
        arguments = {
            name: facts[name]
            for name in signature.parameters
            if name in facts and name not in room.later
        }
        arguments |= {name: value for name, value in choice.items() if name != NAME}
        nested = dict(self._nested(choice))
        own = {name: value for name, value in arguments.items() if name not in nested}
        for name, inner in nested.items():
            arguments[name] = self.build(
                inner, choice[name], where=f"{where}.{name}", facts={**facts, **own}
            )
        function = load(room, choice[NAME], where)
        if not room.is_called:
            return functools.partial(function, **arguments) if arguments else function
        try:
            return function(**arguments)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: {choice[NAME]}: {error}") from error
        except Exception as error:
            names = list(self.outside(room, choice))
            if _is_explained(error, names):
                raise
            said = f"{type(error).__name__}: {error}"
            raise UserError(f"{where}: {choice[NAME]} of {', '.join(names)}: {said}") from error

    def normal(self, room: Room, value: Any, *, where: str) -> dict[str, Any]:
        """A choice with every name in it as a dictionary, so that two ways to write it are one."""
        choice = as_choice(value, room, where)
        for name, inner in self._nested(choice):
            choice[name] = self.normal(inner, choice[name], where=f"{where}.{name}")
        return choice

    def outside(self, room: Room, value: Any, where: str = "config") -> Iterator[str]:
        """The names in a choice that lie outside our own rooms: code of somebody's."""
        choice = as_choice(value, room, where)
        if is_outside(choice[NAME]):
            yield choice[NAME]
        for name, inner in self._nested(choice):
            yield from self.outside(inner, choice[name], f"{where}.{name}")

    def switch(self, room: Room, old: Any, name: str, where: str) -> tuple[dict, list[str]]:
        """A choice under another name: the arguments that the new function does not take are
        dropped, and listed.
        """
        choice = as_choice(old, room, where)
        signature = find(room, name, where)
        keeps = set(signature.parameters) - set(room.later)
        dropped = [each for each in choice if each != NAME and each not in keeps]
        kept = {each: choice[each] for each in choice if each in keeps}
        return {NAME: name, **kept}, dropped

    def _nested(self, choice: Mapping[str, Any]) -> Iterator[tuple[str, Room]]:
        """The arguments of a choice that are choices themselves; numbers and None are none."""
        for name, value in choice.items():
            room = self.by_argument.get(name)
            if name == NAME or room is None or value is None:
                continue
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_per_site = isinstance(value, Mapping) and NAME not in value and room.takes_numbers
            if not (room.takes_numbers and (is_number or is_per_site)):
                yield name, room


def as_choice(value: Any, room: Room, where: str) -> dict[str, Any]:
    """A choice as a dictionary with a name.

    Raises:
      UserError: it is neither a name nor a mapping with one.
    """
    choice = {NAME: value} if isinstance(value, str) else value
    if not hasattr(choice, "items") or not isinstance(choice.get(NAME), str):
        shown = " ".join(repr(_plain(value)).split())[:80]
        raise UserError(
            f"{where} is {shown}; {room.article} is a name, or dict(name=..., ...) with its "
            f"arguments; the names are {', '.join(room.all_names())}."
        )
    return _plain(choice)


def find(room: Room, name: str, where: str) -> Signature:
    """The signature of a function by its name in a config.

    Raises:
      UserError: there is no such function; says which there are.
    """
    outside = _OUTSIDE.fullmatch(name)
    names = room.all_names()
    if name in room.open_names:
        return Signature(name, Path(), {}, takes_any=False, summary="")
    if name in names:
        return signatures.find(room.module, name)._replace(function=name)
    if outside is None:
        raise UserError(
            f"{where} is {name!r}; {room.article} can be {', '.join((*names, *room.open_names))}"
            f"{suggest(name, names)}, or one of your own, file.py:function."
        )
    place = outside["place"]
    try:
        if place.endswith(".py"):
            return signatures.find_in_file(Path(place), outside["function"])
        return signatures.find(place, outside["function"])
    except NoSuchFunction as error:
        raise UserError(f"{where} is {name!r}; {error}.") from None


def is_outside(name: str) -> bool:
    """Whether a name means a function outside our own rooms."""
    return _OUTSIDE.fullmatch(name) is not None


def is_in_file(name: str) -> bool:
    """Whether a name means a function in a Python file, FILE.py:FUNCTION."""
    outside = _OUTSIDE.fullmatch(name)
    return outside is not None and outside["place"].endswith(".py")


def load(room: Room, name: str, where: str) -> Any:
    """The function of a name; imports it.

    Raises:
      UserError: importing it failed, said with the error.
    """
    outside = _OUTSIDE.fullmatch(name)
    if outside is None:
        return getattr(importlib.import_module(room.module), name)
    place = outside["place"]
    try:
        if place.endswith(".py"):
            module = import_file(Path(place))
        else:
            module = importlib.import_module(place)
    except Exception as error:  # whatever the user's own module raises
        raise UserError(
            f"{where} is {name!r}; importing it failed: {type(error).__name__}: {error}"
        ) from error
    return getattr(module, outside["function"])


def import_file(file: Path) -> ModuleType:
    """A user's own Python file as a module, once; it may import helpers that lie beside it."""
    path = file.expanduser().resolve()
    name = f"_own_{path.stem}_{abs(hash(path)):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with importable(path.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_explained(error: Exception, names: list[str]) -> bool:
    """Whether an error of a choice stays as it is: it is a sentence already, the choice names
    nothing of the user's, or its traceback leads to their own lines.
    """
    return isinstance(error, UserError) or not names or in_own_code(error) is not None


def _plain(value: Any) -> Any:
    """A value of a config as Python has it: lists as tuples, mappings as dictionaries."""
    if hasattr(value, "items"):
        return {name: _plain(part) for name, part in value.items()}
    return tuple(_plain(part) for part in value) if isinstance(value, list | tuple) else value


def _shown(signature: Signature, room: Room) -> str:
    """The signature without what no config gives."""
    rest = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if name not in room.later
    }
    return signature._replace(parameters=rest).describe()
