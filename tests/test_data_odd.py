"""experiments.data: files as people bring them, odd ones; read as they are meant, or refused with
the way on.
"""

import os
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import data
from experiments.data import delimited, gather
from experiments.data.raw import Coded

RNG = np.random.default_rng(0)
ROWS = [f"{x:.3f},{n}" for x, n in zip(RNG.normal(size=60), RNG.poisson(3, 60), strict=True)]


def config(name, **changes):
    values = dict(data_dir="", train="", validation="auto", test="", shuffle_seed=0)
    values |= dict(binarisation="none", static_seed=0, device_limit_mb=2048)
    return SimpleNamespace(name=name, **(values | changes))


def csv(folder, lines, **changes):
    path = folder / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    return data.load(config(f"csv:{path}", **changes))


def npz(folder, **arrays):
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return f"npz:{path}"


def fails(match, name, **changes):
    with pytest.raises(data.DataError, match=match) as caught:
        data.load(config(name, **changes))
    assert "\n" not in str(caught.value)


def report(dataset):
    return " | ".join(dataset.report)


# --- csv


def test_a_header_of_any_length_is_read_whole(tmp_path):
    names = [f"a_gene_with_a_long_name_{i:06d}" for i in range(2_200)]
    assert len(",".join(names)) > delimited.HEAD_BYTES
    values = RNG.poisson(2.0, (20, len(names)))
    dataset = csv(tmp_path, [",".join(names), *(",".join(map(str, row)) for row in values)])
    assert set(dataset.table.names) <= set(names)
    assert len(dataset.table.names) > 2_000


def test_names_may_hold_delimiters_and_ends_of_lines(tmp_path):
    rows = [row.replace(",", ";") for row in ROWS]
    assert csv(tmp_path, ['"a,b,c,d";e', *rows]).table.names == ("a,b,c,d", "e")
    assert csv(tmp_path, ['"height\n(m)",n', *ROWS]).table.names == ("height (m)", "n")
    assert csv(tmp_path, ["a|n", *(row.replace(",", "|") for row in ROWS)]).table.names == (
        "a",
        "n",
    )


def test_ends_of_lines_in_quotes_may_lie_where_the_file_is_cut(tmp_path, monkeypatch):
    lines = [f'{row},"one\n\ntwo"' if i % 2 else f'{row},"3"' for i, row in enumerate(ROWS)]
    whole = csv(tmp_path, ["a,n,t", *lines])
    assert set(whole.table.columns[2].levels) == {"one\n\ntwo", "3"}
    assert all("\n" not in line for line in whole.report)
    for size in (40, 41, 43, 47):
        monkeypatch.setattr(delimited, "PART_BYTES", size)
        cut = csv(tmp_path, ["a,n,t", *lines])
        assert cut.fingerprint == whole.fingerprint


def test_a_stray_quote_ends_the_value_that_it_is_in(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "PART_BYTES", 50)
    monkeypatch.setattr(delimited, "MOST_LINES", 4)
    lines = [f"{row},{chr(39) if i % 2 else '5 inch' + chr(34)}" for i, row in enumerate(ROWS)]
    dataset = csv(tmp_path, ["a,n,t", *lines])
    assert set(dataset.table.columns[2].levels) == {"'", '5 inch"'}
    assert sum(part.num for part in (dataset.train, dataset.validation, dataset.test)) == 60


def test_blanks_around_values_are_none_of_theirs(tmp_path):
    lines = [row.replace(",", " , ") + (", yes" if i % 2 else ",no ") for i, row in enumerate(ROWS)]
    dataset = csv(tmp_path, ["a, n, t", *lines, "1.5, NA , yes", " ,2,no"])
    assert dataset.table.kinds == ("gaussian", "poisson", "bernoulli")
    assert dataset.table.columns[2].levels == ("no", "yes")
    assert "a 1.61 %, n 1.61 %" in report(dataset)


def test_whole_numbers_that_float64_would_round_stay_apart(tmp_path):
    big = 2**60
    lines = [f"{big + i},{row}" for i, row in enumerate(ROWS)]
    found = csv(tmp_path, ["id,a,n", *lines])
    assert len(np.unique(found.train.ids)) == found.train.num
    found = csv(tmp_path, ["key,a,n", *lines], id_column="key")
    assert str(big + 59) in {*found.train.ids, *found.validation.ids, *found.test.ids}


def test_ids_are_as_they_are_written(tmp_path):
    lines = [f"{i:03d},{row}" for i, row in enumerate(ROWS)]
    found = csv(tmp_path, ["key,a,n", *lines], id_column="key")
    assert {len(each) for each in found.train.ids} == {3}


