"""Images as tiles on one canvas: levels to colours, tiles to a sheet, the sheet on its page."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.figures.page import caption, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER = (
    0.80,
    0.84,
    0.90,
)  # between images: neither black nor white, so that the edge of either is seen
CELL = (
    32  # smaller images are magnified to this many pixels, so that the gap between them can be thin
)


class Sheet(NamedTuple):
    canvas: np.ndarray  # [height, width, 3]
    rows: np.ndarray  # centres of the rows, in pixels of the canvas
    columns: np.ndarray
    tile: int  # pixels along the longer side of a tile

    def size(self, *, left: float = 0.0, bottom: float = 0.0) -> tuple[float, float]:
        """Inches of a page with this sheet, its title and its caption; `left` and `bottom` are for
        the labels.
        """
        height, width = self.canvas.shape[:2]
        scale = min(6.9 / width, 7.3 / height, 2.0 / self.tile)
        return max(6.0, width * scale + 0.3 + left), max(1.6, height * scale + 0.65 + bottom)


def as_colours(call: str, name: str, levels: np.ndarray, *, lead: int) -> np.ndarray:
    """[*lead, H, W] or [*lead, H, W, C] as colours, [*lead, H, W, 3]."""
    if levels.ndim == lead + 2:
        levels = levels[..., None]
    if levels.shape[-1] not in (1, 3):
        raise ValueError(
            f"figures.{call} wants {name} with C of 1 or 3 in the last place; got {levels.shape}."
        )
    if np.abs(levels).max() > 10:
        raise ValueError(
            f"figures.{call} wants {name} as levels in [0, 1]; got {span(levels)}. Divide by 255?"
        )
    return np.broadcast_to(np.clip(levels, 0, 1), (*levels.shape[:-1], 3))


def fold(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """[n, ...] as [rows, columns, ...]; the places left over are nan."""
    rest = np.full((rows * columns - len(tiles), *tiles.shape[1:]), np.nan)
    return np.concatenate([tiles, rest]).reshape(rows, columns, *tiles.shape[1:])


def lay_out(
    tiles: np.ndarray, *, row_breaks: Sequence[int] = (), column_breaks: Sequence[int] = ()
) -> Sheet:
    """Tiles [rows, columns, H, W, 3] on one canvas, thin gaps between them and wide ones at the
    breaks.
    """
    times = math.ceil(CELL / max(tiles.shape[2:4]))
    tiles = tiles.repeat(times, axis=2).repeat(times, axis=3)
    num_rows, num_columns, height, width, _ = tiles.shape
    gap = max(1, round(0.05 * max(height, width)))

    def starts(num: int, extent: int, breaks: Sequence[int]) -> np.ndarray:
        return np.array(
            [gap + i * (extent + gap) + 4 * gap * sum(i >= b for b in breaks) for i in range(num)]
        )

    top = starts(num_rows, height, row_breaks)
    left = starts(num_columns, width, column_breaks)
    canvas = np.ones((top[-1] + height + gap, left[-1] + width + gap, 3)) * PAPER
    for i, j in np.ndindex(num_rows, num_columns):
        here = canvas[top[i] : top[i] + height, left[j] : left[j] + width]
        np.copyto(here, tiles[i, j], where=~np.isnan(tiles[i, j]))
    return Sheet(canvas, top + (height - 1) / 2, left + (width - 1) / 2, max(height, width))


def show(fig: "Figure", sheet: Sheet, text: str) -> "Axes":
    """The sheet on a page of its own, without ticks, and a caption below it."""
    ax = fig.add_subplot()
    ax.imshow(sheet.canvas)
    ax.spines[:].set_visible(False)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    caption(fig, text)
    return ax


def levels_caption(levels: np.ndarray, what: str, *, lead: int) -> str:
    height, width = levels.shape[lead : lead + 2]
    colour = levels.ndim == lead + 3 and levels.shape[-1] == 3
    scale = "colour levels from 0 to 1" if colour else "levels from 0 (black) to 1 (white)"
    clipped = f"; {span(levels)} before clipping" if levels.min() < 0 or levels.max() > 1 else ""
    return f"{what} of {height} × {width} pixels, {scale}{clipped}"
