"""experiments.data: .npy and .npz that stay on disk, and shards of them."""

import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import data
from experiments.data import stored
from experiments.data.lazy import OnDisk, of_maps
from experiments.run import memory
from experiments.run.mapped import make_announce


def config(name, **changes):
    values = dict(name=name, data_dir="", train="auto", validation="auto", test="auto")
    values |= dict(shuffle_seed=3, binarisation="none", static_seed=0, device_limit_mb=0)
    return SimpleNamespace(**(values | changes))


def load(name, **changes):
    return data.load(config(f"npz:{name}", **changes))


def both(name, **changes):
    """The data set on disk, and in memory."""
    return load(name, **changes), load(name, device_limit_mb=2048, **changes)


def fails(match, name, **changes):
    with pytest.raises(data.DataError, match=match) as caught:
        load(name, **changes)
    assert "\n" not in str(caught.value)


def table_of(num, *, seed=0):
    """Reals of far means, positive ones, counts, a yes or no, levels, a constant; some missing."""
    rng = np.random.default_rng(seed)
    grades = np.clip(np.rint(rng.normal(4, 0.8, num)), 1, 6)
    columns = [
        rng.normal(1e4, 2.0, num),
        rng.lognormal(1, 0.5, num),
        rng.poisson(3, num),
        rng.random(num) > 0.4,
        grades,
        np.full(num, 0.1),
        rng.normal(size=num),
    ]
    x = np.stack(columns, axis=1).astype(np.float64)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[rng.random(num) < 0.1, 0] = -999
    return x


def equal_tables(one, other):
    """Kinds, numbers and rows are the same, up to the rounding of a mean."""
    for here, there in zip(one.table.columns, other.table.columns, strict=True):
        assert here[:4] == there[:4]
        np.testing.assert_allclose(here[4:], there[4:], rtol=1e-12, atol=1e-12)
    for role in ("train", "validation", "test"):
        mine = getattr(one, role)
        theirs = getattr(other, role)
        assert set(mine.x) == set(theirs.x)
        for name, array in theirs.x.items():
            assert mine.x[name].dtype == array.dtype
            np.testing.assert_allclose(np.asarray(mine.x[name]), array, rtol=2e-6, atol=1e-6)
        for field in ("labels", "ids"):
            np.testing.assert_array_equal(getattr(mine, field), getattr(theirs, field))
    assert one.report == other.report


# --- where the numbers lie


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i2", "u1", "?"])
@pytest.mark.parametrize("name", ["x", "a" * 100])
def test_a_stored_member_is_mapped_where_it_lies(tmp_path, dtype, name):
    x = (np.random.default_rng(0).normal(size=(7, 5)) * 9).astype(dtype)
    path = tmp_path / "a.npz"
    np.savez(path, **{"before": np.arange(3), name: x, "after": np.arange(4)})
    found = stored.arrays_of(path)
    assert list(found) == ["before", name, "after"]
    assert (found[name].shape, found[name].dtype, found[name].why) == (x.shape, x.dtype, "")
    np.testing.assert_array_equal(found[name].mapped(), x)
    assert not found[name].mapped().flags.writeable


def test_a_member_behind_extra_bytes_is_mapped_where_it_lies(tmp_path):
    """The local header of a zip has extra bytes that its table of contents need not have."""
    x = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "x.npy", x)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        info = zipfile.ZipInfo("x.npy")
        info.extra = b"\x99\x99\x04\x00abcd"
        file.writestr(info, (tmp_path / "x.npy").read_bytes())
    np.testing.assert_array_equal(stored.arrays_of(tmp_path / "a.npz")["x"].mapped(), x)


def test_what_cannot_be_mapped_is_said(tmp_path, capsys, monkeypatch):
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.savez_compressed(tmp_path / "a.npz", x=x)
    assert isinstance(load(tmp_path / "a.npz").train.x["values"], np.ndarray)
    said = capsys.readouterr().err
    assert "'x' is compressed" in said
    assert f"zipfile -e {tmp_path / 'a.npz'} DIR" in said
    np.save(tmp_path / "b.npy", np.asfortranarray(x))
    assert isinstance(load(tmp_path / "b.npy").train.x["values"], np.ndarray)
    assert "in Fortran order" in capsys.readouterr().err
    monkeypatch.setattr(memory, "of_host", lambda: memory.AtHand(100.0, "left"))
    fails("compressed.* zipfile -e .*960 bytes of memory, and 100 bytes", tmp_path / "a.npz")


