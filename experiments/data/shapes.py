"""`shapes` and `shapes_small`: black and white images of one shape, made by its five factors.

Every combination of the factors is there once, as in dSprites (Matthey et al. 2017): which shape
(a square, an ellipse, a heart), how large, turned by how much, and where. A square is the same
after a quarter turn and an ellipse after half a turn, so that their orientation is not told by the
image alone. The labels are the shapes.
"""

from typing import NamedTuple

import numpy as np

from experiments.data.base import Factors, Raw, Source

NAMES = ("shape", "scale", "orientation", "row", "column")
IS_ORDERED = (False, True, True, True, True)
SUPERSAMPLES = 3  # of a pixel, each way: it is white where most of them are within
NUM_SHAPES = 3


class Grid(NamedTuple):
    """The sizes of a set: images [side, side], and how many values each factor has."""

    side: int
    num_scales: int
    num_orientations: int
    num_places: int  # rows, and columns, of the centre; a pixel from one to the next

    @property
    def num_values(self) -> tuple[int, ...]:
        """Of each factor, in the order of NAMES."""
        places = (self.num_places, self.num_places)
        return (NUM_SHAPES, self.num_scales, self.num_orientations, *places)

    @property
    def reach(self) -> int:
        """Pixels from the centre that the largest shape may take."""
        return (self.side - self.num_places) // 2


FULL = Grid(side=32, num_scales=6, num_orientations=40, num_places=16)  # 184,320 images
SMALL = Grid(side=16, num_scales=4, num_orientations=10, num_places=8)  # 7,680 images


def images(grid: Grid) -> np.ndarray:
    """All images, uint8 0 or 1 [N, side, side], the last factor the fastest."""
    whole = np.zeros((*grid.num_values, grid.side, grid.side), np.uint8)
    drawn = sprites(grid)
    size = drawn.shape[-1]
    for row in range(grid.num_places):
        for column in range(grid.num_places):
            whole[..., row, column, row : row + size, column : column + size] = drawn
    return whole.reshape(-1, grid.side, grid.side)


def sprites(grid: Grid) -> np.ndarray:
    """The shapes at one place, uint8 [shapes, scales, orientations, size, size], size 2 reach +
    1.
    """
    # 1. points of each pixel from the centre, [size, size, SUPERSAMPLES^2] each
    reach = grid.reach
    within = (np.arange(SUPERSAMPLES) + 0.5) / SUPERSAMPLES - 0.5
    line = np.arange(-reach, reach + 1)[:, None] + within  # [size, SUPERSAMPLES]
    y = line[:, None, :, None]
    x = line[None, :, None, :]
    # 2. the same, turned back and scaled to a reach of 1
    angles = 2.0 * np.pi * np.arange(grid.num_orientations) / grid.num_orientations
    radii = reach * np.linspace(0.5, 1.0, grid.num_scales)
    drawn = np.zeros((*grid.num_values[:3], 2 * reach + 1, 2 * reach + 1), np.uint8)
    for which, radius in enumerate(radii):
        for turn, angle in enumerate(angles):
            u = (np.cos(angle) * x + np.sin(angle) * y) / radius
            v = (np.cos(angle) * y - np.sin(angle) * x) / radius
            for shape, is_within in enumerate((_square, _ellipse, _heart)):
                drawn[shape, which, turn] = is_within(u, v).mean((2, 3)) > 0.5
    return drawn


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) <= 0.697  # no point of a pixel on the edge


def _ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u**2 + (v / 0.6) ** 2 <= 0.99


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(a^2 + b^2 - 1)^3 <= a^2 b^3, upside down as rows go down."""
    a = 1.25 * u
    b = -1.25 * v
    return (a**2 + b**2 - 1.0) ** 3 <= a**2 * b**3


def factors(grid: Grid) -> np.ndarray:
    """The numbers of the factors of `images`, int [N, 5]."""
    each = np.indices(grid.num_values).reshape(len(NAMES), -1)
    return each.T


def open_source(grid: Grid) -> Source:
    """One split, `all`."""

    def read(split: str) -> Raw:
        numbers = factors(grid)
        made = Factors(NAMES, IS_ORDERED, numbers)
        return Raw(images(grid), numbers[:, 0], num_levels=2, factors=made)

    return Source(("all",), read, "made by their factors")
