"""Images as tiles on one canvas: levels to colours, tiles to a sheet, the sheet on its page."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.figures.page import DPI, caption, span

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


MAX_SIDE = 2_600  # pixels of a sheet, above which fewer images are shown
MOST_CHANNELS = 4  # red, green, blue, alpha; a longer last axis is the depth of a volume
SCALES = {
    1: "levels from 0 (black) to 1 (white)",
    2: "two channels from 0 to 1, the first in magenta and the second in green",
    3: "colour levels from 0 to 1",
    4: "colour levels from 0 to 1, laid on white by their alpha",
}


class Sheet(NamedTuple):
    """Images laid out on one canvas."""

    canvas: np.ndarray  # [height, width, 3]
    rows: np.ndarray  # centres of the rows, in pixels of the canvas
    columns: np.ndarray
    tile: int  # pixels along the longer side of a tile

    def size(self, *, left: float = 0.0, bottom: float = 0.0) -> tuple[float, float]:
        """Inches of a page with this sheet, its title and its caption; `left` and `bottom` are for
        the labels. Images of any size have at least one pixel of the page for each of their own.
        """
        height, width = self.canvas.shape[:2]
        scale = max(min(6.9 / width, 7.3 / height, 2.0 / self.tile), 1 / DPI)
        scale = min(scale, max(MAX_SIDE / DPI / max(width, height), 6.9 / width))
        return max(6.0, width * scale + 0.3 + left), max(1.6, height * scale + 0.65 + bottom)


class Pictures(NamedTuple):
    """Images as they are shown."""

    colours: np.ndarray  # [*lead, H, W, 3]
    scale: str  # what their colours mean, for the caption


def pictures(call: str, name: str, levels: np.ndarray, *, lead: int) -> Pictures:
    """Images [*lead, H, W], [*lead, H, W, C] with C of 1 to 4, or volumes [*lead, H, W, D] and
    [*lead, H, W, D, C], by their middle slice, in colours.
    """
    if np.abs(levels).max() > 10:
        raise ValueError(
            f"figures.{call} wants {name} as levels in [0, 1]; got {span(levels)}. Divide by 255?"
        )
    (levels, where) = _middle(levels, lead)
    if levels.ndim == lead + 2:
        levels = levels[..., None]
    channels = levels.shape[-1]
    if levels.ndim != lead + 3 or not 1 <= channels <= MOST_CHANNELS:
        raise ValueError(
            f"figures.{call} wants {name} with C of 1 to {MOST_CHANNELS} in the last place; got "
            f"{levels.shape}."
        )
    clipped = f"; {span(levels)} before clipping" if levels.min() < 0 or levels.max() > 1 else ""
    return Pictures(_colours(np.clip(levels, 0, 1)), f"{SCALES[channels]}{where}{clipped}")


def _middle(levels: np.ndarray, lead: int) -> tuple[np.ndarray, str]:
    """The middle slice of volumes along their shortest axis, the last of such, and which it is."""
    rank = levels.ndim - lead
    is_volume = rank == 4 or (rank == 3 and levels.shape[-1] > MOST_CHANNELS)
    if not is_volume:
        return levels, ""
    shape = levels.shape[lead : lead + 3]
    axis = 2 - int(np.argmin(shape[::-1]))
    at = shape[axis] // 2
    volume = " × ".join(map(str, shape))
    where = f"; volumes of {volume}, slice {at + 1} of {shape[axis]} along axis {axis + 1}"
    return np.take(levels, at, axis=lead + axis), where


def _colours(levels: np.ndarray) -> np.ndarray:
    """Levels [..., C] in [0, 1] as red, green and blue [..., 3]."""
    channels = levels.shape[-1]
    if channels == 2:
        return levels[..., [0, 1, 0]]
    if channels == 4:
        alpha = levels[..., 3:]
        return alpha * levels[..., :3] + (1 - alpha)
    return np.broadcast_to(levels, (*levels.shape[:-1], 3))


def most_tiles(extent: int) -> int:
    """How many tiles of so many pixels a sheet has place for along one side, one at least."""
    return max(1, int(MAX_SIDE / (1.05 * extent)))


def thinned(num: int, most: int) -> np.ndarray:
    """Even steps through num images, the first and the last among them, of at most so many if that
    can be.
    """
    strides = [stride for stride in range(1, num) if (num - 1) % stride == 0]
    fits = [stride for stride in strides if (num - 1) // stride + 1 <= most]
    if not strides:
        return np.arange(num)
    return np.arange(0, num, fits[0] if fits else strides[-1])


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


def caption_of(shown: Pictures, what: str) -> str:
    """What is shown, its size, and what its colours mean."""
    height, width = shown.colours.shape[-3:-1]
    return f"{what} of {height} × {width} pixels, {shown.scale}"