def test_the_command_that_is_named_makes_it_stream(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.savez_compressed(tmp_path / "a.npz", x=x, y=np.arange(40) % 3)
    zipfile.main(["-e", str(tmp_path / "a.npz"), str(tmp_path / "out")])
    found = load(tmp_path / "out")
    assert isinstance(found.train.x["values"], OnDisk)
    assert set(found.train.labels) == {0, 1, 2}


@pytest.mark.parametrize("cut", [20, 90, 300])
def test_a_file_that_ends_early_is_refused(tmp_path, cut):
    np.save(tmp_path / "a.npy", np.ones((30, 2)))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:cut])
    with pytest.raises(data.DataError, match=r"a\.npy"):
        load(tmp_path / "a.npy")


def test_nothing_pickled_is_mapped_or_loaded(tmp_path):
    x = np.array([[1, 2], [3, "a"]], object)
    np.savez(tmp_path / "a.npz", x=x)
    fails("no plain array", tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", x)
    fails("no plain array", tmp_path / "b.npy")


# --- shards


def test_shards_are_one_array_in_the_order_of_their_names(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    y = np.arange(50) % 4
    whole = tmp_path / "whole.npz"
    np.savez(whole, x=x, y=y)
    cuts = [0, 7, 7, 30, 50]
    folders = {kind: tmp_path / kind for kind in ("npz", "npy", "alone")}
    for folder in folders.values():
        folder.mkdir()
    for i in range(4):
        here = slice(cuts[i], cuts[i + 1])
        np.savez(folders["npz"] / f"part-{i}.npz", x=x[here], y=y[here])
        np.save(folders["npy"] / f"x-{i:05}-of-00004.npy", x[here])
        np.save(folders["npy"] / f"y-{i:05}-of-00004.npy", y[here])
        np.save(folders["alone"] / f"shard_{i}.npy", x[here])
    expected = load(whole)
    for kind, folder in folders.items():
        for limit in (0, 2048):
            found = load(folder, device_limit_mb=limit)
            np.testing.assert_array_equal(
                np.asarray(found.train.x["values"]), np.asarray(expected.train.x["values"])
            )
            if kind != "alone":
                np.testing.assert_array_equal(found.train.labels, expected.train.labels)


def test_shards_that_are_not_alike_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)))
    np.savez(tmp_path / "b.npz", x=np.ones((3, 4)))
    fails(r"b\.npz holds 'x' as float64 of shape \(3, 4\), where a\.npz", tmp_path)
    np.savez(tmp_path / "b.npz", z=np.ones((3, 2)))
    fails(r"b\.npz holds z, where a\.npz holds x", tmp_path)


def test_rows_of_several_maps_are_those_of_one(tmp_path):
    parts = []
    for i, num in enumerate((5, 1, 9)):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).normal(size=(num, 2)))
        parts.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r"))
    whole = np.concatenate(parts)
    array = of_maps(parts)
    rows = np.array([14, 0, 5, 4, 6, 0])
    for index in (rows, slice(3, 8), slice(None), 3, -1, rows.reshape(2, 3), rows[:0]):
        np.testing.assert_array_equal(array[index], whole[index])
    np.testing.assert_array_equal(array.take(rows)[2:4], whole[rows][2:4])
    np.testing.assert_array_equal(np.asarray(array), whole)
    with pytest.raises(IndexError):
        array[15]


# --- tables


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"positive": "log", "sentinel": "-999"},
        {"kinds": "x0=student_t,x2=negative_binomial,x4=categorical", "sentinel": "-999"},
        {"label_column": "x4", "covariates": "x6,x3", "id_column": "x2", "kinds": "x5=drop"},
    ],
)
def test_a_table_on_disk_is_the_table_in_memory(tmp_path, fields, monkeypatch):
    monkeypatch.setattr("experiments.data.lazy.BLOCK_BYTES", 4_000)  # of several blocks
    x = table_of(500)
    if "label_column" in fields:
        x[np.isnan(x[:, 4]), 4] = 3.0
    np.savez(tmp_path / "a.npz", x=x)
    (streamed, held) = both(tmp_path / "a.npz", **fields)
    assert isinstance(streamed.train.x["values"], OnDisk)
    equal_tables(streamed, held)


