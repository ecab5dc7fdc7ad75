"""Columns of a table, a small panel each: data beside reconstructions, and imputed entries."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.figures.page import (
    BLUE,
    DARK_GREY,
    GREY,
    ORANGE,
    caption,
    minus,
    new_page,
    some,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 24
MOST_POINTS = 1_000  # of a panel
MOST_ENTRIES = 40  # imputed ones of a panel
MOST_NAMED = 5  # levels whose names fit along a panel
ACROSS = 6
NAME_CHARACTERS = 16
LEVEL_CHARACTERS = 7
SMALL = 7  # points, of texts in a panel


class Reconstructed(NamedTuple):
    """One column of a table where it is observed, and its reconstruction."""

    name: str
    truth: np.ndarray  # [n], in the data's units; of classes the codes 0..L-1
    rebuilt: np.ndarray  # [n], the same
    levels: tuple[str, ...] = ()  # of classes
    is_log: bool = False  # drawn by log(1 + x), as counts are


class Imputed(NamedTuple):
    """One column of a table with missing entries, and what they are taken for."""

    name: str
    observed: np.ndarray  # [n], in the data's units; of classes the codes 0..L-1
    mean: np.ndarray  # [m], of each missing entry; of classes the most probable code
    low: np.ndarray  # [m], the 5 % quantile
    high: np.ndarray  # [m], the 95 % quantile
    levels: tuple[str, ...] = ()  # of classes


def reconstructed_columns(
    path: str | Path, columns: Sequence[Reconstructed], *, title: str
) -> Path:
    """Data against reconstruction for each column: points beside the diagonal, or of classes the
    share of each true level that is reconstructed as each level.

    At most MOST_PANELS columns are drawn, evenly spaced in the order of the table; the caption
    says so.
    """
    _require("reconstructed_columns", columns, lambda column: (column.truth, column.rebuilt))

    def draw(ax: "Axes", column: Reconstructed) -> None:
        if column.levels:
            _confusion(ax, column)
        else:
            _points(ax, column)

    notes = []
    if any(not column.levels for column in columns):
        notes.append("across: data, up: reconstruction, grey line: equality")
    if any(column.levels for column in columns):
        notes.append("classes: the share of each true level, across, that is rebuilt as another")
    if any(column.is_log for column in columns):
        notes.append("counts, and their R², on the scale of log(1 + x)")
    return _panels(path, columns, draw, title, notes)


def imputed_columns(path: str | Path, columns: Sequence[Imputed], *, title: str) -> Path:
    """Imputed entries of each column: means with 90 % intervals, smallest mean first, beside the
    median and the 5 to 95 % range of what is observed; of classes bars of frequencies.

    At most MOST_PANELS columns and MOST_ENTRIES entries of each are drawn, evenly spaced; the
    caption says so.
    """
    _require("imputed_columns", columns, lambda column: column[1:5])

    def draw(ax: "Axes", column: Imputed) -> None:
        if column.levels:
            _frequencies(ax, column)
        else:
            _intervals(ax, column)

    notes = []
    if any(not column.levels for column in columns):
        notes.append(
            "orange: imputed entries, the smallest mean first, with 90 % intervals; grey: median "
            "and 5 to 95 % of what is observed"
        )
    if any(column.levels for column in columns):
        notes.append("classes: the share of each level, observed in grey, imputed in orange")
    if any(len(column.mean) > MOST_ENTRIES and not column.levels for column in columns):
        notes.append(f"at most {MOST_ENTRIES} entries of a column, evenly spaced")
    return _panels(path, columns, draw, title, notes)


def r_squared(truth: np.ndarray, rebuilt: np.ndarray) -> float:
    """1 - residual over total sum of squares; nan where the truth does not vary."""
    total = np.square(truth - truth.mean()).sum()
    return float(1.0 - np.square(truth - rebuilt).sum() / total) if total > 0 else math.nan


def shortened(name: str, most: int) -> str:
    """A name of at most so many characters, cut at its end."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


# --- the page


def _require(call: str, columns: Sequence, arrays: Callable[..., Sequence[np.ndarray]]) -> None:
    """Raises ValueError where there is no column, or one is empty or not finite."""
    if not columns:
        raise ValueError(f"figures.{call} needs one or more columns; got none.")
    for column in columns:
        for array in arrays(column):
            if array.ndim != 1 or not array.size or not np.isfinite(array).all():
                raise ValueError(
                    f"figures.{call} needs finite numbers [n] of each column; {column.name!r} has "
                    f"shape {array.shape}, {np.isfinite(array).sum()} of them finite."
                )


def _panels(
    path: str | Path,
    columns: Sequence,
    draw: Callable[..., None],
    title: str,
    notes: list[str],
) -> Path:
    """A page of small panels, with a caption of what they show."""
    shown = [columns[i] for i in some(len(columns), most=MOST_PANELS)]
    if len(shown) < len(columns):
        notes = [
            *notes,
            f"{len(shown)} of {len(columns):,} columns, evenly spaced in the table's order",
        ]
    across = min(ACROSS, len(shown))
    rows = math.ceil(len(shown) / across)
    size = (max(6.2, 1.5 * across), 1.4 + 1.55 * rows)
    with new_page(path, title=title, size=size) as fig:
        axes = fig.subplots(rows, across, squeeze=False).ravel()
        for ax in axes[len(shown) :]:
            ax.remove()
        for ax, column in zip(axes, shown, strict=False):
            ax.tick_params(labelsize=SMALL, length=2, pad=1.5)
            draw(ax, column)
        caption(fig, "; ".join(notes))
    return Path(path)


