"""Sequences: data beside reconstructions with a band, samples beside data, lengths."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.figures.columns import LEVEL_CHARACTERS, MOST_NAMED, SMALL, shortened
from experiments.figures.page import BLUE, DARK_GREY, GREY, ORANGE, caption, new_page, some

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SEQUENCES = 5  # rows of a page
MOST_COLUMNS = 4  # of a table, across a page
MOST_LINES = 12  # sequences over each other in a panel
NAME_CHARACTERS = 22


class Panel(NamedTuple):
    """One column of a sequence of T steps: what is known of it, its reconstruction and a band."""

    truth: np.ndarray  # [T], nan where missing; of classes the codes 0..L-1
    rebuilt: np.ndarray  # [T]
    low: np.ndarray  # [T], of the band; not drawn of classes
    high: np.ndarray  # [T]


class Shown(NamedTuple):
    """A sequence of a page."""

    name: str
    panels: Sequence[Panel]  # one for each column


def reconstructed_sequences(
    path: str | Path,
    sequences: Sequence[Shown],
    columns: Sequence[str],
    levels: Sequence[tuple[str, ...]],
    *,
    title: str,
    note: str,
) -> Path:
    """Data, reconstruction and a band of each column over the steps, a row for each sequence;
    ticks at the foot are missing entries.

    Args:
      path: a PNG.
      sequences: of which MOST_SEQUENCES are drawn, evenly spaced.
      columns: their names, of which MOST_COLUMNS are drawn, evenly spaced.
      levels: of each column; none where it is no class.
      title: of the page.
      note: what the band is.
    """
    if not sequences or not columns:
        raise ValueError(
            f"figures.reconstructed_sequences needs sequences and columns; got {len(sequences)} "
            f"and {len(columns)}."
        )
    rows = [sequences[i] for i in some(len(sequences), most=MOST_SEQUENCES)]
    across = some(len(columns), most=MOST_COLUMNS)
    longest = max(len(each.panels[0].truth) for each in rows)
    size = (2.6 * len(across) + 0.8, 1.5 * len(rows) + 1.4)
    with new_page(path, title=title, size=size) as fig:
        axes = fig.subplots(len(rows), len(across), squeeze=False, sharex=True, sharey="col")
        for line, (sequence, row) in enumerate(zip(rows, axes, strict=True)):
            for column, ax in zip(across, row, strict=True):
                _draw_panel(ax, sequence.panels[column], levels[column])
                ax.set_xlim(-1, longest)
                if line == 0:
                    ax.set_title(shortened(columns[column], NAME_CHARACTERS), parse_math=False)
                if line == len(rows) - 1:
                    ax.set_xlabel("step", fontsize=SMALL + 1)
            row[0].set_ylabel(shortened(sequence.name, NAME_CHARACTERS), fontsize=SMALL + 1)
        parts = [
            "points: data; line: reconstruction",
            f"band: {note}",
            "ticks at the foot: missing; a sequence ends where its line does",
        ]
        if len(across) < len(columns):
            parts.append(f"{len(across)} of {len(columns):,} columns, evenly spaced")
        caption(fig, "; ".join(parts))
    return Path(path)


def _draw_panel(ax: "Axes", panel: Panel, levels: tuple[str, ...]) -> None:
    steps = np.arange(len(panel.truth))
    known = np.isfinite(panel.truth)
    ax.tick_params(labelsize=SMALL, length=2, pad=1.5)
    if not levels:  # of classes it would be all or nothing
        ax.fill_between(steps, panel.low, panel.high, color=ORANGE, alpha=0.2, linewidth=0)
    style = "steps-mid" if levels else "default"
    ax.plot(steps, panel.rebuilt, color=ORANGE, linewidth=1.2, drawstyle=style)
    ax.plot(steps[known], panel.truth[known], ".", color=BLUE, markersize=3.5)
    ax.plot(
        steps[~known],
        np.full((~known).sum(), 0.02),
        "|",
        color=DARK_GREY,
        markersize=5,
        transform=ax.get_xaxis_transform(),
    )
    if levels:
        _name_levels(ax, levels)


def _name_levels(ax: "Axes", levels: tuple[str, ...]) -> None:
    """The codes of classes by their names, where they fit."""
    ax.set_ylim(-0.6, len(levels) - 0.4)
    at = range(len(levels)) if len(levels) <= MOST_NAMED else some(len(levels), most=3)
    ax.set_yticks(list(at), [shortened(levels[i], LEVEL_CHARACTERS) for i in at], parse_math=False)


def sampled_sequences(
    path: str | Path,
    data: Sequence[np.ndarray],
    samples: Sequence[np.ndarray],
    columns: Sequence[str],
    levels: Sequence[tuple[str, ...]],
    *,
    title: str,
) -> Path:
    """Sequences of the data beside samples, over each other, a row for each column.

    Args:
      path: a PNG.
      data, samples: [T_n, D] each, nan where missing, of which MOST_LINES are drawn.
      columns: D names, of which MOST_COLUMNS are drawn, evenly spaced.
      levels: of each column; none where it is no class.
      title: of the page.
    """
    if not data or not samples:
        raise ValueError(
            f"figures.sampled_sequences needs data and samples; got {len(data)} and "
            f"{len(samples)} sequences."
        )
    down = some(len(columns), most=MOST_COLUMNS)
    with new_page(path, title=title, size=(7.6, 1.5 * len(down) + 1.3)) as fig:
        axes = fig.subplots(len(down), 2, squeeze=False, sharex=True, sharey="row")
        for column, row in zip(down, axes, strict=True):
            for ax, each, colour in zip(row, (data, samples), (BLUE, ORANGE), strict=True):
                lines = [sequence[:, column] for sequence in each[:MOST_LINES]]
                _draw_lines(ax, lines, len(levels[column]), colour)
            name = shortened(columns[column], NAME_CHARACTERS)
            row[0].set_ylabel(name, fontsize=SMALL + 1, parse_math=False)
        for ax, name in zip(axes[0], ("data", "samples"), strict=True):
            ax.set_title(name)
        for ax in axes[-1]:
            ax.set_xlabel("step", fontsize=SMALL + 1)
        text = f"{min(len(data), MOST_LINES)} sequences on each side, gaps: missing"
        if any(levels[column] for column in down):
            text += "; classes: a strip for each sequence, the first level light, the last dark"
        if len(down) < len(columns):
            text += f"; {len(down)} of {len(columns):,} columns, evenly spaced"
        caption(fig, text)
    return Path(path)


def _draw_lines(ax: "Axes", sequences: Sequence[np.ndarray], num_levels: int, colour: str) -> None:
    """One column of some sequences over each other, or as strips where it is a class."""
    ax.tick_params(labelsize=SMALL, length=2, pad=1.5)
    if num_levels:
        _draw_strips(ax, sequences, num_levels, colour)
        return
    for sequence in sequences:
        ax.plot(sequence, color=colour, linewidth=0.8, alpha=0.6)


def _draw_strips(ax: "Axes", sequences: Sequence[np.ndarray], num_levels: int, colour: str) -> None:
    """Codes of a class by colour, a row for each sequence; nan is white."""
    from matplotlib.colors import LinearSegmentedColormap

    longest = max(len(each) for each in sequences)
    rows = np.full((len(sequences), longest), np.nan)
    for row, each in zip(rows, sequences, strict=True):
        row[: len(each)] = each
    shades = LinearSegmentedColormap.from_list("shades", ["#EAEAEA", colour])
    ax.imshow(
        rows, cmap=shades, vmin=0, vmax=num_levels - 1, aspect="auto", interpolation="nearest"
    )
    ax.set_yticks([])


def length_histograms(
    path: str | Path,
    lengths: Mapping[str, np.ndarray],
    observed: np.ndarray,
    *,
    title: str,
) -> Path:
    """How long sequences are, by split, and how much of the training ones is there at each step.

    Args:
      path: a PNG.
      lengths: of the sequences of each split, [N].
      observed: share of the training sequences that are observed at each step, of each column's
        mean, and share that reach it, [2, T].
      title: of the page.
    """
    most = observed.shape[1]
    edges = np.linspace(0.5, most + 0.5, min(most, 30) + 1)
    with new_page(path, title=title, size=(7.6, 3.2)) as fig:
        left, right = fig.subplots(1, 2)
        for (role, each), colour in zip(lengths.items(), (BLUE, GREY, ORANGE), strict=False):
            share = np.full(len(each), 100.0 / len(each))
            left.hist(
                each, edges, weights=share, histtype="step", color=colour, linewidth=1.2, label=role
            )
        left.set_xlabel("length, steps")
        left.set_ylabel("% of sequences")
        left.legend(fontsize=SMALL + 1)
        steps = np.arange(1, most + 1)
        right.plot(steps, 100 * observed[1], color=GREY, label="reach the step")
        right.plot(steps, 100 * observed[0], color=BLUE, label="observed there, mean of columns")
        right.set_ylim(0, 105)
        right.set_xlabel("step")
        right.set_ylabel("% of training sequences")
        right.legend(fontsize=SMALL + 1)
    return Path(path)
