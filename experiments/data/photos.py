"""`photos`: colour images 32x32 cut from the two photographs that scikit-learn carries, a temple
and a flower.

Of each photograph, 427x640, the left 448 columns are for training, those up to 544 for validation
and the others for test, so that no pixel is in two splits. Training images overlap: one every 8
pixels each way; the others one every 16. The labels are the photographs.
"""

import numpy as np

from experiments.data.base import Raw, Source, require

SIDE = 32
COLUMNS = {"train": (0, 448), "validation": (448, 544), "test": (544, 640)}
STEPS = {"train": 8, "validation": 16, "test": 16}


def cut(photo: np.ndarray, split: str) -> np.ndarray:
    """Images [N, 32, 32, 3] of one photograph [H, W, 3], row by row."""
    (first, last) = COLUMNS[split]
    step = STEPS[split]
    part = photo[:, first:last]
    found = [
        part[row : row + SIDE, column : column + SIDE]
        for row in range(0, part.shape[0] - SIDE + 1, step)
        for column in range(0, part.shape[1] - SIDE + 1, step)
    ]
    return np.stack(found)


def open_source() -> Source:
    """Splits train (5,300 images), validation and test (250 each); raises DataError without
    scikit-learn or Pillow.
    """
    datasets = require("sklearn.datasets", "scikit-learn", "the data set 'photos'")
    require("PIL", "pillow", "the data set 'photos'")

    def read(split: str) -> Raw:
        parts = [cut(photo, split) for photo in datasets.load_sample_images().images]
        labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return Raw(np.concatenate(parts), labels, num_levels=256)

    splits = ("train", "validation", "test")
    return Source(splits, read, "embedded in scikit-learn", splits)
