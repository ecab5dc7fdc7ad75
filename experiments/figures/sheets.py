"""Sheets of images: reconstructions, samples, walks between examples, and the latent plane
decoded.
"""

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from experiments.figures.page import checked, count, minus, new_page, some, span
from experiments.figures.tiles import CELL, as_colours, fold, lay_out, levels_caption, show
from experiments.figures.vectors import heat_strips, paired_lines, sparklines, walk_strips


def reconstructions(
    path: str | Path, originals: ArrayLike, reconstructions: ArrayLike, *, title: str
) -> Path:
    """Originals above their reconstructions, in pairs of rows; vectors [n, D] as two lines on one
    panel each.
    """
    wants = "[n, H, W], [n, H, W, C] or [n, D]"
    originals = checked("reconstructions", "originals", originals, wants, (2, 3, 4))
    rebuilt = checked("reconstructions", "reconstructions", reconstructions, wants, (2, 3, 4))
    if originals.shape != rebuilt.shape:
        raise ValueError(
            f"figures.reconstructions wants arrays of one shape; got {originals.shape}, "
            f"{rebuilt.shape}."
        )
    if originals.ndim == 2:
        return paired_lines(path, originals, rebuilt, title=title)
    num = len(originals)
    pairs = math.ceil(num / max(8, math.ceil(math.sqrt(2.8 * num))))
    columns = math.ceil(num / pairs)
    levels = np.stack([originals, rebuilt])  # [2, n, ...]
    tiles = as_colours("reconstructions", "originals and reconstructions", levels, lead=2)
    tiles = fold(tiles.swapaxes(0, 1), pairs, columns).transpose(
        0, 2, 1, 3, 4, 5
    )  # [pairs, 2, columns, H, W, 3]
    sheet = lay_out(
        tiles.reshape(2 * pairs, columns, *tiles.shape[3:]), row_breaks=range(2, 2 * pairs, 2)
    )
    with new_page(path, title=title, size=sheet.size(left=1.0), layout="compressed") as fig:
        ax = show(fig, sheet, levels_caption(levels, count(num, "example"), lead=2))
        ax.set_yticks(sheet.rows, ["original", "reconstruction"] * pairs)
    return Path(path)


def image_grid(
    path: str | Path, images: ArrayLike, *, title: str, subtitle: str | None = None
) -> Path:
    """Images on a grid as near to square as their number allows; vectors [n, D] as a heat strip
    each.
    """
    images = checked("image_grid", "images", images, "[n, H, W], [n, H, W, C] or [n, D]", (2, 3, 4))
    title = title if subtitle is None else f"{title}\n{subtitle}"
    if images.ndim == 2:
        ticks = {int(i): str(i) for i in some(len(images), most=16)}
        return heat_strips(
            path, images, ticks, title=f"{title}\nvectors, one strip each", ylabel="sample"
        )
    rows = max(1, round(math.sqrt(len(images))))
    columns = math.ceil(len(images) / rows)
    sheet = lay_out(fold(as_colours("image_grid", "images", images, lead=1), rows, columns))
    with new_page(path, title=title, size=sheet.size(), layout="compressed") as fig:
        show(fig, sheet, levels_caption(images, count(len(images), "image"), lead=1))
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
    wants = "[rows, n_steps, H, W], [rows, n_steps, H, W, C] or [rows, n_steps, D]"
    images = checked("interpolation", "images", images, wants, (3, 4, 5))
    ends = {"left": left, "right": right}
    for name, end in ends.items():
        ends[name] = end = checked(
            "interpolation", name, end, "[rows, ...], one step of images", (images.ndim - 1,)
        )
        if end.shape != images[:, 0].shape:
            raise ValueError(
                f"figures.interpolation wants {name} of shape {images[:, 0].shape}; got "
                f"{end.shape}."
            )
    images = np.concatenate(
        [np.asarray(ends["left"])[:, None], images, np.asarray(ends["right"])[:, None]], axis=1
    )
    num_rows, num_columns = images.shape[:2]
    if num_columns < 4:
        raise ValueError(
            f"figures.interpolation wants two steps or more in images; got {num_columns - 2}."
        )
    position = np.linspace(0, 1, num_columns - 2)
    shown = some(num_columns - 2, most=11 if images.ndim > 3 else 3)
    names = [
        "original",
        *(f"{p:.2g}" if i in shown else "" for i, p in enumerate(position)),
        "original",
    ]
    xlabel = "position between the two posterior means"
    if images.ndim == 3:
        return walk_strips(
            path, images, names, title=f"{title}\nvectors, one strip each", ylabel=xlabel
        )
    breaks = (1, num_columns - 1)
    sheet = lay_out(
        as_colours("interpolation", "images, left and right", images, lead=2), column_breaks=breaks
    )
    with new_page(path, title=title, size=sheet.size(bottom=0.5), layout="compressed") as fig:
        ax = show(fig, sheet, levels_caption(images, count(num_rows, "walk"), lead=2))
        ax.set_xticks(sheet.columns, names)
        ax.set_xlabel(xlabel)
    return Path(path)


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
    images = checked(
        "manifold", "images", images, "[n, n, H, W], [n, n, H, W, C] or [n, n, D]", (3, 4, 5)
    )
    num = len(images)
    if images.shape[1] != num or not -6 <= extent[0] < extent[1] <= 6:
        raise ValueError(
            f"figures.manifold wants images [n, n, ...] and -6 <= low < high <= 6 in extent; "
            f"got {images.shape} and {tuple(extent)}."
        )
    shown = some(num, most=9)
    names = [minus(f"{z:.2f}") for z in manifold_grid(num, extent)[shown]]
    if images.ndim == 3:
        sheet = lay_out(np.ones((num, num, CELL, CELL, 3)))
        title = f"{title}\nvectors, one line each"
        caption = (
            f"{num} × {num} lines over {images.shape[2]} dimensions, values {span(images)} "
            "from foot to head"
        )
    else:
        sheet = lay_out(as_colours("manifold", "images", images, lead=2)[::-1])
        caption = levels_caption(images, f"{num} × {num} images", lead=2)
    with new_page(
        path, title=title, size=sheet.size(left=0.5, bottom=0.5), layout="compressed"
    ) as fig:
        ax = show(fig, sheet, caption)
        if images.ndim == 3:
            sparklines(ax, sheet, images[::-1])
        ax.set_xticks(sheet.columns[shown], names)
        ax.set_yticks(sheet.rows[::-1][shown], names)
        ax.set_xlabel("z₁ (even steps of probability under the standard normal)")
        ax.set_ylabel("z₂")
    return Path(path)
