"""Figures of sequences: pages are written whole, panels hold what they are given, errors say what
was wanted.
"""

import numpy as np
import pytest
from PIL import Image

from experiments import figures

LEVELS = ((), ("no", "yes"))
NAMES = ("position", "is_above")


def is_page(path):
    """Whether a PNG has something on it."""
    with Image.open(path) as image:
        return len(np.unique(np.asarray(image.convert("L")))) > 10


def some_of(num, seed=0):
    """Sequences [T_n, 2] of unequal length, a tenth missing."""
    rng = np.random.default_rng(seed)
    found = []
    for length in rng.integers(3, 12, num):
        x = np.stack([rng.standard_normal(length), rng.integers(0, 2, length)], 1)
        x[rng.random(x.shape) < 0.1] = np.nan
        found.append(x)
    return found


def shown(num):
    pages = []
    for number, x in enumerate(some_of(num)):
        rebuilt = np.nan_to_num(x)
        panels = [
            figures.Panel(x[:, d], rebuilt[:, d], rebuilt[:, d] - 1, rebuilt[:, d] + 1)
            for d in range(2)
        ]
        pages.append(figures.Shown(f"sequence {number}", panels))
    return pages


def test_sequences_are_drawn_with_their_bands(tmp_path):
    path = tmp_path / "sequences.png"
    made = figures.reconstructed_sequences(
        path, shown(7), NAMES, LEVELS, title="of a test", note="a band"
    )
    assert made == path
    assert is_page(path)


def test_samples_are_drawn_beside_data(tmp_path):
    path = figures.sampled_sequences(
        tmp_path / "samples.png", some_of(3), some_of(20, 1), NAMES, LEVELS, title="of a test"
    )
    assert is_page(path)


def test_lengths_are_drawn_by_split(tmp_path):
    lengths = {"train": np.array([2, 3, 7, 7]), "test": np.array([5])}
    shares = np.linspace([1.0, 1.0], [0.4, 0.5], 7).T
    path = figures.length_histograms(tmp_path / "lengths.png", lengths, shares, title="of a test")
    assert is_page(path)


def test_nothing_is_not_drawn(tmp_path):
    path = tmp_path / "none.png"
    with pytest.raises(ValueError, match="needs sequences and columns"):
        figures.reconstructed_sequences(path, [], NAMES, LEVELS, title="", note="")
    with pytest.raises(ValueError, match="needs data and samples"):
        figures.sampled_sequences(path, some_of(1), [], NAMES, LEVELS, title="")
    assert not path.exists()
