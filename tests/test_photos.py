"""Colour images cut from two photographs: no pixel is in two splits."""

import numpy as np
import pytest

from experiments.data import photos

pytest.importorskip("PIL")


def test_splits_are_of_other_columns_of_the_photograph():
    rows = np.arange(427, dtype=np.int32)[:, None]
    columns = np.arange(640, dtype=np.int32)[None, :]
    place = np.stack(np.broadcast_arrays(rows, columns, 0 * rows + columns), -1)
    seen = {split: photos.cut(place, split) for split in photos.COLUMNS}
    assert {split: x.shape for split, x in seen.items()} == {
        "train": (2650, 32, 32, 3),
        "validation": (125, 32, 32, 3),
        "test": (125, 32, 32, 3),
    }
    used = [set(np.unique(x[..., 1])) for x in seen.values()]
    assert not used[0] & used[1]
    assert not used[1] & used[2]
    first = seen["test"][0]
    np.testing.assert_array_equal(first[:, 0, 0], np.arange(32))
    np.testing.assert_array_equal(first[0, :, 1], 544 + np.arange(32))


@pytest.mark.integration
def test_they_are_levels_in_colour():
    raw = photos.open_source().read("test")
    assert raw.x.shape == (250, 32, 32, 3)
    assert raw.x.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(raw.labels), [125, 125])
