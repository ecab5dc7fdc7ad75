"""Learning curves: the numbers of a metrics.jsonl over the training steps."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.figures.page import BLUE, DARK_GREY, GREEN, ORANGE, minus, new_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox


class _Panel(NamedTuple):
    heading: str
    unit: str
    curves: Mapping[str, tuple[str, str]]  # key of a row: (label, colour)
    scale: str = "linear"
    cut: str = ""  # the side on which the first steps may lie out of view: "below" | "above" | ""


def _by_split(heading: str, unit: str, name: str, cut: str = "") -> _Panel:
    colours = {"train": BLUE, "validation": GREEN, "test": ORANGE}
    return _Panel(
        heading,
        unit,
        {f"{split}/{name}": (split, colour) for split, colour in colours.items()},
        cut=cut,
    )


_PANELS = (
    _by_split("ELBO", "nats per example", "elbo", "below"),
    _by_split("log-likelihood (reconstruction)", "nats per example", "log_lik", "below"),
    _by_split("KL to the prior", "nats per example", "kl", "above"),
    _by_split("active units", "latent dimensions", "active_units"),
    _Panel(
        "learning rate",
        "rate (log scale)",
        {"train/learning_rate": ("", "black")},
        scale="log",
        cut="below",
    ),
    _Panel(
        "gradient norm",
        "norm (log scale)",
        {"train/grad_norm": ("", "black")},
        scale="log",
        cut="below",
    ),
    _Panel("weight of the KL", "beta", {"train/beta": ("", "black")}),
)


def learning_curves(path: str | Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> Path:
    """ELBO, its two terms, active units and the optimiser over steps; a panel for what the rows
    have, and no other.

    Values that are not finite are left out and counted on their panel: a run that diverged is one
    to look at.

    Args:
      rows: those of a metrics.jsonl, each with `step`, perhaps `epoch`, and some of `train/elbo`,
        `test/elbo`, `test/elbo_stderr` and so on. Of two rows with one step the later wins, as
        after a resumed run.
    """
    _require_steps(rows)
    panels = _panels_for(rows)
    wide = int(panels[0].heading == "ELBO" or len(panels) == 1)  # the first has a line of its own
    lines = wide + math.ceil((len(panels) - wide) / 2)
    handles: dict[str, Any] = {}
    with new_page(path, title=title, size=(8.5, 1.4 + 2.2 * lines + 0.6 * wide)) as fig:
        grid = fig.add_gridspec(lines, 2, height_ratios=[1.0 + 0.3 * wide] + [1.0] * (lines - 1))
        for i, panel in enumerate(panels):
            place = _place(i, len(panels), wide=wide)
            ax = fig.add_subplot(grid[place])
            _step_axis(ax, rows, epochs=place[0] == 0 and panel.scale == "linear")
            _draw_panel(ax, panel, rows)
            handles |= _legend(ax)
        if handles:
            fig.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
    return Path(path)


def _require_steps(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raises ValueError where there are no rows, or one is without its step."""
    without = [i for i, row in enumerate(rows) if "step" not in row]
    if not rows or without:
        raise ValueError(
            f"figures.learning_curves wants one or more rows with a 'step' each; got {len(rows)} "
            f"rows, and none in rows {without[:5]}."
        )


def _place(i: int, num_panels: int, *, wide: int) -> tuple[int, Any]:
    """Line and column of a panel: two on a line, but the first where it is `wide`, and the last
    where it is left over.
    """
    if wide and i == 0:
        return 0, slice(None)
    (line, column) = divmod(i + wide, 2)
    is_last = i + 1 == num_panels
    return line, slice(None) if column == 0 and is_last else column


def _legend(ax: "Axes") -> dict[str, Any]:
    """The handles of a panel's curves for the legend of the page."""
    (handles, labels) = ax.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def _panels_for(rows: Sequence[Mapping[str, Any]]) -> list[_Panel]:
    """The panels that the rows have data for; the weight of the KL only if it was ever other than
    1.
    """
    panels = [panel for panel in _PANELS if any(len(_points(rows, key)) for key in panel.curves)]
    if (
        len(panels) > 1
        and panels[-1] is _PANELS[-1]
        and np.all(_points(rows, "train/beta")[:, 1] == 1)
    ):
        panels.pop()  # the ELBO itself from first to last
    if not panels:
        wanted = ", ".join(key for panel in _PANELS for key in panel.curves)
        raise ValueError(
            f"figures.learning_curves wants rows with some of {wanted}; got "
            f"{sorted(set().union(*rows))}."
        )
    return panels


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """[n, 2] of step and value, by step; the later of two rows with one step."""
    by_step = {row["step"]: row[key] for row in rows if row.get(key) is not None}
    return np.array(sorted(by_step.items()), float).reshape(-1, 2)


