"""Sentences on stderr: whole lines in a file, broken between words on a terminal."""

import fcntl
import io
import os
import struct
import termios

import pytest

from experiments import terminal

SENTENCE = "error: " + "config.data.name is nothing that can be read; " * 5 + "see --help."


@pytest.fixture
def narrow():
    """A terminal of 80 columns."""
    (master, slave) = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(slave, "w") as stream:
        yield stream
    os.close(master)


def test_a_terminal_has_lines_of_its_width_with_the_same_words(narrow):
    lines = terminal.fitted(SENTENCE, narrow).split("\n")
    assert len(lines) > 1
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("  ") for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == SENTENCE


def test_no_name_of_a_file_is_broken(narrow):
    path = "/".join(["folder-with-a-name"] * 8)
    assert path in terminal.fitted(f"error: {path} cannot be read.", narrow)


def test_what_is_no_terminal_has_a_line_a_sentence():
    assert terminal.fitted(SENTENCE, io.StringIO()) == SENTENCE


def test_lines_stay_lines(narrow):
    assert terminal.fitted("one\ntwo", narrow) == "one\ntwo"
