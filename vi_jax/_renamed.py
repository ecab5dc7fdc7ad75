"""Old names that still work, with a DeprecationWarning that says the new one. To go in 0.2."""

import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any


def keep_old_name(package: str, names: Iterable[str], old: str) -> None:
    """Lets the modules of a package that define one function each, by their own name, answer to
    `old` too, the name of all of these functions until 0.1: `from vi_jax.bounds.iwae import bound`.
    """
    for name in names:
        member = sys.modules.get(f"{package}.{name}")
        if member is not None:
            vars(member)["__getattr__"] = _forward(member, name, old)


def _forward(member: Any, new: str, old: str) -> Callable[[str], Any]:
    def get(name: str) -> Any:
        if name != old:
            raise AttributeError(f"module {member.__name__!r} has no attribute {name!r}")
        warnings.warn(
            f"{member.__name__}.{old} is now called {new}; the old name goes in vi_jax 0.2.",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(member, new)

    return get