def test_sequences_of_giant_names_are_not_one(tmp_path):
    lines = [f"{2**60 + i // 4},{2**61 + i},{row}" for i, row in enumerate(ROWS)]
    found = csv(tmp_path, ["who,t,a,n", *lines], sequence="who", time="t")
    assert found.report[0].endswith("15 sequences of 4 to 4 steps, 4 in the median, x 2 columns")
    assert "apart" not in found.report[5]  # steps of one each


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("?", "all numbers but '\\?': mend these, or name them by config.data.sentinel"),
        ("1,000.5", "all numbers but '1,000.5'"),
    ],
)
def test_one_text_among_numbers_is_said(tmp_path, text, said):
    dataset = csv(tmp_path, ["a,n", *ROWS, f'"{text}",3'])
    assert said.replace("\\", "") in report(dataset)


@pytest.mark.parametrize("form", ["${}", "{}%", "{} kg"])
def test_numbers_with_a_unit_are_said(tmp_path, form):
    lines = [form.format(row.split(",")[0]) + "," + row.split(",")[1] for row in ROWS]
    assert "write digits and a decimal point alone" in report(csv(tmp_path, ["a,n", *lines]))


def test_a_line_of_another_length_is_told_with_the_header(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["# by me", "a,n", *ROWS]))
    fails("first line has 1 value \\('# by me'\\)", f"csv:{path}")


def test_values_whose_spread_float64_cannot_hold_are_refused(tmp_path):
    for factor in (1e-200, 1e200):
        path = tmp_path / "mine.csv"
        lines = [f"{float(row.split(',')[0]) * factor:.6e},{row}" for row in ROWS]
        for more in ("", ",word"):  # in one pass over the rows, and column by column
            path.write_text("\n".join(["x,a,n" + (more and ",t"), *(row + more for row in lines)]))
            fails("'x' lies in .* other units", f"csv:{path}")


# --- sequences


@pytest.mark.parametrize(
    ("texts", "order"),
    [
        (("2026-11-10", "2026-11-09"), (1, 0)),
        (("2026-11-10 09:30", "2026-11-10T10:00"), (0, 1)),
        (("2026-11-10T09:30:00Z", "2026-11-10T10:00:00+02:00"), (1, 0)),
        (("10:20", "09:50:30.5"), (1, 0)),
        ((str(2**60 + 1), str(2**60)), (1, 0)),
        (("10", "9"), (1, 0)),
    ],
)
def test_times_of_texts_are_in_the_order_of_time(texts, order):
    times = gather._times_of_texts(Coded(np.array([0, 1]), texts), "t", "x")
    assert tuple(np.argsort(times)) == order


@pytest.mark.parametrize("text", ["31/01/2026", "10h", "Jan", "2026-13-01", "", "second"])
def test_texts_without_an_order_are_no_times(text):
    column = Coded(np.array([0, 1]), ("2026-11-10", text))
    with pytest.raises(data.DataError, match="whose order is not known"):
        gather._times_of_texts(column, "t", "x")


def test_gaps_of_dates_are_in_days(tmp_path):
    lines = [f"{i // 3},2026-0{1 + i % 3}-01,{row}" for i, row in enumerate(ROWS)]
    dataset = csv(tmp_path, ["who,t,a,n", *lines], sequence="who", time="t")
    assert "28 to 31 days apart and are taken as equal" in report(dataset)


def test_a_step_without_counts_has_the_mean_exposure(tmp_path):
    x = RNG.poisson(5.0, (20, 4, 3)) + 1.0
    x[:, 1] = np.nan
    name = npz(tmp_path, x=x)
    dataset = data.load(config(name, kind="sequences", exposure="total", kinds="poisson"))
    assert (dataset.train.x["exposure"][:, 1] == 1.0).all()


# --- arrays


def test_what_is_not_read_is_said(tmp_path, capsys):
    data.load(config(npz(tmp_path, x=RNG.normal(size=(60, 3)), weights=np.ones(60))))
    assert "holds weights too, which is not read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mask", "observed", "mask_train", "is_missing", "x_mask"])
def test_a_mask_is_refused_and_not_left_out(tmp_path, name):
    arrays = {"x": RNG.normal(size=(60, 3)), name: np.ones((60, 3), bool)}
    fails("what is missing nan", npz(tmp_path, **arrays))


def test_lengths_of_some_splits_alone_are_refused(tmp_path):
    x = RNG.normal(size=(20, 4, 2))
    lengths = RNG.integers(1, 5, 20)
    for key, value in (("lengths", lengths), ("lengths_train", lengths[:15])):
        name = npz(tmp_path, x_train=x[:15], x_test=x[15:], **{key: value})
        fails("each of its splits needs lengths of its own", name)


def test_a_length_of_no_step_is_named(tmp_path):
    name = npz(tmp_path, x=RNG.normal(size=(3, 4, 2)), lengths=np.array([2, 0, 4]))
    fails("such as 0 \\(the one of sequence 1\\)", name)