def test_an_exposure_is_summed_from_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.data.lazy.BLOCK_BYTES", 4_000)
    counts = np.random.default_rng(0).poisson(3.0, (300, 4)).astype(np.int32) + 1
    np.save(tmp_path / "a.npy", counts)
    equal_tables(*both(tmp_path / "a.npy", exposure="total"))


def test_splits_of_their_own_stay_on_disk(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=table_of(90), x_test=table_of(40, seed=1))
    equal_tables(*both(tmp_path / "a.npz", validation="train[:20]", train="train[20:]"))


def test_a_constant_column_is_left_out_whatever_its_rounding(tmp_path):
    x = np.stack([np.full(1_000, 0.1), np.random.default_rng(0).normal(size=1_000)], axis=1)
    np.save(tmp_path / "a.npy", x)
    for dataset in both(tmp_path / "a.npy"):
        assert dataset.table.names == ("x1",)


def test_an_infinite_value_on_disk_is_refused(tmp_path):
    x = table_of(60)
    x[50, 1] = -np.inf
    np.save(tmp_path / "a.npy", x)
    fails("'x1' holds -inf", tmp_path / "a.npy")


def test_the_fingerprint_of_a_table_on_disk_changes_with_a_value(tmp_path):
    x = table_of(60)
    np.save(tmp_path / "a.npy", x)
    before = load(tmp_path / "a.npy").fingerprint
    assert load(tmp_path / "a.npy").fingerprint == before
    x[17, 6] = np.float32(x[17, 6] if x[17, 6] == x[17, 6] else 0) + 1.0
    np.save(tmp_path / "a.npy", x)
    assert load(tmp_path / "a.npy").fingerprint != before


# --- images


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).integers(0, 256, (30, 5, 4), np.uint8),
        np.random.default_rng(0).integers(0, 17, (30, 5, 4), np.uint8),
        np.random.default_rng(0).random((30, 5, 4), np.float32),
        np.random.default_rng(0).random((30, 20)),
        np.random.default_rng(0).random((30, 3, 5, 6)) * 2 - 1,
        np.random.default_rng(0).random((30, 5, 4)) > 0.5,
        (np.random.default_rng(0).random((30, 5, 4)) > 0.5).astype(np.float32),
    ],
)
def test_images_on_disk_are_the_images_in_memory(tmp_path, array):
    np.savez(tmp_path / "a.npz", x=array, y=np.arange(30) % 3)
    sized = {"size": (3, 3), "mode": "grey"} if array.ndim == 4 else {}
    (streamed, held) = both(tmp_path / "a.npz", **sized)
    assert isinstance(streamed.train.x, OnDisk)
    assert streamed.num_levels == held.num_levels
    for role in ("train", "validation", "test"):
        np.testing.assert_array_equal(np.asarray(getattr(streamed, role).x), getattr(held, role).x)
        np.testing.assert_array_equal(getattr(streamed, role).labels, getattr(held, role).labels)


def test_the_fingerprint_of_images_on_disk_changes_with_a_pixel(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (30, 5, 4), np.uint8)
    np.save(tmp_path / "a.npy", x)
    before = load(tmp_path / "a.npy").fingerprint
    x[11, 2, 2] ^= 1
    np.save(tmp_path / "a.npy", x)
    assert load(tmp_path / "a.npy").fingerprint != before


def test_maps_that_a_function_of_ones_own_returns_stay_on_disk(tmp_path):
    np.save(tmp_path / "a.npy", table_of(40))
    (tmp_path / "own_maps.py").write_text(
        "import numpy as np\n"
        f"def mine(): return {{'x': np.load({str(tmp_path / 'a.npy')!r}, mmap_mode='r')}}\n"
    )
    found = data.load(config(f"{tmp_path / 'own_maps.py'}:mine"))
    assert isinstance(found.train.x["values"], OnDisk)
    equal_tables(found, load(tmp_path / "a.npy")._replace(report=found.report))


def test_a_disk_is_told_of_the_rows_that_are_read(tmp_path):
    np.save(tmp_path / "a.npy", table_of(40))
    x = load(tmp_path / "a.npy").train.x
    announce = make_announce(x["values"])
    assert announce is not None
    announce(np.array([0, 31, 5]))
    assert make_announce(x["observed"]) is None  # of the same pages
