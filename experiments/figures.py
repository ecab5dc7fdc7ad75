"""The pictures that a run leaves behind: numpy arrays and a path in, one PNG on disk, its path out.

Images are levels in [0, 1], [n, H, W] or [n, H, W, C] with C of 1 or 3; what lies a little outside is clipped, and the
caption says so. Vectors, [n, D], are drawn as lines or as heat strips, and the title says so.
No pyplot, no global state.
"""

import math
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#B3B3B3"  # Okabe & Ito 2008: apart for colour-blind eyes
TEN = (  # Petroff 2021: ten colours by colour-vision models and by taste
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadb"),
)
PAPER = (0.80, 0.84, 0.90)  # between images: neither black nor white, so that the edge of either is seen
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
CELL = 32  # smaller images are magnified to this many pixels, so that the gap between them can be thin
MOST_VECTORS = 12  # line plots on one page


# ---- Curves: numbers over steps, over dimensions, over the latent plane.


class _Panel(NamedTuple):
    heading: str
    unit: str
    curves: Mapping[str, tuple[str, str]]  # key of a row: (label, colour)
    scale: str = "linear"
    cut: str = ""  # the side on which the first steps may lie out of view: "below" | "above" | ""


def _by_split(heading: str, unit: str, name: str, cut: str = "") -> _Panel:
    colours = {"train": BLUE, "validation": GREEN, "test": ORANGE}
    return _Panel(heading, unit, {f"{split}/{name}": (split, colour) for split, colour in colours.items()}, cut=cut)


_PANELS = (
    _by_split("ELBO", "nats per example", "elbo", "below"),
    _by_split("log-likelihood (reconstruction)", "nats per example", "log_lik", "below"),
    _by_split("KL to the prior", "nats per example", "kl", "above"),
    _by_split("active units", "latent dimensions", "active_units"),
    _Panel(
        "",  # its legend stands there
        "rate, norm (log scale)",
        {"train/learning_rate": ("learning rate", GREEN), "train/grad_norm": ("gradient norm", "black")},
        scale="log",
        cut="below",
    ),
    _Panel("weight of the KL", "beta", {"train/beta": ("", "black")}),
)