def test_lists_of_many_forms_are_sequences(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "import jax.numpy as jnp\nimport numpy as np\n"
        "rows = [np.random.default_rng(n).normal(size=(2 + n % 3, 2)) for n in range(20)]\n"
        "def arrays(): return {'x': rows}\n"
        "def lists(): return {'x': [each.tolist() for each in rows]}\n"
        "def of_jax(): return {'x': [jnp.asarray(each) for each in rows]}\n"
        "def objects(): return {'x': np.array(rows, object)}\n"
        "def ragged(): return {'x': [[[1.0], [2.0, 3.0]]] * 20}\n"
        "def widths(): return {'x': [np.ones((2, 1 + n % 2)) for n in range(20)]}\n"
    )
    shapes = {
        data.load(config(f"{path}:{form}")).train.x["values"].shape
        for form in ("arrays", "lists", "of_jax", "objects")
    }
    assert shapes == {(16, 4, 2)}
    fails("holds Python objects", f"{path}:ragged")
    fails("of one D", f"{path}:widths")
    fails("names no function of that file, which has arrays, lists", f"{path}:other")


def test_too_few_to_be_cut_are_told_how(tmp_path):
    name = npz(tmp_path, x=RNG.normal(size=(3, 4)), y=np.arange(3))
    fails(r"--config.data.train=all\[:-1\]", name)
    dataset = data.load(config(name, train="all[:-1]", validation="", test="all[-1:]"))
    assert (dataset.train.num, dataset.test.num) == (2, 1)


def test_covariates_that_nothing_has_are_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["a,n,batch", *(f"{row}," for row in ROWS)]))
    fails("'batch', which no training row has", f"csv:{path}", covariates="batch")
    path.write_text("\n".join(["a,n", *ROWS]))
    fails("all are named by other fields", f"csv:{path}", covariates="a,n")


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([(0, 3), (2, 3)], "holds 2 of 3 shards of 'x', without number 1"),
        ([(0, 1), (0, 2), (1, 2)], "shards of 'x' of 1 and of 2 pieces"),
    ],
)
def test_shards_that_their_names_count_are_all_there(tmp_path, numbers, said):
    for number, total in numbers:
        np.save(tmp_path / f"x-{number:05d}-of-{total:05d}.npy", RNG.normal(size=(30, 3)))
    fails(said, f"npz:{tmp_path}")


