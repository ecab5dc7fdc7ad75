"""Data that are vectors and no images: drawn as lines or as strips of colour."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.figures.page import BLUE, ORANGE, caption, new_page
from experiments.figures.tiles import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_VECTORS = 12  # line plots on one page


def paired_lines(
    path: str | Path, originals: np.ndarray, rebuilt: np.ndarray, *, title: str
) -> Path:
    num = min(len(originals), MOST_VECTORS)
    columns = min(num, 3)
    rows = math.ceil(num / columns)
    marker: dict[str, Any] = {"marker": "o", "markersize": 2.5} if originals.shape[1] <= 64 else {}
    with new_page(
        path, title=f"{title}\nvectors, one panel each", size=(8, 1.6 + 1.5 * rows)
    ) as fig:
        axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax in axes[num:]:
            ax.remove()
        for ax, original, reconstruction in zip(axes, originals, rebuilt, strict=False):
            ax.plot(original, color=BLUE, linewidth=1.2, label="original", **marker)
            ax.plot(
                reconstruction,
                color=ORANGE,
                linewidth=1.2,
                linestyle="--",
                label="reconstruction",
                **marker,
            )
            ax.grid(True)
            ax.locator_params(axis="x", integer=True)
        for ax in axes[max(0, num - columns) : num]:
            ax.tick_params(labelbottom=True)
        fig.supylabel("value", fontsize=9)
        caption(fig, f"dimension of the vector; examples 1 to {num} of {len(originals)}")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return Path(path)


def heat_strips(
    path: str | Path, values: np.ndarray, ticks: dict[int, str], *, title: str, ylabel: str
) -> Path:
    """Rows [n, D] as strips of colour; a row of nan is a gap."""
    with new_page(
        path, title=title, size=(8, float(np.clip(1.6 + 0.15 * len(values), 3, 9)))
    ) as fig:
        ax = fig.add_subplot()
        ax.spines[:].set_visible(False)
        drawn = ax.imshow(values, aspect="auto", cmap="viridis", interpolation="nearest")
        fig.colorbar(drawn, ax=ax, label="value")
        ax.set_yticks(list(ticks), list(ticks.values()))
        ax.locator_params(axis="x", integer=True)
        ax.set_xlabel("dimension of the vector")
        ax.set_ylabel(ylabel)
    return Path(path)


def walk_strips(
    path: str | Path, walks: np.ndarray, names: Sequence[str], *, title: str, ylabel: str
) -> Path:
    """Walks [rows, n_steps + 2, D], the originals set apart by a gap."""
    num = min(len(walks), MOST_VECTORS // 2)
    gap = np.full((num, 1, walks.shape[2]), np.nan)
    strips = np.concatenate(
        [walks[:num, :1], gap, walks[:num, 1:-1], gap, walks[:num, -1:], gap, gap], axis=1
    )
    names = [names[0], "", *names[1:-1], "", names[-1], "", ""]
    ticks = {i: name for i, name in enumerate(names * num) if name}
    if num < len(walks):
        title += f" (walks 1 to {num} of {len(walks)})"
    return heat_strips(
        path, strips.reshape(-1, walks.shape[2])[:-2], ticks, title=title, ylabel=ylabel
    )


def sparklines(ax: "Axes", sheet: Sheet, values: np.ndarray) -> None:
    """Values [n, n, D] as a line on each tile of the sheet, the lowest of all at a tile's foot."""
    from matplotlib.collections import LineCollection

    if values.shape[2] == 1:
        values = values.repeat(2, axis=2)
    unit = (values - values.min()) / (np.ptp(values) or 1)
    x = sheet.columns[None, :, None] + 0.85 * sheet.tile * np.linspace(-0.5, 0.5, values.shape[2])
    y = sheet.rows[:, None, None] + 0.85 * sheet.tile * (0.5 - unit)
    lines = np.stack(np.broadcast_arrays(x, y), axis=-1).reshape(-1, values.shape[2], 2)
    ax.add_collection(LineCollection(list(lines), colors=BLUE, linewidths=0.8), autolim=False)
