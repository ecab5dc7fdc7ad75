"""Images with hidden pixels, and how they were filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from experiments.figures.page import checked, count, new_page
from experiments.figures.tiles import caption_of, lay_out, most_tiles, pictures, show

HIDDEN = (0.85, 0.62, 0.30)  # of pixels that are hidden: neither grey nor blue


def filled_images(
    path: str | Path, rows: Mapping[str, ArrayLike], hidden: ArrayLike, *, title: str
) -> Path:
    """Rows of images under their names; in the row "seen" hidden pixels have a colour of their own.

    Args:
      rows: {name: [n, H, W] or [n, H, W, C]}, levels in [0, 1], all of one shape.
      hidden: bools of the same shape.
      title: of the page.
    """
    wants = "[n, H, W] or [n, H, W, C]"
    levels = [
        checked("filled_images", name, images, wants, (3, 4, 5)) for name, images in rows.items()
    ]
    hidden = np.array(hidden, dtype=bool)
    if {each.shape for each in levels} != {hidden.shape}:
        shapes = [each.shape for each in levels]
        raise ValueError(
            f"figures.filled_images wants arrays of one shape; got {shapes} and {hidden.shape}."
        )
    shown = pictures("filled_images", "images", np.stack(levels), lead=2)
    num = min(len(hidden), most_tiles(shown.colours.shape[3]))
    tiles = np.array(shown.colours[:, :num])
    if "seen" in rows:
        mask: Any = hidden if hidden.ndim == 3 else np.any(hidden, axis=-1)
        row = list(rows).index("seen")
        tiles[row] = np.where(mask[:num, ..., None], HIDDEN, tiles[row])
    sheet = lay_out(tiles)
    text = caption_of(shown, count(num, "image"))
    with new_page(path, title=title, size=sheet.size(left=1.3), layout="compressed") as fig:
        ax = show(fig, sheet, text)
        ax.set_yticks(sheet.rows, list(rows))
    return Path(path)
