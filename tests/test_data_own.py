"""experiments.data: the user's own images, in .npz files and in folders of PNG and JPEG files."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from experiments import data
from experiments.data import digits

RNG = np.random.default_rng(0)


def config(name, **changes):
    values = dict(
        data_dir="", train="train", validation="", test="test", shuffle_seed=0, binarisation="none"
    )
    values |= dict(static_seed=0, kind="images")
    return SimpleNamespace(name=name, **(values | changes))


def fails(match, **changes):
    """Asserts that loading is a DataError of one line that matches; returns its text."""
    with pytest.raises(data.DataError, match=match) as caught:
        data.load(config(**changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- npz
# -------------------------------------------------------------------------------------------------


def images_of(count, *shape):
    return RNG.integers(0, 256, (count, *shape), dtype=np.uint8)


def npz(folder, **arrays):
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return f"npz:{path}"


def both(array):
    return dict(x_train=array, x_test=array)


@pytest.mark.parametrize(
    "keys", ["train test", "x_train x_test", "X_train X_test", "train_images test_images"]
)
def test_npz_spellings(tmp_path, keys):
    train, test = (images_of(n, 4, 4) for n in (6, 3))
    got = data.load(
        config(
            npz(
                tmp_path,
                **dict(zip(keys.split(), (train, test), strict=True)),
                y_train=np.arange(6),
            )
        )
    )
    np.testing.assert_array_equal(got.train.x, train)
    np.testing.assert_array_equal(got.train.labels, np.arange(6))
    np.testing.assert_array_equal(got.test.x, test)
    assert got.test.labels is None
    assert got.num_levels == 256


def test_npz_of_one_array_is_shuffled(tmp_path):
    array = images_of(20, 5)
    got = data.load(
        config(npz(tmp_path, images=array, labels=np.arange(20)), train="all[:15]", test="all[15:]")
    )
    np.testing.assert_array_equal(array[got.train.labels], got.train.x)
    assert sorted([*got.train.labels, *got.test.labels]) == list(range(20))
    assert not np.array_equal(got.train.labels, np.arange(15))


@pytest.mark.parametrize(
    ("array", "shape", "num_levels"),
    [
        (images_of(5, 4, 3), (4, 3), 256),
        (images_of(5, 4, 3, 1), (4, 3), 256),
        (images_of(5, 4, 3, 3), (4, 3, 3), 256),
        (images_of(5, 7), (7,), 256),
        (images_of(5, 4, 3).astype(np.int64), (4, 3), 256),
        (images_of(5, 4, 3) > 99, (4, 3), 2),
        ((images_of(5, 4, 3) > 99).astype(np.uint8), (4, 3), 2),
        ((images_of(5, 4, 3) > 99).astype(np.float32), (4, 3), 2),
        (images_of(5, 4, 3) / 255, (4, 3), 256),
    ],
)
def test_npz_types_and_shapes(tmp_path, array, shape, num_levels, capsys):
    got = data.load(config(npz(tmp_path, **both(array))))
    assert (got.train.x.shape, got.train.x.dtype, got.num_levels) == (
        (5, *shape),
        np.uint8,
        num_levels,
    )
    scale = 255 if array.dtype == np.float64 else 1
    np.testing.assert_array_equal(got.train.x, np.rint(array * scale).reshape(5, *shape))
    # a change of scale is said
    assert bool(capsys.readouterr().err) == np.issubdtype(array.dtype, np.floating)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        (both(np.full((3, 2), np.nan)), "nan"),
        (both(np.linspace(-3, 1, 6).reshape(3, 2)), r"floats in \[-3, 1\]"),
        (both(np.full((3, 2), np.inf)), "inf"),
        (both(np.full((3, 2), 256)), r"256\.\.256"),
        (both(np.full((3, 2), -1)), r"-1\.\.-1"),
        (both(np.array([{"a": 1}, None])), "Object arrays|no plain array"),
        (both(np.full((3, 2), "a")), "dtype <U1"),
        (both(np.zeros((3, 2), complex)), "dtype complex128"),
        (both(np.zeros(3, np.uint8)), r"shape \(3,\)"),
        (both(np.zeros((0, 2, 2), np.uint8)), r"shape \(0, 2, 2\)"),
        (dict(x_train=images_of(3, 2, 2), x_test=images_of(3, 2, 3)), "save both alike"),
        (dict(x_train=images_of(3, 9, 9), x_test=np.zeros((3, 9, 9), bool)), "save both alike"),
        (dict(x_train=images_of(3, 2), train=images_of(3, 2)), "both 'train' and 'x_train'"),
        (dict(pixels=images_of(3, 2)), "holds pixels"),
        (dict(x_train=images_of(3, 2)), "names no split .* has train"),
        (both(images_of(3, 2)) | dict(y_train=np.zeros(4, int)), r"shape \(3,\)"),
        (both(images_of(3, 2)) | dict(y_train=np.zeros(3)), "float64"),
    ],
)
def test_npz_that_will_not_do(tmp_path, arrays, match):
    assert "mine.npz" in fails(match, name=npz(tmp_path, **arrays)) or match == "save both alike"


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 0.999), flip=st.integers(0, 10**6))
def test_damaged_npz_is_a_data_error_or_loads(tmp_path_factory, cut, flip):
    folder = tmp_path_factory.mktemp("npz")
    name = npz(folder, **both(images_of(9, 4, 4)))
    path = folder / "mine.npz"
    content = bytearray(path.read_bytes())
    content[flip % len(content)] ^= 0xFF
    path.write_bytes(content)
    message = "loads"
    try:
        data.load(config(name))
    except data.DataError as error:
        message = str(error)
    assert message == "loads" or "mine.npz" in message
    path.write_bytes(content[: int(cut * len(content))])
    fails("mine.npz", name=name)


def test_npz_paths(tmp_path):
    np.savez(tmp_path / "a.npz", **both(images_of(3, 2)))
    assert data.load(config("npz:a.npz", data_dir=str(tmp_path))).source == str(tmp_path / "a.npz")
    fails("which is no file", name=f"npz:{tmp_path}/b.npz")
    (tmp_path / "empty").mkdir()
    fails("no .npz or .npy file", name=f"npz:{tmp_path}/empty")
    np.save(tmp_path / "c.npy", images_of(3, 2))
    fails("both .npz and .npy", name=f"npz:{tmp_path}")


# --- folders of images
# ----------------------------------------------------------------------------------------------


def write(path, array, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **kwargs)
    return array


def test_folder_with_splits_and_classes(tmp_path):
    names = ("train/b/1.png", "train/a/2.png", "train/a/1.png", "test/b/9.PNG")
    arrays = {name: write(tmp_path / name, images_of(5, 4)) for name in names}
    got = data.load(config(f"images:{tmp_path}"))
    expected = np.stack(
        [arrays[name] for name in ("train/a/1.png", "train/a/2.png", "train/b/1.png")]
    )
    np.testing.assert_array_equal(got.train.x, expected)
    np.testing.assert_array_equal(got.train.labels, [0, 0, 1])
    np.testing.assert_array_equal(got.test.labels, [1])


def test_folder_without_splits(tmp_path, capsys):
    arrays = [write(tmp_path / f"{i}.png", images_of(4, 4, 3)) for i in range(8)]
    write(tmp_path / "8.jpg", images_of(4, 4))  # one grey image among colours
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image")
    got = data.load(config(f"images:{tmp_path}", train="all[:6]", test="all[6:]"))
    assert got.train.x.shape == (6, 4, 4, 3)
    assert got.train.labels is None
    assert "1 files" in capsys.readouterr().err
    order = np.random.default_rng(0).permutation(9)[:6]
    for row, i in enumerate(order):
        if i < 8:
            np.testing.assert_array_equal(got.train.x[row], arrays[i])


def test_lazy_folder_reads_as_the_array_does(tmp_path):
    for i in range(9):
        write(tmp_path / f"{i}.png", images_of(6, 4, 3))
    changes = dict(name=f"images:{tmp_path}", train="all[:6]", test="all[6:]")
    eager = data.load(config(**changes)).train.x
    lazy = data.load(config(**changes, device_limit_mb=0)).train.x
    assert isinstance(lazy, data.OnDisk)
    facts = ("shape", "dtype", "nbytes", "ndim")
    assert [getattr(lazy, fact) for fact in facts] == [getattr(eager, fact) for fact in facts]
    assert len(lazy) == len(eager) == 6
    for index in (
        slice(None),
        slice(4, 1, -2),
        np.array([3, 0, 0, -1]),
        2,
        -1,
        np.array([], int),
        np.eye(2, dtype=int),
    ):
        np.testing.assert_array_equal(lazy[index], eager[index])
    with pytest.raises(IndexError):
        lazy[6]
    fails("binarisation to dynamic", **changes, device_limit_mb=0, binarisation="static")


@pytest.mark.parametrize("limit", [0, 2048])
def test_corrupt_image_is_named(tmp_path, limit):
    for i in range(4):
        write(tmp_path / f"{i}.png", images_of(32, 32))
    changes = dict(
        name=f"images:{tmp_path}", train="all[:2]", test="all[2:]", device_limit_mb=limit
    )
    good = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(good[: len(good) // 2])  # a good header, half the pixels
    with pytest.raises(data.DataError, match=r"2\.png is a damaged image"):
        _ = [part.x[:] for part in data.load(config(**changes))[:3] if part]
    (tmp_path / "2.png").write_bytes(b"not an image")
    fails(r"2\.png cannot be read as PNG or JPEG", **changes)


def test_folders_that_will_not_do(tmp_path):
    name = f"images:{tmp_path}"
    fails("which is no folder", name=f"{name}/absent")
    fails("holds no PNG or JPEG", name=name)
    write(tmp_path / "train/1.png", images_of(4, 4))
    write(tmp_path / "train/2.png", images_of(4, 5))
    fails(r"2\.png is 4 x 5 .* where 1\.png is 4 x 4, .* --config.data.size=4,4", name=name)
    Image.fromarray(np.zeros((4, 4), np.uint8)).convert("F").save(tmp_path / "a.tiff")
    (tmp_path / "a.tiff").rename(tmp_path / "train/2.png")
    fails(r"2\.png cannot be read as PNG or JPEG", name=name)
    write(tmp_path / "train/2.png", images_of(4, 4))
    fails("has train", name=name)
    write(tmp_path / "train/a/3.png", images_of(4, 4))
    write(tmp_path / "test/1.png", images_of(4, 4))
    fails(r"1\.png is in no class folder", name=name)
    write(tmp_path / "4.png", images_of(4, 4))
    fails(r"4\.png is in no split", name=name)


def test_transparency_is_dropped_aloud(tmp_path, capsys):
    for split in ("train", "test"):
        write(tmp_path / split / "1.png", images_of(4, 4, 4))
    assert data.load(config(f"images:{tmp_path}")).train.x.shape == (1, 4, 4, 3)
    assert "transparency" in capsys.readouterr().err


def test_missing_extra_names_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    fails("pip install Pillow", name=f"images:{tmp_path}")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    fails("pip install scikit-learn", name="wine", train="all[:9]", test="all[9:]")
    monkeypatch.setattr(digits, "_find", lambda: None)
    fails("pip install scikit-learn", name="digits", train="all[:9]", test="all[9:]")


def test_digits_are_those_of_scikit_learn_from_its_file_and_by_its_function(monkeypatch):
    expected = load_digits()
    (from_file, digit, *_) = digits.open_source().read("all")
    np.testing.assert_array_equal(from_file, expected.images)
    np.testing.assert_array_equal(digit, expected.target)
    monkeypatch.setattr(digits, "_find", lambda: None)
    (loaded, digit, *_) = digits.open_source().read("all")
    np.testing.assert_array_equal(loaded, from_file)
    np.testing.assert_array_equal(digit, expected.target)
