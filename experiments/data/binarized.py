"""The official fixed binarisation of MNIST (Salakhutdinov & Murray 2008): 50,000 / 10,000 / 10,000
images, 28x28.

Read from the original text files, binarized_mnist_{train,valid,test}.amat, or from
static_mnist_bits.npz, whose rows are `np.packbits` of the same pixels. Likelihoods under this
binarisation and under a dynamic one differ by about 2 nats.
"""

from functools import partial
from pathlib import Path

import numpy as np

from experiments.data.base import DataError, Raw, Source, folder_of, read_bytes
from experiments.data.levels import as_labels
from experiments.data.stored import open_npz, read_array

ROWS = {"train": 50_000, "validation": 10_000, "test": 10_000}
STORED = {"train": "train", "validation": "valid", "test": "test"}  # what the files call them
BITS = "static_mnist_bits.npz"
URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"


def open_source(data_dir: str) -> Source:
    """Splits train, validation and test, uint8 [N, 28, 28] of 0 and 1; raises DataError where no
    file is.
    """
    what = f"with {BITS} or binarized_mnist_{{train,valid,test}}.amat ({URL})"
    if not data_dir:
        raise DataError(
            "binarized_mnist is never fetched and config.data.data_dir is empty; give the "
            f"folder {what}."
        )
    folder = folder_of(data_dir, what)
    if (folder / BITS).exists():
        return Source(tuple(ROWS), partial(_read_bits, folder / BITS), str(folder / BITS))
    if any(_amat(folder, split).exists() for split in ROWS):
        return Source(
            tuple(ROWS), lambda split: _read_amat(_amat(folder, split), split), str(folder)
        )
    raise DataError(
        f"config.data.data_dir={data_dir!r} has no binarized_mnist; give the folder {what}."
    )


def _amat(folder: Path, split: str) -> Path:
    return folder / f"binarized_mnist_{STORED[split]}.amat"


def _read_bits(path: Path, split: str) -> Raw:
    """Rows of 98 bytes -> [N, 28, 28]; labels where the file has them."""
    key = STORED[split]
    with open_npz(path) as file:
        packed = read_array(file, key, path)
        labels = read_array(file, f"{key}_label", path) if f"{key}_label" in file.files else None
    if packed.dtype != np.uint8 or packed.shape != (ROWS[split], 98):
        raise DataError(
            f"{path}: {key!r} is {packed.dtype} {packed.shape}, where np.packbits rows, uint8 "
            f"{(ROWS[split], 98)}, "
            "were wanted; get it again."
        )
    images = np.unpackbits(packed, axis=1)[:, :784].reshape(-1, 28, 28)
    return Raw(
        images,
        None if labels is None else as_labels(labels, len(images), f"{path}: {key}_label"),
        num_levels=2,
    )


def _read_amat(path: Path, split: str) -> Raw:
    """Text, one image a line, 784 of '0' or '1' with blanks between -> [N, 28, 28]; the files have
    no labels.
    """
    text = np.frombuffer(read_bytes(path), np.uint8)
    is_pixel = (text == ord("0")) | (text == ord("1"))
    is_blank = np.isin(text, np.frombuffer(b" \t\r\n", np.uint8))
    if not np.all(is_pixel | is_blank) or np.any(is_pixel[1:] & is_pixel[:-1]):
        raise DataError(
            f"{path} holds more than 0s and 1s between blanks; get it again from {URL}."
        )
    pixels = text[is_pixel] - ord("0")
    if len(pixels) != ROWS[split] * 784:
        raise DataError(
            f"{path} has {len(pixels)} pixels, where {ROWS[split]} x 784 were wanted; it is cut "
            f"short: get it again from {URL}."
        )
    return Raw(pixels.reshape(-1, 28, 28), None, num_levels=2)
