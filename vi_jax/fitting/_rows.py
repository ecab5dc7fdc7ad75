"""The lines that a result prints: a name, and what is said of it, within a terminal's width."""

import textwrap
from collections.abc import Iterable

WIDTH = 80  # columns of a terminal
NAME = 21  # columns of a name and the blanks behind it


def lines(rows: Iterable[tuple[str, str]]) -> str:
    """One row a name; what is longer than the terminal goes on below itself."""
    found = []
    for name, said in rows:
        parts = textwrap.wrap(
            said, WIDTH - NAME, break_long_words=False, break_on_hyphens=False
        ) or [""]
        found += [f"{name:<{NAME}}{parts[0]}", *(" " * NAME + part for part in parts[1:])]
    return "\n".join(found)
