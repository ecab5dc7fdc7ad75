"""Docstrings as Markdown: paragraphs, blocks of code, and lists of arguments and errors."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator

_SECTION = re.compile(r"(Args|Returns|Raises|Yields):\s*(.*)")
_ENTRY = re.compile(r"([\w*][\w*, .\[\]/]*?): (.*)")


def markdown(docstring: str | None) -> str:
    """The Markdown of a docstring; its sections become lists."""
    if not docstring:
        return ""
    parts = []
    for title, lines in _sections(inspect.cleandoc(docstring).split("\n")):
        if not title:
            parts.append(_blocks(lines))
        elif title in ("Args", "Raises"):
            name = "Arguments" if title == "Args" else title
            parts.append(f"**{name}**\n\n{_entries(lines)}")
        else:
            text = textwrap.dedent("\n".join(lines))
            parts.append(f"**{title}**\n\n{_blocks(text.splitlines())}")
    return "\n\n".join(part for part in parts if part.strip())


def first_sentence(docstring: str | None) -> str:
    """The first sentence of a docstring as one line of Markdown, without links in it."""
    paragraph = inspect.cleandoc(docstring or "").split("\n\n")[0].replace("\n", " ")
    found = re.match(r"(.*?[^.A-Z][.:])(?= [A-Z`]|$)", paragraph)
    return escape(found[1] if found else paragraph)


def escape(text: str) -> str:
    """Text in which Markdown sees nothing but its code spans."""
    pieces = re.split(r"(`[^`]+`)", text)
    for number in range(0, len(pieces), 2):
        pieces[number] = re.sub(r"([\\*_<>\[\]$|#~{}`])", r"\\\1", pieces[number])
    return "".join(pieces)


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(title, lines) of each section; the text before and after them has the title ""."""
    title = ""
    found: list[str] = []
    for line in lines:
        heading = _SECTION.fullmatch(line)
        if heading:
            yield title, found
            title = heading[1]
            found = [f"  {heading[2]}"] if heading[2] else []
        elif title and line and not line.startswith(" "):
            yield title, found
            title = ""
            found = [line]
        else:
            found.append(line)
    yield title, found


def _entries(lines: list[str]) -> str:
    """`name: what` of arguments and errors, one item each."""
    items: list[list[str]] = []
    for line in textwrap.dedent("\n".join(lines)).strip("\n").split("\n"):
        if line and not line.startswith(" "):
            items.append([line])
        elif items:
            items[-1].append(line)
    return "\n".join(_entry(item) for item in items)


def _entry(lines: list[str]) -> str:
    found = _ENTRY.fullmatch(lines[0])
    name = f"`{found[1]}`: " if found else ""
    first = found[2] if found else lines[0]
    rest = textwrap.dedent("\n".join(lines[1:])).split("\n")
    body = _blocks([first, *rest])
    return "- " + name + textwrap.indent(body, "  ").strip()


def _blocks(lines: list[str]) -> str:
    """Paragraphs and lists as they are, escaped; indented blocks as code."""
    parts = []
    for code, block in _by_kind(lines):
        text = "\n".join(block).strip("\n")
        if code:
            text = textwrap.dedent(text)
            parts.append(f"```{_language(text)}\n{text}\n```")
        elif text:
            parts.append(escape(text))
    return "\n\n".join(parts)


def _by_kind(lines: list[str]) -> Iterator[tuple[bool, list[str]]]:
    """(is it code, its lines) of each block: code is indented by four and follows an empty line."""
    block: list[str] = []
    code = False
    before = ""
    in_list = False
    for line in lines:
        in_list = line.startswith(("- ", "* ")) or (in_list and line.startswith(" "))
        begins = line.startswith("    ") and not before.strip() and not in_list
        ends = bool(line.strip()) and not line.startswith("    ")
        if (begins and not code) or (ends and code):
            yield code, block
            block = []
            code = begins
        block.append(line)
        before = line
    yield code, block


def _language(text: str) -> str:
    try:
        ast.parse(text)
    except SyntaxError:
        return "text"
    return "python" if re.search(r"[=(]", text) else "text"
