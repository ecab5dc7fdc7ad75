"""Arrays of any kind become levels: uint8 images in 0..num_levels - 1, with every change of scale
said aloud.
"""

import numpy as np

from experiments.data.base import DataError, drop_grey_channel, say

MEANS = {
    "mnist": 0.1307,
    "fashion_mnist": 0.2860,
}  # of the training pixels, in [0, 1]; the test sets are within 0.002


def as_levels(array: np.ndarray, where: str) -> tuple[np.ndarray, int]:
    """Images [N, *shape] of bools, integers in 0..255 or floats in [0, 1] -> (uint8 levels [N,
    *shape], num_levels).

    Integers keep their values: 2 levels when none is above 1, else 256. Floats are rounded to 256
    levels (2 when they are all exactly 0 or 1), with a note on stderr. A grey channel of size 1 is
    dropped. Raises DataError naming `where`.
    """
    check_rows(array, where)
    array = drop_grey_channel(array)
    if array.dtype == bool:
        return array.astype(np.uint8), 2
    if np.issubdtype(array.dtype, np.integer):
        return _from_integers(array, where)
    if np.issubdtype(array.dtype, np.floating):
        return _from_floats(array, where)
    raise DataError(
        f"{where} has dtype {array.dtype}; images are wanted as bools, integers in 0..255 or "
        "floats in [0, 1]."
    )


def check_rows(array: np.ndarray, where: str) -> None:
    """Raises DataError where an array is no [N, ...] with at least one of each."""
    if array.ndim < 2 or array.size == 0:
        raise DataError(
            f"{where} has shape {array.shape}; images are wanted as [N, ...] with at least one "
            "of each."
        )


def _from_integers(array: np.ndarray, where: str) -> tuple[np.ndarray, int]:
    low = int(array.min())
    high = int(array.max())
    if low < 0 or high > 255:
        raise DataError(
            f"{where} holds integers in {low}..{high}; images are wanted in 0..255: rescale and "
            "save again."
        )
    return array.astype(np.uint8, copy=False), 2 if high <= 1 else 256


def _from_floats(array: np.ndarray, where: str) -> tuple[np.ndarray, int]:
    low = float(array.min())
    high = float(array.max())
    if not (low >= 0 and high <= 1):  # a nan makes both comparisons false
        found = "nan" if np.isnan(low) else f"floats in [{low:.6g}, {high:.6g}]"
        raise DataError(
            f"{where} holds {found}; images are wanted as floats in [0, 1] or integers in "
            "0..255: rescale."
        )
    if np.all((array == 0) | (array == 1)):
        say(f"{where} holds only the floats 0 and 1: read as 2 levels.")
        return array.astype(np.uint8), 2
    say(f"{where} holds floats in [{low:.6g}, {high:.6g}]: rounded to 256 levels, 0..255.")
    return np.rint(array * 255).astype(np.uint8), 256


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
            f"({num_images},) are wanted, "
            "one for each image: save them so, or leave them out."
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
