"""Checks of arrays [N, ...] and of labels, the means that tell namesakes apart, and static
binarisation of levels.
"""

from typing import Any

import numpy as np

from experiments.data.base import DataError

MEANS = {
    "mnist": 0.1307,
    "fashion_mnist": 0.2860,
}  # of the training pixels, in [0, 1]; the test sets are within 0.002


def check_rows(array: Any, where: str) -> None:
    """Raises DataError where an array is no [N, ...] with at least one of each."""
    if array.ndim < 2 or array.size == 0:
        raise DataError(
            f"{where} has shape {array.shape}; examples are wanted as [N, ...] with at "
            "least one of each."
        )


def as_labels(array: np.ndarray, num_images: int, where: str) -> np.ndarray:
    """Class numbers [N] or [N, 1] -> int64 [N]; raises DataError for another shape, count or
    type.
    """
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.shape != (num_images,) or not (
        flat.dtype == bool or np.issubdtype(flat.dtype, np.integer)
    ):
        raise DataError(
            f"{where} holds {array.dtype} of shape {array.shape}; integer labels of shape "
            f"({num_images},) are wanted, one for each example: save them so, such as by "
            "np.unique(y, return_inverse=True)[1], or leave them out."
        )
    return flat.astype(np.int64)


def check_mean(name: str, images: np.ndarray, where: str) -> None:
    """Raises DataError where `name` holds its namesake's pixels: MNIST and Fashion-MNIST share
    their file names.
    """
    if name not in MEANS:
        return
    mean = float(images.mean()) / 255
    for other, expected in MEANS.items():
        if other != name and abs(mean - expected) < 0.01:
            raise DataError(
                f"{where} has a mean of {mean:.4f}, which is {other}'s, where {name} "
                f"({MEANS[name]:.4f}) was wanted; "
                "the two share their file names: keep each in a folder of its own."
            )


def binarise(images: np.ndarray, num_levels: int, *, seed: int, split: str) -> np.ndarray:
    """Static binarisation: each pixel is on with probability level / (num_levels - 1), uint8 [N,
    *shape] of 0 and 1.

    The draws go down a whole stored split in its stored order from one generator keyed by (seed,
    split), so an example has the same pixels under every shuffle and slice.
    """
    generator = np.random.Generator(np.random.PCG64([seed, *split.encode()]))
    out = np.empty(images.shape, np.uint8)
    step = max(
        1, 2**22 // max(1, images[0].size)
    )  # bounds the memory; the stream of draws is the same in any chunks
    for start in range(0, len(images), step):
        rows = images[start : start + step]
        draws = generator.random(
            rows.shape, dtype=np.float32
        )  # [0, 1): level 0 never is on, the highest always
        out[start : start + step] = draws < rows / np.float32(num_levels - 1)
    return out
