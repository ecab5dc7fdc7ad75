"""Imports of the modules that lie beside a file of the user's: a config, a model, a function."""

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


class _Beside(importlib.abc.MetaPathFinder):
    """Finds the modules of one folder, those with the name of a standard one excepted."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder.absolute())

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """As `importlib` asks for it; `path` is None for a module at the top."""
        if path is not None or fullname in sys.stdlib_module_names:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, [self._folder])
        return found if found is not None and found.loader is not None else None


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Lets a file import the modules that lie beside it, as if it were a script.

    They come first while the file is loaded, and last from then on, for what it imports later. A
    module of the standard library cannot be hidden by one of its name.
    """
    finder = _Beside(folder)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.meta_path.append(finder)
