"""Counts in the data and in samples of a model: variance over mean, and the share of zeros."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.figures.page import BLUE, GREY, ORANGE, caption, new_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def count_statistics(
    path: str | Path, data: np.ndarray, samples: np.ndarray, *, title: str
) -> Path:
    """The variance of each column of counts against its mean, log-log, and its share of zeros in
    the data against that in samples.

    Args:
      data: counts [N, D], nan where missing.
      samples: counts [M, D].

    Raises:
      ValueError: the arrays do not fit each other, or hold negative numbers.
    """
    data = np.asarray(data, float)
    samples = np.asarray(samples, float)
    fits = data.ndim == samples.ndim == 2 and data.shape[1] == samples.shape[1]
    if not fits or 0 in data.shape or 0 in samples.shape or min(np.nanmin(data), samples.min()) < 0:
        raise ValueError(
            "figures.count_statistics needs counts [N, D] of data and [M, D] of samples, at least "
            f"0; got {data.shape} and {samples.shape}."
        )
    with new_page(path, title=title, size=(9, 4.6)) as fig:
        left, right = fig.subplots(1, 2)
        num_hidden = _mean_variance(left, data, samples)
        _zeros(right, data, samples)
        notes = f"a point for each of {data.shape[1]:,} columns"
        if num_hidden:
            notes += (
                f"; {num_hidden} of the points on the left not drawn, as their mean or variance "
                "is 0"
            )
        caption(fig, notes)
    return Path(path)


def zero_share(x: np.ndarray) -> np.ndarray:
    """The share of zeros among what is there of each column of x [N, D], nan where missing, [D]."""
    return (x == 0).sum(0) / np.maximum(np.isfinite(x).sum(0), 1)


def _mean_variance(ax: "Axes", data: np.ndarray, samples: np.ndarray) -> int:
    """Draws the curve; how many points cannot be on it."""
    hidden = 0
    ends = []
    for x, colour, marker, name in (
        (data, BLUE, "o", "data"),
        (samples, ORANGE, "x", "samples"),
    ):
        mean = np.nanmean(x, axis=0)
        variance = np.nanvar(x, axis=0)
        inside = (mean > 0) & (variance > 0)
        hidden += int((~inside).sum())
        ends += list(mean[inside])
        size = 16 if x.shape[1] <= 300 else 6
        style = {"linewidths": 0} if marker == "o" else {"linewidths": 0.9}
        ax.scatter(
            mean[inside],
            variance[inside],
            s=size,
            color=colour,
            marker=marker,
            alpha=0.75,
            label=name,
            **style,
        )
    if ends:
        line = [min(ends), max(ends)]
        ax.plot(line, line, color=GREY, linewidth=1.0, zorder=1, label="variance = mean (Poisson)")
        ax.set_xscale("log")
        ax.set_yscale("log")
        _plain_numbers(ax)
    ax.grid(True)
    ax.legend(fontsize=8, loc="upper left")
    ax.set_title("variance over mean")
    ax.set_xlabel("mean of the column")
    ax.set_ylabel("variance of the column")
    return hidden


def _plain_numbers(ax: "Axes") -> None:
    """Plain numbers at ticks of logarithmic axes, of short ones between powers of ten too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        is_short = high < 30 * low
        axis.set_major_formatter(plain)
        axis.set_minor_locator(LogLocator(subs=(2, 5) if is_short else "auto"))
        axis.set_minor_formatter(plain if is_short else NullFormatter())


def _zeros(ax: "Axes", data: np.ndarray, samples: np.ndarray) -> None:
    x = 100 * zero_share(data)
    y = 100 * zero_share(samples)
    ax.plot([0, 100], [0, 100], color=GREY, linewidth=1.0, zorder=1)
    ax.scatter(x, y, s=16 if len(x) <= 300 else 6, color=BLUE, alpha=0.75, linewidths=0)
    ax.grid(True)
    ax.set_xlim(-3, 103)
    ax.set_ylim(-3, 103)
    ax.set_aspect("equal")
    ax.set_title(f"share of zeros: {x.mean():.1f} % of data, {y.mean():.1f} % of samples")
    ax.set_xlabel("zeros in the data (%)")
    ax.set_ylabel("zeros in samples (%)")
