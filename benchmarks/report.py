"""Where a benchmark ran, and how its table is written: Markdown, JSON, CSV, and the blocks of
README.md.
"""

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import re
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

README = Path(__file__).with_name("README.md")
RESULTS = Path(__file__).with_name("results")  # tables that are too long for README.md
MAX_ROWS = 12  # of a table of README.md


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def device_name() -> str:
    """The accelerator by its name, or the processor and how many cores this process may use."""
    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{device.device_kind} ({device.platform})"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.M)
    return names[0].strip() if names else platform.processor() or platform.machine()


def process_megabytes(field: str) -> float:
    """MB of this process: VmHWM, the most it held, or RssAnon, what it holds without mapped files,
    where the system says so, as Linux does; else the most by `ru_maxrss`, which is in bytes on
    macOS.
    """
    status = Path("/proc/self/status")
    text = status.read_text() if status.exists() else ""
    lines = dict(line.split(":", 1) for line in text.splitlines())
    if field in lines:
        return int(lines[field].split()[0]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 1024


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def used(*packages: str) -> str:
    """The device, Python's version and those of the packages, for the note under a table."""
    found = ", ".join(f"{name} {version}" for name, version in versions(*packages).items())
    return f"{device_name()}; {found}."


def make_parser(description: str, *, has_json: bool = True) -> argparse.ArgumentParser:
    """A parser of the flags that every benchmark has, --write and --json: see `finish`."""
    parser = argparse.ArgumentParser(description=description)
    if has_json:
        parser.add_argument("--json", help="file for the numbers")
    parser.add_argument(
        "--write",
        action="store_true",
        help="put the tables into benchmarks/README.md, long ones into benchmarks/results",
    )
    return parser


class LongTable(NamedTuple):
    """A table of more rows than a reader of README.md looks at."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def finish(
    name: str,
    text: str,
    flags: argparse.Namespace,
    numbers: Any = None,
    whole: LongTable | None = None,
) -> None:
    """Prints the tables, and writes the numbers and the tables where the flags say so.

    Args:
      name: of the block in README.md, and of the file in results.
      text: the tables, Markdown; of at most `MAX_ROWS` rows each.
      flags: of `make_parser`.
      numbers: for --json.
      whole: the table that `text` sums up, if it has more rows.
    """
    print(text)
    if whole is not None:
        print(f"\n{markdown_table(whole.head, whole.rows)}")
    if numbers is not None and flags.json:
        write_json(flags.json, numbers)
    if flags.write:
        write_block(name, text)
    if flags.write and whole is not None:
        write_csv(name, whole)


def link(name: str, rows: str = "All rows") -> str:
    """The sentence of README.md that leads to the file of a long table."""
    return f"{rows}: [results/{name}.csv](results/{name}.csv)."


def write_csv(name: str, table: LongTable) -> Path:
    """The table in `results`, without Markdown's marks and without commas in numbers."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([_plain(cell) for cell in row] for row in (table.head, *table.rows))
    say(f"wrote {path.name} of {RESULTS.name}")
    return path


def _plain(cell: str) -> str:
    text = re.sub(r"\*\*|`", "", cell)
    return text.replace(",", "") if re.fullmatch(r"[+-]?\d[\d,]*(\.\d+)?", text) else text


def write_json(path: str, result: Any) -> None:
    """One result, indented."""
    Path(path).write_text(json.dumps(result, indent=2) + "\n")


def write_block(name: str, text: str, page: Path | None = None) -> None:
    """Replaces what stands in a page between the comments `name: begin` and `name: end`; in
    README.md if none is given.

    Raises:
      ValueError: the comments are not there, once each and in this order.
    """
    begin = f"<!-- {name}: begin -->"
    end = f"<!-- {name}: end -->"
    page = README if page is None else page
    content = page.read_text()
    if (
        content.count(begin) != 1
        or content.count(end) != 1
        or content.index(begin) > content.index(end)
    ):
        raise ValueError(
            f"{page.name} wants one {begin!r} and, after it, one {end!r}; put them back."
        )
    before, rest = content.split(begin)
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}")
    say(f"wrote the block {name!r} of {page.name}")
