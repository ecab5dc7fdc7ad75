"""Correlations of the columns of a table, in the data and in samples of a model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.figures.columns import shortened
from experiments.figures.page import BLUE, GREY, caption, new_page, some

MOST_COLUMNS = 200
MOST_PAIRS = 20_000  # points of the scatter
MOST_NAMES = 16
LEAST_ROWS = 3  # that both columns have


def correlation_maps(
    path: str | Path, data: np.ndarray, samples: np.ndarray, names: Sequence[str], *, title: str
) -> Path:
    """Heat maps of the correlations in data [N, D] and in samples [M, D], and the one against the
    other, a point for each pair of columns.

    A missing value is nan; a correlation is over the rows that have both columns. At most
    MOST_COLUMNS columns are drawn, evenly spaced; the caption says so.

    Raises:
      ValueError: there are fewer than two columns, or the three do not fit each other.
    """
    data = np.asarray(data, float)
    samples = np.asarray(samples, float)
    size = len(names)
    if size < 2 or data.shape[1:] != (size,) or samples.shape[1:] != (size,):
        raise ValueError(
            "figures.correlation_maps needs data [N, D], samples [M, D] and D names, D at least 2; "
            f"got {data.shape}, {samples.shape} and {size}."
        )
    shown = some(size, most=MOST_COLUMNS)
    of_data = pairwise_correlations(data[:, shown])
    of_samples = pairwise_correlations(samples[:, shown])
    first, second = np.triu_indices(len(shown), 1)
    x = of_data[first, second]
    y = of_samples[first, second]
    known = np.isfinite(x) & np.isfinite(y)
    with new_page(path, title=title, size=(9, 3.9)) as fig:
        axes = fig.subplots(1, 3, width_ratios=[1, 1, 0.9])
        for ax, matrix, what in zip(axes, (of_data, of_samples), ("data", "samples"), strict=False):
            ax.set_facecolor(GREY)
            drawn = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            ax.set_title(what)
            ax.set_xticks([])
            ax.set_yticks([])
        at = np.arange(0, len(shown), -(-len(shown) // MOST_NAMES))
        labels = [shortened(names[shown[i]], 18) for i in at]
        axes[0].set_yticks(at, labels, fontsize=7, parse_math=False)
        fig.colorbar(drawn, cax=axes[1].inset_axes((1.04, 0.2, 0.04, 0.6)), ticks=[-1, 0, 1])
        _scatter(axes[2], x[known], y[known])
        caption(fig, _notes(shown, size, known))
    return Path(path)


def pairwise_correlations(x: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each two columns of x [N, D] over the rows that have both, [D, D].

    A missing value is nan. nan where fewer than LEAST_ROWS rows have both, or one of them does not
    vary over those.
    """
    there = np.isfinite(x)
    num_known = np.maximum(there.sum(0), 1)
    centre = np.where(there, x, 0.0).sum(0) / num_known
    centred = np.where(there, x - centre, 0.0)
    spread = np.sqrt(np.square(centred).sum(0) / num_known)
    varies = spread > 1e-12 * np.abs(centre)  # beyond rounding
    z = centred / np.where(varies, spread, np.inf)  # sums of squares then lose no digits
    mask = there.astype(float)
    num = mask.T @ mask
    sums = z.T @ mask  # of the first, over the rows that have the second too
    squares = np.square(z).T @ mask
    safe = np.maximum(num, 1.0)
    covariance = z.T @ z - sums * sums.T / safe
    variance = squares - np.square(sums) / safe
    has_spread = variance > 1e-9 * safe
    is_known = (num >= LEAST_ROWS) & has_spread & has_spread.T
    found = covariance / np.sqrt(np.where(is_known, variance * variance.T, 1.0))
    return np.where(is_known, np.clip(found, -1.0, 1.0), np.nan)


def _scatter(ax, x: np.ndarray, y: np.ndarray) -> None:
    ax.plot([-1, 1], [-1, 1], color=GREY, linewidth=0.8, zorder=1)
    if len(x):
        rows = some(len(x), most=MOST_PAIRS)
        alpha = float(np.clip(30 / len(rows) ** 0.5, 0.08, 0.9))
        ax.scatter(x[rows], y[rows], s=8, color=BLUE, alpha=alpha, linewidths=0)
        apart = np.sqrt(np.mean(np.square(x - y)))
        ax.set_title(f"pairs: RMS difference {apart:.3f}")
    ax.set_xlim(-1.05, 1.05)
    ax.set_ylim(-1.05, 1.05)
    ax.set_aspect("equal")
    ax.set_xticks([-1, 0, 1])
    ax.set_yticks([-1, 0, 1])
    ax.set_xlabel("correlation in the data")
    ax.set_ylabel("correlation in samples")


def _notes(shown: np.ndarray, size: int, known: np.ndarray) -> str:
    notes = [f"{len(shown)} columns, {known.sum():,} pairs"]
    if len(shown) < size:
        notes = [f"{len(shown)} of {size:,} columns, evenly spaced, {known.sum():,} pairs"]
    if not known.all():
        notes.append(
            f"{(~known).sum():,} pairs left out (grey): a column does not vary, or fewer than "
            f"{LEAST_ROWS} rows have both"
        )
    return "; ".join(notes)
