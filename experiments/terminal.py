"""What a command says on stderr: whole lines in a file, and on a terminal broken between words."""

import os
import sys
import textwrap
from typing import TextIO

WIDTH = 80  # columns of what is printed where no terminal says its own
NARROWEST = 40  # columns, below which nothing is wrapped


def fitted(text: str, stream: TextIO) -> str:
    """A sentence as it is written on a stream: where that is a terminal, in lines of its width,
    those below the first one indented; elsewhere, where lines are searched and counted, as it is.
    """
    columns = _columns(stream)
    if columns < NARROWEST:
        return text
    wrapper = textwrap.TextWrapper(
        columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(wrapper.fill(line) for line in text.split("\n"))


def say(text: str) -> None:
    """A sentence on stderr, at once."""
    print(fitted(text, sys.stderr), file=sys.stderr, flush=True)


def _columns(stream: TextIO) -> int:
    """Of a terminal; 0 where the stream is none, or does not tell."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError, AttributeError):  # closed, or a stand-in without a descriptor
        return 0