def test_sequences_that_would_stream_are_said_to_be_loaded(tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", x=RNG.normal(size=(20, 4, 2)))
    name = f"npz:{tmp_path / 'mine.npz'}"
    held = data.load(config(name, kind="sequences"))
    assert "do not stream" not in capsys.readouterr().err
    loaded = data.load(config(name, kind="sequences", device_limit_mb=0.001))
    assert "sequences do not stream" in capsys.readouterr().err
    assert loaded.fingerprint == held.fingerprint


@pytest.mark.parametrize("size", [10, 60, 90])
def test_a_file_that_is_written_to_while_it_is_mapped_is_told(tmp_path, size):
    for number in range(2):
        np.save(tmp_path / f"x-{number}.npy", RNG.normal(size=(60, 3)))
    path = tmp_path / "x-1.npy"
    x = data.load(config(f"npz:{tmp_path}", device_limit_mb=0)).train.x["values"]
    before = x[:]
    os.rename(path, tmp_path / "kept")  # another file in its place is none of the map's
    np.save(path, np.zeros((size, 3)))
    assert (x[:] == before).all()
    os.rename(tmp_path / "kept", path)
    assert (x[:] == before).all()
    np.save(path, np.zeros((size, 3)))
    with pytest.raises(data.DataError, match=r"x-1.npy was written to while it is read"):
        x[1:]  # other rows than those that were read last, which are kept
    assert (x[x.rows < 60] == before[x.rows < 60]).all()  # the other file is as it was


# --- what a function of one's own returns, groups of HDF5, shards


def own(folder, body):
    path = folder / "own.py"
    path.write_text(f"import numpy as np\nR = np.random.default_rng(0)\ndef f(): return {body}\n")
    return f"{path}:f"


def test_what_numpy_has_masked_is_missing(tmp_path):
    """Whole numbers too, and in each array of a list; with everything masked nothing is left."""
    masked = "np.ma.masked_less(R.integers(0, 90, (50, 3)), 20)"
    table = data.load(config(own(tmp_path, f"{{'x': {masked}}}"), kind="table"))
    x = np.random.default_rng(0).integers(0, 90, (50, 3))
    assert (
        table.train.x["observed"].sum()
        + table.validation.x["observed"].sum()
        + (table.test.x["observed"].sum())
        == (x >= 20).sum()
    )
    steps = "[np.ma.masked_greater(R.normal(size=(n % 4 + 2, 2)), 0.8) for n in range(20)]"
    folder = tmp_path / "steps"
    folder.mkdir()
    sequences = data.load(config(own(folder, f"{{'x': {steps}}}")))
    assert "missing" in report(sequences)
    folder = tmp_path / "all"
    folder.mkdir()
    fails("no column that varies", own(folder, "{'x': np.ma.masked_array(np.ones((50, 3)), True)}"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{'x': [np.ones((n + 2, 2)) for n in range(9)] + [None]}", "holds Python objects"),
        ("{1: np.ones((50, 3))}", "under names such as 1, a int; names are wanted as texts"),
        ("exit(3)", "fails: SystemExit: 3$"),
        ("[][0]", "fails: IndexError: list index out of range$"),
        ("(_ for _ in ()).throw(RuntimeError('one\\ntwo'))", "RuntimeError: one two$"),
    ],
)
def test_what_a_function_of_ones_own_may_do_is_told_in_a_sentence(tmp_path, body, said):
    fails(said, own(tmp_path, body))


def test_a_sparse_matrix_is_its_numbers(tmp_path):
    body = "{'x': __import__('scipy.sparse').sparse.csr_matrix(R.poisson(0.7, (60, 5)))}"
    dataset = data.load(config(own(tmp_path, body), kind="table"))
    assert len(dataset.table.names) == 5


def test_an_infinite_time_is_refused(tmp_path):
    lines = ["id,t,x", *(f"{i // 5},{i % 5},{x:.3f}" for i, x in enumerate(RNG.normal(size=100)))]
    lines[7] = "1,inf,0.5"
    with pytest.raises(data.DataError, match="1 rows have an infinite t; finite times"):
        csv(tmp_path, lines, sequence="id", time="t")


def test_keys_and_groups_of_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w") as file:
        file["run/x"] = RNG.normal(size=(60, 4))
        uneven = np.empty(20, object)
        uneven[:] = [RNG.normal(size=n % 4 + 2) for n in range(20)]
        file.create_dataset("other/x", data=uneven, dtype=h5py.vlen_dtype("f8"))
        file["none/x"] = h5py.Empty("f4")
    for key in ("run/x", "/run/x", "run", "run/"):
        assert data.load(config(f"h5:{path}:{key}")).x_shape == (4,)
    assert data.load(config(f"h5:{path}:other")).x_shape == (5, 1)  # sequences of one column
    fails("no array at '/' and the groups none, other, run; name one", f"h5:{path}")
    fails("'/none/x' is empty", f"h5:{path}:none")


@pytest.mark.parametrize("limit", [0, 2048])
def test_each_shard_may_name_its_columns(tmp_path, limit):
    x = RNG.normal(size=(60, 2))
    for number, names in enumerate((["a", "b"], ["a", "b"], ["a", "bcd"])):
        np.savez(tmp_path / f"part-{number}.npz", x=x[number::3], columns=np.array(names))
    changes = {"device_limit_mb": limit}
    fails("names its columns a, bcd, where part-0.npz has a, b", f"npz:{tmp_path}", **changes)
    (tmp_path / "part-2.npz").unlink()
    assert data.load(config(f"npz:{tmp_path}", **changes)).table.names == ("a", "b")


def test_shards_of_a_single_number_are_refused(tmp_path):
    for number in range(2):
        np.save(tmp_path / f"x-{number}.npy", np.float32(number))
    fails("'x' as a single number, where shards are wanted as arrays", f"npz:{tmp_path}")


def test_a_file_that_is_no_image_is_told_without_pythons_objects(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    fails("a.png cannot be read as PNG or JPEG .it begins as neither does.", f"images:{tmp_path}")


def test_labels_of_texts_are_told_how_to_be_numbers(tmp_path):
    name = npz(tmp_path, x=RNG.normal(size=(60, 3)), y=np.array(["a", "b"] * 30))
    fails("np.unique.y, return_inverse=True..1.", name)


def test_a_zip_that_holds_an_array_twice_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", RNG.normal(size=(60, 3)))
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as file:
        file.write(tmp_path / "x.npy", "x.npy")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.write(tmp_path / "x.npy", "x.npy")
    fails("holds 2 arrays 'x', where one was wanted", f"npz:{tmp_path / 'mine.npz'}")


def test_parquet_that_is_damaged_or_names_a_column_twice_is_told_in_a_line(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = arrow.array(RNG.normal(size=60))
    path = tmp_path / "mine.parquet"
    parquet.write_table(arrow.Table.from_arrays([column, column], names=["a", "a"]), path)
    fails("has two columns 'a'", f"parquet:{path}")
    parquet.write_table(arrow.table({"a": column}), path)
    content = bytearray(path.read_bytes())
    content[20:60] = bytes([255]) * 40
    path.write_bytes(bytes(content))
    fails("cannot be read as Parquet", f"parquet:{path}")
