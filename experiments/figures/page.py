"""What every figure shares: the page and its style, how it is written, its captions, and the check
of what is drawn.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from experiments.run import heartbeat
from vi_jax import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
# Okabe & Ito 2008: apart for colour-blind eyes
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
GREY = "#B3B3B3"
DARK_GREY = "#444444"  # of captions and notes
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#E3E3E3",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.titlesize": 12,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.06,
    "savefig.bbox": "standard",
}


@contextmanager
def new_page(
    path: str | Path,
    *,
    title: str,
    size: tuple[float, float],
    layout: Literal["constrained", "compressed"] = "constrained",
) -> Iterator["Figure"]:
    """An empty figure of so many inches, written to the path on leaving; "compressed" suits one
    axes of fixed shape.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(
            f"a figure is a PNG and wants a path that ends in .png; got {path.name!r}."
        )
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the matplotlibrc of the folder that a command is run in
        matplotlib.rcParams.update(STYLE)
        lines = [piece for line in title.split("\n") for piece in wrapped(line, int(9 * size[0]))]
        fig = Figure(figsize=(size[0], size[1] + 0.2 * (len(lines) - 1)), dpi=DPI, layout=layout)
        fig.suptitle("\n".join(lines), parse_math=False)
        with heartbeat.phase(f"drawing {path.name}"):
            yield fig
            write(fig, path)


def wrapped(text: str, width: int) -> list[str]:
    """As few lines of at most so many characters as can be, of like lengths, broken after a comma
    or a colon if near.
    """
    widest_word = min(width, max(map(len, text.split()), default=0))
    ways = [
        textwrap.wrap(text, w, break_on_hyphens=False)
        for w in range(max(width // 2, widest_word), width + 1)
    ]

    def badness(lines: list[str]) -> tuple[int, int]:
        lengths = [len(line) for line in lines] or [0]
        mid_clause = sum(not line.endswith((",", ":", ";")) for line in lines[:-1])
        return len(lines), max(lengths) - min(lengths) + 20 * mid_clause  # characters

    return min(ways, key=badness)


def write(fig: "Figure", path: Path) -> None:
    """Whole or not at all: a reader never sees half a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, FigureCanvasAgg(fig).print_png)


def caption(fig: "Figure", text: str) -> None:
    fig.supxlabel(textwrap.fill(text, int(14 * fig.get_figwidth())), fontsize=8, color=DARK_GREY)


def checked(call: str, name: str, x: ArrayLike, wants: str, ndims: Sequence[int]) -> np.ndarray:
    """x as floats, with one of the ranks, not empty, finite; or an error that names the function
    and the argument.
    """
    x = np.asarray(x)
    if x.ndim not in ndims or 0 in x.shape:
        raise ValueError(f"figures.{call} wants {name} of shape {wants}, not empty; got {x.shape}.")
    x = x.astype(float)
    if not np.isfinite(x).all():
        raise ValueError(
            f"figures.{call} wants finite {name}; {(~np.isfinite(x)).sum()} of {x.size} are nan "
            "or inf."
        )
    return x


def some(num: int, *, most: int) -> np.ndarray:
    """Indices of at most so many of num things, the first and the last among them, for tick
    labels.
    """
    return np.unique(np.linspace(0, num - 1, min(num, most)).round().astype(int))


def count(num: int, what: str) -> str:
    return f"{num:,} {what}{'s' * (num != 1)}"


def span(x: np.ndarray) -> str:
    return minus(f"{x.min():.3g} to {x.max():.3g}")


def minus(text: str) -> str:
    """A minus where a hyphen stands before a digit."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)
