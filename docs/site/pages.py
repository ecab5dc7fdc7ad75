"""The code of a page: run it, and write what it prints and its figures.

    python -m docs.site.pages docs/tutorials/elbo.md

The Python blocks of a page run in order, in one namespace. A block ```` ```text ```` right behind a
Python block is what that block printed; the figures that the blocks leave open are the pictures of
the page in order, docs/figures/PAGE_1.png and so on.
"""

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

FIGURES = Path(__file__).resolve().parents[1] / "figures"
_PYTHON = re.compile(r"```python\n(.*?)```\n", re.DOTALL)
_PRINTED = re.compile(r"\n```text\n(.*?)```\n", re.DOTALL)
_PICTURE = re.compile(r"!\[[^\]]*\]\(\S*?figures/(\S+?)\)", re.DOTALL)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\w)", re.DOTALL)
_COLOURS = 64  # of a figure's palette
_STYLE = {
    "figure.figsize": (6.4, 3.2),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "legend.frameon": False,
    "font.size": 9,
}


class Ran(NamedTuple):
    """What the blocks of a page did."""

    printed: list[str]  # of each Python block
    figures: list[Any]  # matplotlib figures, in order


def python_blocks(text: str) -> list[str]:
    return _PYTHON.findall(text)


def pictures(text: str) -> list[str]:
    """The names of the figures that a page shows."""
    return _PICTURE.findall(text)


def formulas(text: str) -> list[str]:
    """The formulas of a page, without its blocks and spans of code."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    return [block or inline for block, inline in _FORMULA.findall(prose)]


def run(path: Path) -> Ran:
    """Runs the Python blocks of a page in order, in one namespace.

    Raises:
      Exception: whatever a block raises, with the page's name in the traceback.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    pyplot.close("all")
    namespace: dict[str, Any] = {"__name__": path.stem}
    printed = []
    with matplotlib.rc_context(_STYLE):
        for block in python_blocks(path.read_text()):
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(block, str(path), "exec"), namespace)
            printed.append(output.getvalue())
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    return Ran(printed, figures)


def with_output(text: str, printed: list[str]) -> str:
    """The page with what its blocks printed in the text blocks right behind them."""
    parts = []
    end = 0
    for block, output in zip(_PYTHON.finditer(text), printed, strict=True):
        parts.append(text[end : block.end()])
        end = block.end()
        behind = _PRINTED.match(text, end)
        if behind:
            parts.append(f"\n```text\n{output.rstrip()}\n```\n")
            end = behind.end()
    return "".join([*parts, text[end:]])


def file_names(path: Path, figures: list[Any]) -> list[str]:
    """The names of a page's figures, in order."""
    return [f"{path.stem}_{number}.png" for number in range(1, len(figures) + 1)]


def save(figure: Any, path: Path) -> None:
    """A small PNG: a palette of 64 colours is enough for lines and text."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    picture = Image.open(buffer).convert("RGB")
    picture = picture.quantize(_COLOURS)
    picture.save(path, optimize=True)


def main(paths: list[str]) -> None:
    for path in map(Path, paths):
        ran = run(path)
        FIGURES.mkdir(exist_ok=True)
        for figure, name in zip(ran.figures, file_names(path, ran.figures), strict=True):
            save(figure, FIGURES / name)
        path.write_text(with_output(path.read_text(), ran.printed))
        print(f"{path}: {len(ran.printed)} blocks, {len(ran.figures)} figures")


if __name__ == "__main__":
    main(sys.argv[1:])