def learning_curves(path: str | Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> Path:
    """ELBO, its two terms, active units and the optimiser over steps; a panel for what the rows have, and no other.

    Values that are not finite are left out and counted on their panel: a run that diverged is one to look at.

    Args:
      rows: those of a metrics.jsonl, each with `step`, perhaps `epoch`, and some of `train/elbo`, `test/elbo`,
        `test/elbo_stderr` and so on. Of two rows with one step the later wins, as after a resumed run.
    """
    without = [i for i, row in enumerate(rows) if "step" not in row]
    if not rows or without:
        raise ValueError(
            f"figures.learning_curves wants one or more rows with a 'step' each; got {len(rows)} rows, "
            f"and none in rows {without[:5]}."
        )
    panels = [panel for panel in _PANELS if any(len(_points(rows, key)) for key in panel.curves)]
    if len(panels) > 1 and panels[-1] is _PANELS[-1] and np.all(_points(rows, "train/beta")[:, 1] == 1):
        panels.pop()  # the ELBO itself from first to last
    if not panels:
        wanted = ", ".join(key for panel in _PANELS for key in panel.curves)
        raise ValueError(f"figures.learning_curves wants rows with some of {wanted}; got {sorted(set().union(*rows))}.")
    wide = panels[0].heading == "ELBO" or len(panels) == 1  # the first panel takes a line of its own
    lines = wide + math.ceil((len(panels) - wide) / 2)
    handles: dict[str, Any] = {}
    with _page(path, title=title, size=(8.5, 1.4 + 2.2 * lines + 0.6 * wide)) as fig:
        grid = fig.add_gridspec(lines, 2, height_ratios=[1.0 + 0.3 * wide] + [1.0] * (lines - 1))
        for i, panel in enumerate(panels):
            line, column = (0, 0) if wide and i == 0 else divmod(i + wide, 2)
            alone = column == 0 and (i + 1 == len(panels) or (wide and i == 0))
            ax = fig.add_subplot(grid[line, :] if alone else grid[line, column])
            _draw_panel(ax, panel, rows)
            _step_axis(ax, rows, epochs=line == 0 and panel.scale == "linear")
            if panel.scale == "log":
                own = ax.get_legend_handles_labels()
                ax.legend(*own, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1, ncols=2)
            else:
                handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        fig.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
    return Path(path)


def latent_plane(
    path: str | Path,
    points: ArrayLike,
    labels: ArrayLike | None,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
) -> Path:
    """Points [N, 2] of the latent plane, coloured by whole-number labels [N] (None: one colour)."""
    points = _checked("latent_plane", "points", points, "[N, 2]", (2,))
    if points.shape[1] != 2:
        raise ValueError(f"figures.latent_plane wants points of shape [N, 2]; got {points.shape}. pca_2d makes them.")
    dots: dict[str, Any] = {"s": 5, "alpha": 0.35} if len(points) > 5000 else {"s": 16, "alpha": 0.8}
    with _page(path, title=title, size=(7.5, 6.3)) as fig:
        ax = fig.add_subplot()
        if labels is None:
            ax.scatter(points[:, 0], points[:, 1], c=BLUE, linewidths=0, **dots)
        else:
            _coloured_points(fig, ax, points, _whole_numbers(labels, len(points)), dots)
        ax.set_aspect("equal", adjustable="datalim")
        ax.grid(True)
        ax.set_xlabel(textwrap.fill(xlabel, 70), parse_math=False)
        ax.set_ylabel(textwrap.fill(ylabel, 60), parse_math=False)
        _caption(fig, _count(len(points), "point"))
    return Path(path)


def kl_per_dimension(
    path: str | Path, kl: ArrayLike, active: ArrayLike, *, title: str, prior_label: str = "standard normal"
) -> Path:
    """Bars of the mean KL [D] of each latent dimension in nats, the largest first; `active` [D] is a mask."""
    kl, active = _checked("kl_per_dimension", "kl", kl, "[D]", (1,)), np.asarray(active)
    if active.shape != kl.shape or active.dtype != bool:
        raise ValueError(
            f"figures.kl_per_dimension wants active, a mask of shape {kl.shape}; got {active.dtype} of {active.shape}."
        )
    from matplotlib.patches import Patch

    order, num = np.argsort(-kl, kind="stable"), len(kl)
    title, handles = f"{title}\nsum {_minus(f'{kl.sum():.2f}')} nats over {_count(num, 'latent dimension')}", []
    with _page(path, title=title, size=(8, 4.2)) as fig:
        ax = fig.add_subplot()
        for mask, name, colour in ((active, "active", BLUE), (~active, "inactive", GREY)):
            at = np.flatnonzero(mask[order])
            ax.bar(at, kl[order][at], width=0.8 if num <= 100 else 1.0, color=colour, linewidth=0)
            handles.append(Patch(color=colour, label=f"{name}: {len(at)} of {num}"))
        if num <= 30:
            ax.set_xticks(range(num), [str(i) for i in order])
            ax.set_xlabel("latent dimension (its index), sorted by KL")
        else:
            ax.locator_params(axis="x", integer=True)
            ax.set_xlabel("rank of the latent dimension by KL")
        pad = 1.5 if num < 4 else 0.6 + 0.008 * num
        ax.set_xlim(-pad, num - 1 + pad)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.yaxis.grid(True)
        ax.set_ylabel(textwrap.fill(f"mean KL to the {prior_label} prior (nats)", 46), parse_math=False)
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return Path(path)


def pca_2d(means: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components, [N, 2], of means [N, D], and the fraction of the variance in each, [2].

    The largest loading of each component is positive, so that two runs of one model draw one picture. One dimension
    comes back with a second column of zeros.
    """
    means = _checked("pca_2d", "means", means, "[N, D]", (2,))
    if len(means) < 2:
        raise ValueError(f"figures.pca_2d wants means of two examples or more, [N, D]; got {means.shape}.")
    u, s, vt = np.linalg.svd(means - means.mean(0), full_matrices=False)
    sign = np.where(vt[np.arange(len(vt)), np.abs(vt).argmax(1)] < 0, -1.0, 1.0)
    points, fraction = u * s * sign, s**2 / max((s**2).sum(), np.finfo(float).tiny)
    missing = max(0, 2 - len(s))
    return np.pad(points, ((0, 0), (0, missing)))[:, :2], np.pad(fraction, (0, missing))[:2]


# ---- Images: a sheet of tiles.


def reconstructions(path: str | Path, originals: ArrayLike, reconstructions: ArrayLike, *, title: str) -> Path:
    """Originals above their reconstructions, in pairs of rows; vectors [n, D] as two lines on one panel each."""
    wants = "[n, H, W], [n, H, W, C] or [n, D]"
    originals = _checked("reconstructions", "originals", originals, wants, (2, 3, 4))
    rebuilt = _checked("reconstructions", "reconstructions", reconstructions, wants, (2, 3, 4))
    if originals.shape != rebuilt.shape:
        raise ValueError(f"figures.reconstructions wants arrays of one shape; got {originals.shape}, {rebuilt.shape}.")
    if originals.ndim == 2:
        return _paired_lines(path, originals, rebuilt, title=title)
    num = len(originals)
    pairs = math.ceil(num / max(8, math.ceil(math.sqrt(2.8 * num))))
    columns = math.ceil(num / pairs)
    levels = np.stack([originals, rebuilt])  # [2, n, ...]
    tiles = _tiles("reconstructions", "originals and reconstructions", levels, lead=2)
    tiles = _folded(tiles.swapaxes(0, 1), pairs, columns).transpose(0, 2, 1, 3, 4, 5)  # [pairs, 2, columns, H, W, 3]
    sheet = _sheet(tiles.reshape(2 * pairs, columns, *tiles.shape[3:]), row_breaks=range(2, 2 * pairs, 2))
    with _page(path, title=title, size=sheet.size(left=1.0), layout="compressed") as fig:
        ax = _show(fig, sheet, _levels_caption(levels, _count(num, "example"), lead=2))
        ax.set_yticks(sheet.rows, ["original", "reconstruction"] * pairs)
    return Path(path)


def image_grid(path: str | Path, images: ArrayLike, *, title: str, subtitle: str | None = None) -> Path:
    """Images on a grid as near to square as their number allows; vectors [n, D] as a heat strip each."""
    images = _checked("image_grid", "images", images, "[n, H, W], [n, H, W, C] or [n, D]", (2, 3, 4))
    title = title if subtitle is None else f"{title}\n{subtitle}"
    if images.ndim == 2:
        ticks = {int(i): str(i) for i in _some(len(images), most=16)}
        return _heat_strips(path, images, ticks, title=f"{title}\nvectors, one strip each", ylabel="sample")
    rows = max(1, round(math.sqrt(len(images))))
    columns = math.ceil(len(images) / rows)
    sheet = _sheet(_folded(_tiles("image_grid", "images", images, lead=1), rows, columns))
    with _page(path, title=title, size=sheet.size(), layout="compressed") as fig:
        _show(fig, sheet, _levels_caption(images, _count(len(images), "image"), lead=1))
    return Path(path)


def interpolation(path: str | Path, images: ArrayLike, *, title: str, left: ArrayLike, right: ArrayLike) -> Path:
    """Walks [rows, n_steps, H, W] from one example to another, between the originals `left` and `right`, [rows, H, W].

    The steps go evenly from the one posterior mean (0) to the other (1), both ends decoded; the originals stand apart
    in columns of their own. C may follow W; vectors, [rows, n_steps, D], become heat strips.
    """
    wants = "[rows, n_steps, H, W], [rows, n_steps, H, W, C] or [rows, n_steps, D]"
    images = _checked("interpolation", "images", images, wants, (3, 4, 5))
    ends = {"left": left, "right": right}
    for name, end in ends.items():
        ends[name] = end = _checked("interpolation", name, end, "[rows, ...], one step of images", (images.ndim - 1,))
        if end.shape != images[:, 0].shape:
            raise ValueError(f"figures.interpolation wants {name} of shape {images[:, 0].shape}; got {end.shape}.")
    images = np.concatenate([np.asarray(ends["left"])[:, None], images, np.asarray(ends["right"])[:, None]], axis=1)
    num_rows, num_columns = images.shape[:2]
    if num_columns < 4:
        raise ValueError(f"figures.interpolation wants two steps or more in images; got {num_columns - 2}.")
    position = np.linspace(0, 1, num_columns - 2)
    shown = _some(num_columns - 2, most=11 if images.ndim > 3 else 3)
    names = ["original", *(f"{p:.2g}" if i in shown else "" for i, p in enumerate(position)), "original"]
    xlabel = "position between the two posterior means"
    if images.ndim == 3:
        return _walk_strips(path, images, names, title=f"{title}\nvectors, one strip each", ylabel=xlabel)
    breaks = (1, num_columns - 1)
    sheet = _sheet(_tiles("interpolation", "images, left and right", images, lead=2), column_breaks=breaks)
    with _page(path, title=title, size=sheet.size(bottom=0.5), layout="compressed") as fig:
        ax = _show(fig, sheet, _levels_caption(images, _count(num_rows, "walk"), lead=2))
        ax.set_xticks(sheet.columns, names)
        ax.set_xlabel(xlabel)
    return Path(path)


def manifold_grid(num: int, extent: tuple[float, float]) -> np.ndarray:
    """[num] values of a latent, evenly spaced in probability under N(0, 1) and between the two ends of `extent`."""
    normal = NormalDist()
    ends = [normal.cdf(z) for z in extent]
    return np.array([normal.inv_cdf(p) for p in np.linspace(ends[0], ends[1], num)])


def manifold(path: str | Path, images: ArrayLike, *, extent: tuple[float, float], title: str) -> Path:
    """The latent plane, decoded (Kingma & Welling 2013, fig. 4): images[i, j] at z1 = grid[j], z2 = grid[i].

    Here grid = manifold_grid(n, extent), so `numpy.meshgrid(grid, grid)` is (z1, z2). z2 goes up the page.

    Args:
      images: [n, n, H, W], [n, n, H, W, C], or vectors [n, n, D], which become lines.
      extent: the lowest and the highest value of both latents, say (-2, 2).
    """
    images = _checked("manifold", "images", images, "[n, n, H, W], [n, n, H, W, C] or [n, n, D]", (3, 4, 5))
    num = len(images)
    if images.shape[1] != num or not -6 <= extent[0] < extent[1] <= 6:
        raise ValueError(
            f"figures.manifold wants images [n, n, ...] and -6 <= low < high <= 6 in extent; "
            f"got {images.shape} and {tuple(extent)}."
        )
    shown = _some(num, most=9)
    names = [_minus(f"{z:.2f}") for z in manifold_grid(num, extent)[shown]]
    if images.ndim == 3:
        sheet = _sheet(np.ones((num, num, CELL, CELL, 3)))
        title = f"{title}\nvectors, one line each"
        caption = f"{num} × {num} lines over {images.shape[2]} dimensions, values {_span(images)} from foot to head"
    else:
        sheet = _sheet(_tiles("manifold", "images", images, lead=2)[::-1])
        caption = _levels_caption(images, f"{num} × {num} images", lead=2)
    with _page(path, title=title, size=sheet.size(left=0.5, bottom=0.5), layout="compressed") as fig:
        ax = _show(fig, sheet, caption)
        if images.ndim == 3:
            _sparklines(ax, sheet, images[::-1])
        ax.set_xticks(sheet.columns[shown], names)
        ax.set_yticks(sheet.rows[::-1][shown], names)
        ax.set_xlabel("z₁ (even steps of probability under the standard normal)")
        ax.set_ylabel("z₂")
    return Path(path)


# ---- What the curves are made of.


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """[n, 2] of step and value, by step; the later of two rows with one step."""
    by_step = {row["step"]: row[key] for row in rows if row.get(key) is not None}
    return np.array(sorted(by_step.items()), float).reshape(-1, 2)


def _draw_panel(ax: "Axes", panel: _Panel, rows: Sequence[Mapping[str, Any]]) -> None:
    """The curves of one panel, its view, and a note of what the view leaves out."""
    curves, errors, num_dropped = [], [0.0], 0
    for key, (label, colour) in panel.curves.items():
        points = _points(rows, key)
        keep = np.isfinite(points[:, 1]) & ((panel.scale == "linear") | (points[:, 1] > 0))
        num_dropped += int((~keep).sum())
        if not keep.any():
            continue
        curves.append(points[keep])
        step, value = points[keep].T
        marker = "o" if len(step) <= 50 else ""
        ax.plot(step, value, color=colour, label=label, linewidth=1.4, marker=marker, markersize=3)
        stderr = dict(_points(rows, f"{key}_stderr"))
        error = np.array([stderr.get(s, np.nan) for s in step])
        if np.isfinite(error).any():
            errors.append(float(np.nanmedian(error)))
            band = value - error, value + error
            ax.fill_between(step, *band, color=colour, alpha=0.25, linewidth=0, label="± 1 standard error")
    ax.set_yscale(panel.scale)
    ax.set_title(panel.heading, loc="left")
    ax.set_ylabel(panel.unit)
    ax.grid(True)
    if panel.unit == "latent dimensions":
        ax.set_ylim(bottom=0)
        ax.locator_params(axis="y", integer=True)
    notes = [_cut(ax, panel, curves, max(errors))] if curves else []
    if num_dropped:
        notes.append(f"not drawn, as not finite{' or not positive' * (panel.scale == 'log')}: {num_dropped}")
    y, va = {"above": (0.96, "top"), "below": (0.04, "bottom")}[panel.cut or "below"]
    if panel.scale == "log":  # between the gradient's norm and the learning rate
        y, va = 0.5, "center"
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    style: dict[str, Any] = {"ha": "right", "va": va, "fontsize": 8, "color": "#444444", "bbox": box}
    ax.text(0.98, y, "\n".join(filter(None, notes)), transform=ax.transAxes, **style)


def _cut(ax: "Axes", panel: _Panel, curves: Sequence[np.ndarray], error: float) -> str:
    """Cuts the view where the first steps would flatten the rest, and says so; "" where there was no need.

    From its lower quartile down, a curve is shown for three times the distance from there to its top (the other way up
    for a cut above). The view is the union over the curves, and is not cut to gain a quarter or less.
    """
    if not panel.cut:
        return ""
    sign, log = (-1 if panel.cut == "above" else 1), panel.scale == "log"
    values = [sign * (np.log10(points[:, 1]) if log else points[:, 1]) for points in curves]
    quartiles = [np.quantile(value, 0.25) for value in values]
    low = min(max(v.min(), q - 3 * (v.max() - q)) for v, q in zip(values, quartiles, strict=True))
    high, lowest = max(v.max() for v in values), min(v.min() for v in values)
    if low - lowest <= 0.25 * (high - low):
        return ""
    pad = 0.06 * (high - low) + (0 if log else error)
    view = np.sort(sign * np.array([low - pad, high + pad]))
    ax.set_ylim(*(10**view if log else view))
    points = np.concatenate(curves)
    step, value = points[(sign * points[:, 1]).argmin()]
    arrow, way = ("↑", "up") if panel.cut == "above" else ("↓", "down")
    return _minus(f"{arrow} view cut: {way} to {value:,.4g} at step {step:,.0f}")


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
        top = ax.secondary_xaxis("top", functions=(lambda step: step * rate, lambda epoch: epoch / rate))
        top.set_xlabel("epochs")


def _whole_numbers(labels: ArrayLike, num: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (num,) or not np.issubdtype(labels.dtype, np.number) or np.any(labels != np.round(labels)):
        raise ValueError(f"figures.latent_plane wants whole labels [{num}] or None; got {labels.dtype} {labels.shape}.")
    return labels.astype(int)


def _coloured_points(fig: "Figure", ax: "Axes", points: np.ndarray, labels: np.ndarray, dots: dict[str, Any]) -> None:
    """A legend and a name at the median of each class for ten classes or fewer, a colour bar for more."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) > len(TEN):
        drawn = ax.scatter(points[:, 0], points[:, 1], c=labels, cmap="viridis", linewidths=0, **dots)
        full = ScalarMappable(drawn.norm, drawn.cmap)  # without the dots' alpha
        fig.colorbar(full, ax=ax, label="label", ticks=MaxNLocator(integer=True))
        return
    ax.scatter(points[:, 0], points[:, 1], c=np.array(TEN)[index], linewidths=0, **dots)
    outline = [withStroke(linewidth=3, foreground="white")]
    for k, name in enumerate(classes):
        x, y = np.median(points[index == k], axis=0)
        ax.scatter([], [], s=36, color=TEN[k], label=f"{name} ({(index == k).sum():,})")
        ax.text(x, y, str(name), fontsize=12, fontweight="bold", ha="center", va="center", path_effects=outline)
    fig.legend(loc="outside right center", title="label (points)")


# ---- What the sheets are made of.


class _Sheet(NamedTuple):
    canvas: np.ndarray  # [height, width, 3]
    rows: np.ndarray  # centres of the rows, in pixels of the canvas
    columns: np.ndarray
    tile: int  # pixels along the longer side of a tile

    def size(self, *, left: float = 0.0, bottom: float = 0.0) -> tuple[float, float]:
        """Inches of a page with this sheet, its title and its caption; `left` and `bottom` are for the labels."""
        height, width = self.canvas.shape[:2]
        scale = min(6.9 / width, 7.3 / height, 2.0 / self.tile)
        return max(6.0, width * scale + 0.3 + left), max(1.6, height * scale + 0.65 + bottom)


def _tiles(call: str, name: str, levels: np.ndarray, *, lead: int) -> np.ndarray:
    """[*lead, H, W] or [*lead, H, W, C] as colours, [*lead, H, W, 3]."""
    if levels.ndim == lead + 2:
        levels = levels[..., None]
    if levels.shape[-1] not in (1, 3):
        raise ValueError(f"figures.{call} wants {name} with C of 1 or 3 in the last place; got {levels.shape}.")
    if np.abs(levels).max() > 10:
        raise ValueError(f"figures.{call} wants {name} as levels in [0, 1]; got {_span(levels)}. Divide by 255?")
    return np.broadcast_to(np.clip(levels, 0, 1), (*levels.shape[:-1], 3))


def _folded(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """[n, ...] as [rows, columns, ...]; the places left over are nan."""
    rest = np.full((rows * columns - len(tiles), *tiles.shape[1:]), np.nan)
    return np.concatenate([tiles, rest]).reshape(rows, columns, *tiles.shape[1:])


def _sheet(tiles: np.ndarray, *, row_breaks: Sequence[int] = (), column_breaks: Sequence[int] = ()) -> _Sheet:
    """Tiles [rows, columns, H, W, 3] on one canvas, thin gaps between them and wide ones at the breaks."""
    times = math.ceil(CELL / max(tiles.shape[2:4]))
    tiles = tiles.repeat(times, axis=2).repeat(times, axis=3)
    num_rows, num_columns, height, width, _ = tiles.shape
    gap = max(1, round(0.05 * max(height, width)))

    def starts(num: int, extent: int, breaks: Sequence[int]) -> np.ndarray:
        return np.array([gap + i * (extent + gap) + 4 * gap * sum(i >= b for b in breaks) for i in range(num)])

    top, left = starts(num_rows, height, row_breaks), starts(num_columns, width, column_breaks)
    canvas = np.ones((top[-1] + height + gap, left[-1] + width + gap, 3)) * PAPER
    for i, j in np.ndindex(num_rows, num_columns):
        here = canvas[top[i] : top[i] + height, left[j] : left[j] + width]
        np.copyto(here, tiles[i, j], where=~np.isnan(tiles[i, j]))
    return _Sheet(canvas, top + (height - 1) / 2, left + (width - 1) / 2, max(height, width))


def _show(fig: "Figure", sheet: _Sheet, caption: str) -> "Axes":
    ax = fig.add_subplot()
    ax.imshow(sheet.canvas)
    ax.spines[:].set_visible(False)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    _caption(fig, caption)
    return ax


def _levels_caption(levels: np.ndarray, what: str, *, lead: int) -> str:
    height, width = levels.shape[lead : lead + 2]
    colour = levels.ndim == lead + 3 and levels.shape[-1] == 3
    scale = "colour levels from 0 to 1" if colour else "levels from 0 (black) to 1 (white)"
    clipped = f"; {_span(levels)} before clipping" if levels.min() < 0 or levels.max() > 1 else ""
    return f"{what} of {height} × {width} pixels, {scale}{clipped}"


def _paired_lines(path: str | Path, originals: np.ndarray, rebuilt: np.ndarray, *, title: str) -> Path:
    num = min(len(originals), MOST_VECTORS)
    columns = min(num, 3)
    rows = math.ceil(num / columns)
    marker: dict[str, Any] = {"marker": "o", "markersize": 2.5} if originals.shape[1] <= 64 else {}
    with _page(path, title=f"{title}\nvectors, one panel each", size=(8, 1.6 + 1.5 * rows)) as fig:
        axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax in axes[num:]:
            ax.remove()
        for ax, original, reconstruction in zip(axes, originals, rebuilt, strict=False):
            ax.plot(original, color=BLUE, linewidth=1.2, label="original", **marker)
            ax.plot(reconstruction, color=ORANGE, linewidth=1.2, linestyle="--", label="reconstruction", **marker)
            ax.grid(True)
            ax.locator_params(axis="x", integer=True)
        for ax in axes[max(0, num - columns) : num]:
            ax.tick_params(labelbottom=True)
        fig.supylabel("value", fontsize=9)
        _caption(fig, f"dimension of the vector; examples 1 to {num} of {len(originals)}")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return Path(path)


def _heat_strips(path: str | Path, values: np.ndarray, ticks: dict[int, str], *, title: str, ylabel: str) -> Path:
    """Rows [n, D] as strips of colour; a row of nan is a gap."""
    with _page(path, title=title, size=(8, float(np.clip(1.6 + 0.15 * len(values), 3, 9)))) as fig:
        ax = fig.add_subplot()
        ax.spines[:].set_visible(False)
        drawn = ax.imshow(values, aspect="auto", cmap="viridis", interpolation="nearest")
        fig.colorbar(drawn, ax=ax, label="value")
        ax.set_yticks(list(ticks), list(ticks.values()))
        ax.locator_params(axis="x", integer=True)
        ax.set_xlabel("dimension of the vector")
        ax.set_ylabel(ylabel)
    return Path(path)


def _walk_strips(path: str | Path, walks: np.ndarray, names: Sequence[str], *, title: str, ylabel: str) -> Path:
    """Walks [rows, n_steps + 2, D], the originals set apart by a gap."""
    num = min(len(walks), MOST_VECTORS // 2)
    gap = np.full((num, 1, walks.shape[2]), np.nan)
    strips = np.concatenate([walks[:num, :1], gap, walks[:num, 1:-1], gap, walks[:num, -1:], gap, gap], axis=1)
    names = [names[0], "", *names[1:-1], "", names[-1], "", ""]
    ticks = {i: name for i, name in enumerate(names * num) if name}
    if num < len(walks):
        title += f" (walks 1 to {num} of {len(walks)})"
    return _heat_strips(path, strips.reshape(-1, walks.shape[2])[:-2], ticks, title=title, ylabel=ylabel)


def _sparklines(ax: "Axes", sheet: _Sheet, values: np.ndarray) -> None:
    """Values [n, n, D] as a line on each tile of the sheet, the lowest of all at a tile's foot."""
    from matplotlib.collections import LineCollection

    if values.shape[2] == 1:
        values = values.repeat(2, axis=2)
    unit = (values - values.min()) / (np.ptp(values) or 1)
    x = sheet.columns[None, :, None] + 0.85 * sheet.tile * np.linspace(-0.5, 0.5, values.shape[2])
    y = sheet.rows[:, None, None] + 0.85 * sheet.tile * (0.5 - unit)
    lines = np.stack(np.broadcast_arrays(x, y), axis=-1).reshape(-1, values.shape[2], 2)
    ax.add_collection(LineCollection(list(lines), colors=BLUE, linewidths=0.8), autolim=False)


# ---- The page.


def _checked(call: str, name: str, x: ArrayLike, wants: str, ndims: Sequence[int]) -> np.ndarray:
    """x as floats, with one of the ranks, not empty, finite; or an error that names the function and the argument."""
    x = np.asarray(x)
    if x.ndim not in ndims or 0 in x.shape:
        raise ValueError(f"figures.{call} wants {name} of shape {wants}, not empty; got {x.shape}.")
    x = x.astype(float)
    if not np.isfinite(x).all():
        raise ValueError(f"figures.{call} wants finite {name}; {(~np.isfinite(x)).sum()} of {x.size} are nan or inf.")
    return x


def _some(num: int, *, most: int) -> np.ndarray:
    """Indices of at most so many of num things, the first and the last among them, for tick labels."""
    return np.unique(np.linspace(0, num - 1, min(num, most)).round().astype(int))


def _span(x: np.ndarray) -> str:
    return _minus(f"{x.min():.3g} to {x.max():.3g}")


def _minus(text: str) -> str:
    """A minus where a hyphen stands before a digit."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def _count(num: int, what: str) -> str:
    return f"{num:,} {what}{'s' * (num != 1)}"


def _caption(fig: "Figure", text: str) -> None:
    fig.supxlabel(textwrap.fill(text, int(14 * fig.get_figwidth())), fontsize=8, color="#444444")


@contextmanager
def _page(
    path: str | Path,
    *,
    title: str,
    size: tuple[float, float],
    layout: Literal["constrained", "compressed"] = "constrained",
) -> Iterator["Figure"]:
    """An empty figure of so many inches, written to the path on leaving; "compressed" suits one axes of fixed shape."""
    import matplotlib
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"a figure is a PNG and wants a path that ends in .png; got {path.name!r}.")
    with matplotlib.rc_context(STYLE):
        lines = [piece for line in title.split("\n") for piece in textwrap.wrap(line, int(9 * size[0]))]
        fig = Figure(figsize=(size[0], size[1] + 0.2 * (len(lines) - 1)), dpi=DPI, layout=layout)
        fig.suptitle("\n".join(lines), parse_math=False)
        yield fig
        _write(fig, path)


def _write(fig: "Figure", path: Path) -> None:
    """Under another name in the same folder and then moved: a reader never sees half a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.png")
    try:
        FigureCanvasAgg(fig).print_png(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