def _heading(ax: "Axes", name: str, note: str) -> None:
    ax.set_title(
        f"{shortened(name, NAME_CHARACTERS)}\n{note}", fontsize=SMALL + 0.5, parse_math=False
    )


# --- one panel


def _points(ax: "Axes", column: Reconstructed) -> None:
    """Data across, reconstruction up, and the line where they are equal."""
    truth = column.truth.astype(float)
    rebuilt = column.rebuilt.astype(float)
    if column.is_log:
        truth = np.log1p(truth)
        rebuilt = np.log1p(np.maximum(rebuilt, 0.0))
    _heading(ax, column.name, minus(f"R² {r_squared(truth, rebuilt):.2f}"))
    rows = some(len(truth), most=MOST_POINTS)
    x = truth[rows]
    y = rebuilt[rows]
    low = min(x.min(), y.min())
    high = max(x.max(), y.max())
    room = 0.05 * (high - low) or 1.0
    limits = (low - room, high + room)
    ax.plot(limits, limits, color=GREY, linewidth=0.8, zorder=1)
    alpha = float(np.clip(60 / len(x) ** 0.7, 0.15, 0.8))
    ax.scatter(x, y, s=6, color=BLUE, alpha=alpha, linewidths=0)
    ax.set_xlim(limits)
    ax.set_ylim(limits)
    if column.is_log:
        at = _count_ticks(limits)
        names = [f"{value:.4g}".replace("e+0", "e") for value in at]
        ax.set_xticks(np.log1p(at), names)
        ax.set_yticks(np.log1p(at), names)
    else:
        _few_ticks(ax, x=True)


def _count_ticks(limits: tuple[float, float]) -> list[float]:
    """At most three counts to name on a scale of log(1 + x): powers of ten apart, or round ones."""
    low, high = np.expm1(limits)
    every = [0.0, *(factor * 10.0**k for k in range(16) for factor in (1, 2, 5))]
    powers = [value for value in every if low <= value <= high and f"{value:e}"[0] in "01"]
    found = powers if len(powers) > 1 else [value for value in every if low <= value <= high]
    return [found[i] for i in some(len(found), most=3)] if found else []


def _confusion(ax: "Axes", column: Reconstructed) -> None:
    """The share of each true level, across, that is reconstructed as each level, up."""
    size = len(column.levels)
    truth = column.truth.astype(int)
    rebuilt = column.rebuilt.astype(int)
    counts = np.zeros((size, size))
    np.add.at(counts, (rebuilt, truth), 1.0)
    shares = counts / np.maximum(counts.sum(0), 1.0)
    ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, origin="lower", aspect="auto")
    right = np.mean(truth == rebuilt)
    _heading(ax, column.name, f"{100 * right:.0f} % right")
    ax.spines[:].set_visible(True)
    if size <= MOST_NAMED:
        names = [shortened(level, LEVEL_CHARACTERS) for level in column.levels]
        ax.set_xticks(range(size), names, rotation=90, parse_math=False)
        ax.set_yticks(range(size), names, parse_math=False)
    else:
        at = some(size, most=3)
        ax.set_xticks(at)
        ax.set_yticks(at)


def _intervals(ax: "Axes", column: Imputed) -> None:
    """Means and 90 % intervals of the imputed entries."""
    low, median, high = np.quantile(column.observed.astype(float), [0.05, 0.5, 0.95])
    ax.axhspan(low, high, color="#E9E9E9", linewidth=0)
    ax.axhline(median, color=DARK_GREY, linewidth=0.8)
    order = np.argsort(column.mean, kind="stable")
    order = order[some(len(order), most=MOST_ENTRIES)]
    at = np.arange(len(order))
    ax.vlines(at, column.low[order], column.high[order], color=ORANGE, linewidth=0.9, alpha=0.7)
    ax.scatter(at, column.mean[order], s=7, color=ORANGE, linewidths=0, zorder=3)
    ax.set_xticks([])
    ax.set_xlim(-1.5, len(order) + 0.5)
    _heading(ax, column.name, f"{len(column.mean):,} imputed")
    _few_ticks(ax, x=False)


def _frequencies(ax: "Axes", column: Imputed) -> None:
    """Shares of the levels, observed and imputed."""
    size = len(column.levels)
    at = np.arange(size)
    for values, colour, shift in ((column.observed, GREY, -0.2), (column.mean, ORANGE, 0.2)):
        shares = np.bincount(values.astype(int), minlength=size) / len(values)
        ax.bar(at + shift, 100 * shares, width=0.4, color=colour, linewidth=0)
    _heading(ax, column.name, f"{len(column.mean):,} imputed")
    ax.set_ylabel("%", fontsize=SMALL, labelpad=1)
    if size <= MOST_NAMED:
        names = [shortened(level, LEVEL_CHARACTERS) for level in column.levels]
        ax.set_xticks(at, names, rotation=90, parse_math=False)
    else:
        ax.set_xticks(some(size, most=3))
    _few_ticks(ax, x=False)


def _few_ticks(ax: "Axes", *, x: bool) -> None:
    """Two or three ticks with short numbers; on both axes where x is drawn too."""
    from matplotlib.ticker import MaxNLocator

    axes = [ax.yaxis, ax.xaxis] if x else [ax.yaxis]
    for axis in axes:
        low, high = sorted(axis.get_view_interval())
        every = MaxNLocator(nbins=3, steps=[1, 2, 5, 10], min_n_ticks=2).tick_values(low, high)
        inside = [value for value in every if low <= value <= high]
        at = inside[:: -(-len(inside) // 3) or 1]
        names = [minus(f"{value:.4g}") for value in at]
        if len(set(names)) < len(names):  # they differ in later digits alone
            at = at[:1]
            names = names[:1]
        axis.set_ticks(at, names)