def _draw_panel(ax: "Axes", panel: _Panel, rows: Sequence[Mapping[str, Any]]) -> None:
    """The curves of one panel, its view, and a note of what the view leaves out."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    curves = []
    errors = [0.0]
    num_dropped = 0
    for key, (label, colour) in panel.curves.items():
        points = _points(rows, key)
        keep = np.isfinite(points[:, 1]) & ((panel.scale == "linear") | (points[:, 1] > 0))
        num_dropped += int((~keep).sum())
        if not keep.any():
            continue
        curves.append(points[keep])
        stderr = dict(_points(rows, f"{key}_stderr"))
        error = np.array([stderr.get(step, np.nan) for step in points[keep, 0]])
        if np.isfinite(error).any():
            errors.append(float(np.nanmedian(error)))
        _draw_curve(ax, points[keep], error, label, colour)
    ax.set_yscale(panel.scale)
    if panel.scale == "log" and curves and _decades(curves) < 1:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
        ax.yaxis.set_major_formatter("{x:,.6g}")
        ax.yaxis.set_minor_locator(NullLocator())
    ax.set_title(panel.heading, loc="left")
    ax.set_ylabel(panel.unit)
    ax.grid(True)
    if panel.unit == "latent dimensions":
        ax.set_ylim(0, max(1.0, ax.get_ylim()[1]))
        ax.locator_params(axis="y", integer=True)
    notes = [_cut(ax, panel, curves, max(errors))] if curves else []
    if num_dropped:
        notes.append(
            f"not drawn, as not finite{' or not positive' * (panel.scale == 'log')}: {num_dropped}"
        )
    _write_note(
        ax,
        "\n".join(filter(None, notes)),
        edges=("top", "bottom") if panel.cut == "above" else ("bottom", "top"),
    )


def _decades(curves: Sequence[np.ndarray]) -> float:
    """Powers of ten between the lowest and the highest of all values."""
    values = np.concatenate([points[:, 1] for points in curves])
    return float(np.log10(values.max() / values.min()))


def _draw_curve(ax: "Axes", points: np.ndarray, error: np.ndarray, label: str, colour: str) -> None:
    """Points [n, 2] as a line, and a band of one standard error [n] either side where that is not
    nan.
    """
    step, value = points.T
    marker = "o" if len(step) <= 50 else ""
    ax.plot(step, value, color=colour, label=label, linewidth=1.4, marker=marker, markersize=3)
    if np.isfinite(error).any():
        band = value - error, value + error
        ax.fill_between(
            step, *band, color=colour, alpha=0.25, linewidth=0, label="± 1 standard error"
        )


def _write_note(ax: "Axes", text: str, *, edges: Sequence[str]) -> None:
    """Small text at the first place that no curve passes through: along one edge, then the other,
    then half way up.
    """
    if not text:
        return
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    note = ax.text(0.98, 0, text, transform=ax.transAxes, fontsize=8, color=DARK_GREY, bbox=box)
    places = list(itertools.product((*edges, "center"), ("right", "left", "center")))
    at = {"left": 0.02, "bottom": 0.04, "center": 0.5, "top": 0.96, "right": 0.98}
    for edge, side in [*places, places[0]]:
        note.set(ha=side, va=edge, x=at[side], y=at[edge])
        if not _on_a_curve(ax, note.get_window_extent().padded(6)):
            return


def _on_a_curve(ax: "Axes", box: "Bbox") -> bool:
    """Whether a line or a band lies in the box, in pixels. Before the layout, when panels are a
    little smaller: a safe no.
    """
    ax.get_ylim()  # settles the view
    lines = [line.get_path().transformed(ax.transData) for line in ax.lines]
    bands = [path.transformed(ax.transData) for band in ax.collections for path in band.get_paths()]
    points = np.concatenate([np.empty((0, 2)), *(line.vertices for line in lines)])
    through = [line.intersects_bbox(box, filled=False) for line in lines] + [
        band.intersects_bbox(box) for band in bands
    ]
    return any(through) or box.count_contains(points) > 0


def _cut(ax: "Axes", panel: _Panel, curves: Sequence[np.ndarray], error: float) -> str:
    """Cuts the view where the first steps would flatten the rest, and says so; "" where there was
    no need.

    From its lower quartile down, a curve is shown for three times the distance from there to its
    top (the other way up for a cut above). The view is the union over the curves, and is not cut to
    gain a quarter or less.
    """
    if not panel.cut:
        return ""
    sign = -1 if panel.cut == "above" else 1
    log = panel.scale == "log"
    values = [sign * (np.log10(points[:, 1]) if log else points[:, 1]) for points in curves]
    (low, high) = _range_without_start(values)
    lowest = min(value.min() for value in values)
    if low - lowest <= 0.25 * (high - low):
        return ""
    pad = 0.06 * (high - low) + (0 if log else error) or 1.0  # flat but for the first steps
    view = np.sort(sign * np.array([low - pad, high + pad]))
    ax.set_ylim(*(10**view if log else view))
    points = np.concatenate(curves)
    step, value = points[(sign * points[:, 1]).argmin()]
    arrow = "↑" if panel.cut == "above" else "↓"
    way = "up" if panel.cut == "above" else "down"
    return minus(f"{arrow} view cut: {way} to {value:,.4g} at step {step:,.0f}")


def _range_without_start(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """From the lowest value that is shown of any curve [n] to the highest."""
    lows = []
    for value in values:
        quartile = np.quantile(value, 0.25)
        lows.append(max(value.min(), quartile - 3 * (value.max() - quartile)))
    return min(lows), max(value.max() for value in values)


def _step_axis(ax: "Axes", rows: Sequence[Mapping[str, Any]], *, epochs: bool) -> None:
    """Steps below, the same range on every panel; epochs above, if wanted and known."""
    steps = [row["step"] for row in rows]
    pad = 0.02 * (max(steps) - min(steps)) or 2
    ax.set_xlim(min(steps) - pad, max(steps) + pad)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.locator_params(axis="x", nbins=5, integer=True)
    ax.set_xlabel("training steps")
    rates = [row["epoch"] / row["step"] for row in rows if row.get("epoch") and row["step"] > 0]
    if epochs and rates:
        rate = rates[-1]
        top = ax.secondary_xaxis(
            "top", functions=(lambda step: step * rate, lambda epoch: epoch / rate)
        )
        top.set_xlabel("epochs")
