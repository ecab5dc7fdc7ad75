"""Sheets of images: reconstructions, samples, walks between examples, and the latent plane
decoded.
"""

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from experiments.figures.page import checked, count, minus, new_page, some, span
from experiments.figures.tiles import (
    CELL,
    caption_of,
    fold,
    lay_out,
    most_tiles,
    pictures,
    show,
    thinned,
)
from experiments.figures.vectors import heat_strips, paired_lines, sparklines, walk_strips

MOST_TICKS = 9  # along a side of the latent plane


def reconstructions(
    path: str | Path, originals: ArrayLike, reconstructions: ArrayLike, *, title: str
) -> Path:
    """Originals above their reconstructions, in pairs of rows; vectors [n, D] as two lines on one
    panel each.
    """
    wants = "[n, H, W], [n, H, W, C], [n, H, W, D, C] or [n, D]"
    ranks = (2, 3, 4, 5)
    originals = checked("reconstructions", "originals", originals, wants, ranks)
    rebuilt = checked("reconstructions", "reconstructions", reconstructions, wants, ranks)
    if originals.shape != rebuilt.shape:
        raise ValueError(
            f"figures.reconstructions wants arrays of one shape; got {originals.shape}, "
            f"{rebuilt.shape}."
        )
    if originals.ndim == 2:
        return paired_lines(path, originals, rebuilt, title=title)
    levels = np.stack([originals, rebuilt])  # [2, n, ...]
    shown = pictures("reconstructions", "originals and reconstructions", levels, lead=2)
    (height, width) = shown.colours.shape[2:4]
    # 1. as many pairs of rows as have place
    num = len(originals)
    columns = min(max(8, math.ceil(math.sqrt(2.8 * num))), most_tiles(width))
    pairs = min(math.ceil(num / columns), max(1, most_tiles(height) // 2))
    columns = min(columns, math.ceil(num / pairs))
    placed = min(num, pairs * columns)
    # 2. originals above reconstructions, [pairs, 2, columns, H, W, 3]
    tiles = fold(shown.colours[:, :placed].swapaxes(0, 1), pairs, columns)
    tiles = tiles.transpose(0, 2, 1, 3, 4, 5)
    sheet = lay_out(
        tiles.reshape(2 * pairs, columns, *tiles.shape[3:]), row_breaks=range(2, 2 * pairs, 2)
    )
    text = caption_of(shown, _part(placed, num, "example"))
    with new_page(path, title=title, size=sheet.size(left=1.0), layout="compressed") as fig:
        ax = show(fig, sheet, text)
        ax.set_yticks(sheet.rows, ["original", "reconstruction"] * pairs)
    return Path(path)


def _part(shown: int, num: int, what: str) -> str:
    """'20 examples', or 'examples 1 to 8 of 20' where there is no place for more."""
    return count(num, what) if shown == num else f"{what}s 1 to {shown} of {num:,}"


def image_grid(
    path: str | Path, images: ArrayLike, *, title: str, subtitle: str | None = None
) -> Path:
    """Images on a grid as near to square as their number allows; vectors [n, D] as a heat strip
    each.
    """
    wants = "[n, H, W], [n, H, W, C], [n, H, W, D, C] or [n, D]"
    images = checked("image_grid", "images", images, wants, (2, 3, 4, 5))
    title = title if subtitle is None else f"{title}\n{subtitle}"
    if images.ndim == 2:
        ticks = {int(i): str(i) for i in some(len(images), most=16)}
        return heat_strips(
            path, images, ticks, title=f"{title}\nvectors, one strip each", ylabel="sample"
        )
    shown = pictures("image_grid", "images", images, lead=1)
    num = len(images)
    rows = min(max(1, round(math.sqrt(num))), most_tiles(shown.colours.shape[1]))
    columns = min(math.ceil(num / rows), most_tiles(shown.colours.shape[2]))
    placed = min(num, rows * columns)
    sheet = lay_out(fold(shown.colours[:placed], rows, columns))
    text = caption_of(shown, _part(placed, num, "image"))
    with new_page(path, title=title, size=sheet.size(), layout="compressed") as fig:
        show(fig, sheet, text)
    return Path(path)


def interpolation(
    path: str | Path, images: ArrayLike, *, title: str, left: ArrayLike, right: ArrayLike
) -> Path:
    """Walks [rows, n_steps, H, W] from one example to another, between the originals `left` and
    `right`, [rows, H, W].

    The steps go evenly from the one posterior mean (0) to the other (1), both ends decoded; the
    originals stand apart in columns of their own. C may follow W; vectors, [rows, n_steps, D],
    become heat strips.
    """
    images = _between_ends(images, left, right)
    num_rows, num_columns = images.shape[:2]
    position = np.linspace(0, 1, num_columns - 2)
    xlabel = "position between the two posterior means"
    if images.ndim == 3:
        names = _positions(position, most=3)
        return walk_strips(
            path, images, names, title=f"{title}\nvectors, one strip each", ylabel=xlabel
        )
    shown = pictures("interpolation", "images, left and right", images, lead=2)
    # as many steps and walks as have place, the ends always
    (height, width) = shown.colours.shape[2:4]
    steps = thinned(num_columns - 2, most_tiles(width) - 2)
    placed = min(num_rows, most_tiles(height))
    columns = [0, *(1 + steps), num_columns - 1]
    tiles = shown.colours[:placed, columns]
    sheet = lay_out(tiles, column_breaks=(1, len(columns) - 1))
    text = caption_of(shown, _part(placed, num_rows, "walk"))
    with new_page(path, title=title, size=sheet.size(bottom=0.5), layout="compressed") as fig:
        ax = show(fig, sheet, text)
        ax.set_xticks(sheet.columns, _positions(position[steps], most=11))
        ax.set_xlabel(xlabel)
    return Path(path)


def _between_ends(images: ArrayLike, left: ArrayLike, right: ArrayLike) -> np.ndarray:
    """Walks with the originals at their ends, [rows, n_steps + 2, ...]; raises ValueError."""
    wants = "[rows, n_steps, H, W], [rows, n_steps, H, W, C] or [rows, n_steps, D]"
    images = checked("interpolation", "images", images, wants, (3, 4, 5, 6))
    parts = [images]
    for name, end in (("left", left), ("right", right)):
        checked_end = checked(
            "interpolation", name, end, "[rows, ...], one step of images", (images.ndim - 1,)
        )
        if checked_end.shape != images[:, 0].shape:
            raise ValueError(
                f"figures.interpolation wants {name} of shape {images[:, 0].shape}; got "
                f"{checked_end.shape}."
            )
        parts.append(checked_end[:, None])
    if images.shape[1] < 2:
        raise ValueError(
            f"figures.interpolation wants two steps or more in images; got {images.shape[1]}."
        )
    return np.concatenate([parts[1], images, parts[2]], axis=1)


def _positions(position: np.ndarray, *, most: int) -> list[str]:
    """Labels of the columns of walks, the originals at both ends."""
    shown = some(len(position), most=most)
    inside = (f"{p:.2g}" if i in shown else "" for i, p in enumerate(position))
    return ["original", *inside, "original"]


def manifold_grid(num: int, extent: tuple[float, float]) -> np.ndarray:
    """[num] values of a latent, evenly spaced in probability under N(0, 1) and between the two ends
    of `extent`.
    """
    normal = NormalDist()
    ends = [normal.cdf(z) for z in extent]
    return np.array([normal.inv_cdf(p) for p in np.linspace(ends[0], ends[1], num)])


def manifold(
    path: str | Path, images: ArrayLike, *, extent: tuple[float, float], title: str
) -> Path:
    """The latent plane, decoded (Kingma & Welling 2013, fig. 4): images[i, j] at z1 = grid[j], z2 =
    grid[i].

    Here grid = manifold_grid(n, extent), so `numpy.meshgrid(grid, grid)` is (z1, z2). z2 goes up
    the page.

    Args:
      images: [n, n, H, W], [n, n, H, W, C], or vectors [n, n, D], which become lines.
      extent: the lowest and the highest value of both latents, say (-2, 2).
    """
    wants = "[n, n, H, W], [n, n, H, W, C] or [n, n, D]"
    images = checked("manifold", "images", images, wants, (3, 4, 5, 6))
    num = len(images)
    if images.shape[1] != num or not -6 <= extent[0] < extent[1] <= 6:
        raise ValueError(
            f"figures.manifold wants images [n, n, ...] and -6 <= low < high <= 6 in extent; "
            f"got {images.shape} and {tuple(extent)}."
        )
    grid = manifold_grid(num, extent)
    if images.ndim == 3:
        sheet = lay_out(np.ones((num, num, CELL, CELL, 3)))
        title = f"{title}\nvectors, one line each"
        text = (
            f"{num} × {num} lines over {images.shape[2]} dimensions, values {span(images)} "
            "from foot to head"
        )
    else:
        shown = pictures("manifold", "images", images, lead=2)
        steps = thinned(num, min(map(most_tiles, shown.colours.shape[2:4])))
        grid = grid[steps]
        sheet = lay_out(shown.colours[np.ix_(steps, steps)][::-1])
        text = caption_of(shown, f"{len(grid)} × {len(grid)} images")
    ticks = np.arange(
        0, len(grid), math.ceil(len(grid) / MOST_TICKS)
    )  # even, so that they are apart
    names = [minus(f"{z:.2f}") for z in grid[ticks]]
    with new_page(
        path, title=title, size=sheet.size(left=0.5, bottom=0.5), layout="compressed"
    ) as fig:
        ax = show(fig, sheet, text)
        if images.ndim == 3:
            sparklines(ax, sheet, images[::-1])
        ax.set_xticks(sheet.columns[ticks], names)
        ax.set_yticks(sheet.rows[::-1][ticks], names)
        ax.set_xlabel("z₁ (even steps of probability under the standard normal)")
        ax.set_ylabel("z₂")
    return Path(path)
