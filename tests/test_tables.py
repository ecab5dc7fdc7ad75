"""experiments.data: tables, what their columns are taken for, and what is done to them."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments import data
from experiments.data import columns, filled, kinds, options, raw, splits
from experiments.data.base import Source
from experiments.data.columns import Column, Table

RNG = np.random.default_rng(0)
GAUSSIAN = RNG.normal(3.0, 2.0, 400)


def config(name, **changes):
    values = dict(data_dir="", train="", validation="auto", test="", shuffle_seed=0)
    values |= dict(binarisation="none", static_seed=0, device_limit_mb=2048)
    return SimpleNamespace(name=name, **(values | changes))


def npz(folder, **arrays):
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return f"npz:{path}"


def csv(folder, text):
    path = folder / "mine.csv"
    path.write_text(text)
    return f"csv:{path}"


def fails(match, name, **changes):
    """Asserts that loading is a DataError of one line that matches."""
    with pytest.raises(data.DataError, match=match) as caught:
        data.load(config(name, **changes))
    assert "\n" not in str(caught.value)


def num_missing(dataset):
    parts = (dataset.train, dataset.validation, dataset.test)
    return sum(int((~part.x["observed"]).sum()) for part in parts)


def column_of(values, **changes):
    """What one column of numbers is taken for."""
    values = np.asarray(values, float)
    seen = kinds.look("x", values, [values], None)
    return kinds.guess(seen, changes.get("positive", "linear"))[0]


# --- what a column is taken for
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (GAUSSIAN, "gaussian"),
        (np.exp(GAUSSIAN), "gaussian"),
        (RNG.integers(0, 2, 400), "bernoulli"),
        (RNG.integers(1, 3, 400), "bernoulli"),
        (RNG.poisson(3.0, 400), "poisson"),
        (RNG.poisson(100.0, 400), "poisson"),
        (RNG.negative_binomial(1, 0.1, 400), "negative_binomial"),
        (np.clip(np.rint(RNG.normal(5.6, 0.8, 400)), 3, 8), "ordinal"),
        (RNG.integers(-2, 3, 400), "ordinal"),
        (RNG.integers(1970, 2020, 400), "gaussian"),
        (RNG.integers(-500, 500, 400), "gaussian"),
    ],
)
def test_a_column_is_taken_for(values, kind):
    assert column_of(values) == kind


def test_positive_reals_are_taken_by_their_logarithm_where_asked():
    assert column_of(np.exp(GAUSSIAN), positive="log") == "log_normal"
    assert column_of(GAUSSIAN, positive="log") == "gaussian"  # some are negative


def test_integers_up_to_eleven_are_counts_and_no_pixels(tmp_path):
    got = data.load(config(npz(tmp_path, x=RNG.poisson(3.0, (500, 4)))))
    assert got.table.kinds == ("poisson",) * 4
    assert any("variance" in line for line in got.report)


@pytest.mark.parametrize(
    ("array", "is_table"),
    [
        (RNG.integers(0, 256, (20, 6), dtype=np.uint8), False),
        (RNG.random((20, 6)), False),
        (RNG.random((20, 6)) > 0.5, False),
        (RNG.random((20, 6)) * 1.01, True),
        (RNG.integers(0, 12, (20, 6)), True),
        (np.where(RNG.random((20, 6)) > 0.5, RNG.random((20, 6)), np.nan), True),
    ],
)
def test_a_matrix_is_of_pixels_only_where_it_can_be(tmp_path, array, is_table):
    name = npz(tmp_path, x=array)
    assert (data.load(config(name)).table is not None) == is_table
    assert data.load(config(name, kind="table")).table is not None


def test_images_asked_for_as_a_table_have_a_column_for_each_pixel():
    got = data.load(config("digits", kind="table"))
    assert len(got.table.columns) == 61  # of 64, which vary
    assert got.train.x["values"].shape == (1257, 61)


# --- kinds by the user
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", ()),
        ("poisson", (("*", "poisson"),)),
        ("age=poisson, sex=bernoulli", (("age", "poisson"), ("sex", "bernoulli"))),
        ("a, b=c=ordinal,x*=drop", (("a, b=c", "ordinal"), ("x*", "drop"))),
    ],
)
def test_kinds_are_read(text, pairs):
    assert options.parse_kinds(text) == pairs


@pytest.mark.parametrize("text", ["age", "age=", "age=poison", "age=poisson,sex"])
def test_kinds_that_are_none_are_refused(text):
    with pytest.raises(data.DataError, match="NAME=KIND"):
        options.parse_kinds(text)


def test_a_columns_own_name_counts_before_a_pattern(tmp_path):
    name = npz(tmp_path, x=RNG.poisson(3.0, (500, 3)))
    got = data.load(config(name, kinds="x1=gaussian,*=negative_binomial"))
    assert got.table.kinds == ("negative_binomial", "gaussian", "negative_binomial")


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("poisson", "counts are whole"),
        ("log_normal", "positive numbers"),
        ("categorical", "classes are"),
        ("bernoulli", "classes are"),
    ],
)
def test_a_kind_that_a_column_cannot_be_is_refused(tmp_path, kind, match):
    fails(match, npz(tmp_path, x=GAUSSIAN[:, None] * [1, 2]), kinds=f"x0={kind}")


def test_a_field_that_names_no_column_is_refused(tmp_path):
    name = csv(tmp_path, "age,sex\n" + "1.5,m\n2.5,f\n" * 10)
    for field in ("label_column", "id_column", "exposure", "covariates"):
        fails("Did you mean 'age'", name, **{field: "aeg"})
    fails("Did you mean 'age'", name, kinds="aeg=gaussian")


# --- values
# -------------------------------------------------------------------------------------------------


def all_kinds():
    """A row of a table for each kind, in the data's units, and the table."""
    made = [
        Column("a", "gaussian", "", loc=3.0, scale=2.0, sd=2.0),
        Column("b", "student_t", "", loc=-1.0, scale=0.5, sd=0.5),
        Column("c", "log_normal", "", loc=1.2, scale=0.7, sd=4.0),
        Column("d", "negative_binomial", ""),
        Column("e", "ordinal", "", ("1", "2", "3")),
    ]
    return np.array([[4.0, 0.25, 9.0, 7.0, 2.0]]), Table(tuple(made))


def test_values_go_to_the_model_and_back():
    x, table = all_kinds()
    observed = np.ones_like(x, bool)
    values = table.to_model(x, observed)
    np.testing.assert_allclose(values, [[0.5, 2.5, 9.0 / np.exp(1.2), 7.0, 2.0]], rtol=1e-6)
    np.testing.assert_allclose(table.to_data(values), x, rtol=1e-6)
    hidden = observed.copy()
    hidden[0, 2] = False
    assert table.to_model(x, hidden)[0, 2] == 0.0


def test_the_jacobian_is_that_of_the_transform():
    """By finite differences of `to_model`, in float64: the column that is hidden does not count."""
    x, table = all_kinds()
    observed = np.array([[True, True, True, True, True], [True, False, True, True, True]])
    step = 1e-2
    after = table.to_model(x + step, np.ones_like(x, bool))
    slopes = (after - table.to_model(x, np.ones_like(x, bool)))[0, :3] / step
    expected = [-np.log(slopes).sum(), -np.log(slopes[[0, 2]]).sum()]
    np.testing.assert_allclose(table.log_jacobian(observed), expected, rtol=1e-3)
    np.testing.assert_allclose(
        table.log_standard(observed), np.log([2.0 * 0.5 * 4.0, 2.0 * 4.0]), rtol=1e-12
    )


def test_log_p_in_the_datas_units_is_that_of_scipy():
    """A standard normal of the model's values, and a log-normal, against their densities of x."""
    from scipy import stats

    x, table = all_kinds()
    table = table._replace(columns=(table.columns[0], table.columns[2]))
    x = x[:, [0, 2]]
    observed = np.ones_like(x, bool)
    values = table.to_model(x, observed).astype(float)
    log_p = stats.norm.logpdf(values[:, 0]) + stats.lognorm.logpdf(values[:, 1], s=0.7)
    expected = stats.norm.logpdf(x[:, 0], 3.0, 2.0)
    expected += stats.lognorm.logpdf(x[:, 1], s=0.7, scale=np.exp(1.2))
    np.testing.assert_allclose(log_p - table.log_jacobian(observed), expected, rtol=1e-6)


def test_a_table_is_written_as_json_and_read_again():
    _, table = all_kinds()
    table = table._replace(covariates=(columns.Covariate("batch", ("1", "2")),), exposure="total")
    assert columns.from_json(table.to_json()) == table


def test_reals_are_standardised_by_the_training_rows_alone(tmp_path):
    train = RNG.normal(5.0, 3.0, (300, 4))
    test = RNG.normal(9.0, 1.0, (100, 4))
    got = data.load(config(npz(tmp_path, x_train=train, x_test=test)))
    values = got.train.x["values"]
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.mean(0), 0.0, atol=1e-6)
    np.testing.assert_allclose(values.std(0), 1.0, rtol=1e-6)
    back = got.table.to_data(got.test.x["values"])
    np.testing.assert_allclose(back, test, rtol=1e-5)


def test_large_offsets_are_taken_off_in_float64(tmp_path):
    array = 1e9 + RNG.normal(size=(200, 2))
    got = data.load(config(npz(tmp_path, x_train=array, x_test=array)))
    np.testing.assert_allclose(got.train.x["values"].std(0), 1.0, rtol=1e-5)


# --- missing, constant, repeated
# -------------------------------------------------------------------------------------------------


def test_missing_values_are_marked_and_their_values_are_nothing(tmp_path):
    array = RNG.normal(size=(200, 3))
    array[::7, 1] = np.nan
    array[::5, 2] = -999
    got = data.load(config(npz(tmp_path, x_train=array, x_test=array), sentinel="-999"))
    expected = np.stack([np.ones(200, bool), ~np.isnan(array[:, 1]), array[:, 2] != -999], 1)
    np.testing.assert_array_equal(got.train.x["observed"], expected)
    assert not got.train.x["values"][~expected].any()
    assert np.isfinite(got.train.x["values"]).all()
    seen = array[expected[:, 2], 2]
    assert got.table.columns[2].loc == pytest.approx(seen.mean())
    assert any(line.startswith("missing: 11.5 %") for line in got.report)


def test_constant_columns_are_left_out_aloud_unless_they_are_named(tmp_path):
    array = np.c_[GAUSSIAN, np.full(400, 7.0), np.full(400, np.nan)]
    name = npz(tmp_path, x=array)
    got = data.load(config(name))
    assert got.table.names == ("x0",)
    (line,) = [line for line in got.report if line.startswith("left out")]
    assert "'x1' (constant, 7)" in line
    assert "'x2' (no training row has it)" in line
    assert data.load(config(name, kinds="x1=gaussian")).table.names == ("x0", "x1")


def test_rows_of_train_in_test_are_counted(tmp_path):
    train = RNG.normal(size=(50, 3))
    test = RNG.normal(size=(20, 3))
    train[10] = train[3]
    test[:4] = train[:4]
    got = data.load(config(npz(tmp_path, x_train=train, x_test=test)))
    (line,) = [line for line in got.report if line.startswith("duplicates")]
    assert line == "duplicates: 1 of train repeat another, 4 of test are in train"


def test_an_infinite_value_is_refused(tmp_path):
    array = RNG.normal(size=(50, 3))
    array[4, 1] = -np.inf
    fails("'x1' holds -inf", npz(tmp_path, x=array))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.where(np.arange(60)[:, None] == 59, x + 0.1, x),
        lambda x: x[::-1],
        lambda x: np.where((np.arange(60)[:, None] == 8) & (np.arange(3) == 1), np.nan, x),
    ],
)
def test_the_fingerprint_changes_with_the_values_and_their_order(tmp_path, change):
    x = RNG.normal(size=(60, 3))
    first = data.load(config(npz(tmp_path, x=x))).fingerprint
    assert data.load(config(npz(tmp_path, x=x))).fingerprint == first
    assert data.load(config(npz(tmp_path, x=change(x)))).fingerprint != first


# --- what is beside the values
# -------------------------------------------------------------------------------------------------


def test_ids_labels_exposure_and_covariates(tmp_path):
    rows = RNG.poisson(4.0, (60, 2)) + 1
    lines = [f"r{i},{a},{b},{'ab'[i % 2]},{'xyz'[i % 3]},{i / 7}" for i, (a, b) in enumerate(rows)]
    name = csv(tmp_path, "id,g1,g2,batch,type,dose\n" + "\n".join(lines) + "\n")
    got = data.load(
        config(
            name, label_column="type", exposure="total", covariates="batch,dose", kinds="poisson"
        )
    )
    order = np.array([int(each[1:]) for each in got.train.ids])
    assert got.table.names == ("g1", "g2")
    np.testing.assert_array_equal(got.train.labels, order % 3)
    np.testing.assert_array_equal(got.train.x["values"], rows[order])
    total = rows[order].sum(1)
    np.testing.assert_allclose(got.train.x["exposure"], total / total.mean(), rtol=1e-6)
    batch = np.eye(2)[order % 2]
    dose = (order - order.mean()) / order.std()
    np.testing.assert_allclose(got.train.x["covariates"], np.c_[batch, dose], rtol=1e-5, atol=1e-6)
    assert got.table.num_covariates == 3


def test_rows_without_any_count_have_no_exposure(tmp_path):
    rows = RNG.poisson(4.0, (60, 2))
    rows[5] = 0
    fails("not above 0 in 1", npz(tmp_path, x_train=rows, x_test=rows), exposure="total")


# --- csv and Parquet
# -------------------------------------------------------------------------------------------------


def test_csv_of_many_kinds(tmp_path):
    lines = ['"name, given";height;visits;smokes;grade;when']
    for i in range(44):
        height = "" if i == 3 else f"{150.25 + i / 4}"
        grade = "NA" if i == 5 else "abc"[i % 3]
        lines.append(f'"a;{i % 4}";{height};{i % 7};{i % 2 == 0};{grade};d{i}')
    name = csv(tmp_path, "\n".join(lines))
    got = data.load(config(name, train="all[:40]", test="all[40:]"))
    expected = {
        "name, given": ("categorical", ("a;0", "a;1", "a;2", "a;3")),
        "height": ("gaussian", ()),
        "visits": ("poisson", ()),
        "smokes": ("bernoulli", ("0", "1")),
        "grade": ("categorical", ("a", "b", "c")),
    }
    assert {each.name: (each.kind, each.levels) for each in got.table.columns} == expected
    assert any("'when' (44 different texts" in line for line in got.report)
    # the rows, in the order of the file
    order = np.random.default_rng(0).permutation(44)[:40]
    observed = np.ones((40, 5), bool)
    observed[order == 3, 1] = False
    observed[order == 5, 4] = False
    np.testing.assert_array_equal(got.train.x["observed"], observed)
    back = got.table.to_data(got.train.x["values"])
    i = order[:, None]
    wanted = np.concatenate([i % 4, 150.25 + i / 4, i % 7, i % 2 == 0, i % 3], axis=1)
    np.testing.assert_allclose(back[observed], wanted[observed], rtol=1e-6)


@pytest.mark.integration
def test_a_column_that_turns_to_text_after_the_first_block_is_text(tmp_path):
    """Arrow guesses types from the first megabyte."""
    rows = [f"{i},{i % 7}" for i in range(150_000)] + ["x,3"]
    got = data.load(config(csv(tmp_path, "a,b\n" + "\n".join(rows)), kinds="a=drop"))
    assert got.table.names == ("b",)
    rows = [f"{i % 9},1" for i in range(150_000)] + ["2.5,3"]
    got = data.load(config(csv(tmp_path, "a,b\n" + "\n".join(rows))))
    assert got.table.kinds[0] == "gaussian"


def test_a_csv_without_header_says_so(tmp_path, capsys):
    got = data.load(config(csv(tmp_path, "1.5,2.25\n" * 3 + "2.5,3.25\n" * 30)))
    assert got.table.names == ("x0", "x1")
    assert got.train.num + got.validation.num + got.test.num == 33
    assert "no header" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "begins with an empty line"),
        ("a,b\n", "no rows below its header"),
        ("a,a\n1,2\n", "two columns 'a'"),
        ("a,b\n1,2\n1\n", "cannot be read as a csv"),
        ("a,b\n1,1\n1,1\n" * 1 + "1,1\n" * 20, "no column that varies"),
    ],
)
def test_a_csv_that_will_not_do(tmp_path, text, match):
    fails(match, csv(tmp_path, text))


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "mine.parquet"
    values = RNG.normal(size=50)
    texts = ["ab"[i % 2] if i != 7 else None for i in range(50)]
    parquet.write_table(arrow.table({"x": values, "t": texts, "n": RNG.poisson(3.0, 50)}), path)
    got = data.load(config(f"parquet:{path}", train="all[:40]", test="all[40:]", kinds="n=poisson"))
    assert got.table.kinds == ("gaussian", "bernoulli", "poisson")
    path.write_bytes(path.read_bytes()[:100])
    fails("cannot be read as Parquet", f"parquet:{path}")


# --- arrays under names: npz, HDF5, functions
# -------------------------------------------------------------------------------------------------


def test_npz_names_its_columns(tmp_path):
    arrays = dict(x=RNG.normal(size=(40, 2)), columns=np.array(["height", "weight"]))
    assert data.load(config(npz(tmp_path, **arrays))).table.names == ("height", "weight")
    fails("2 columns and 1 names", npz(tmp_path, x=arrays["x"], columns=np.array(["height"])))


def test_npz_of_columns_is_a_table(tmp_path):
    sex = np.array(["m", "f", "f", ""] * 10)
    arrays = dict(height=RNG.normal(size=40), sex=sex, age=np.arange(40) % 5)
    got = data.load(config(npz(tmp_path, **arrays)))
    assert got.table.names == ("height", "sex", "age")
    assert got.table.kinds == ("gaussian", "bernoulli", "poisson")
    assert num_missing(got) == 10
    fails("rename its arrays", npz(tmp_path, height=np.arange(3), sex=np.arange(4)))


def test_nothing_pickled_is_loaded(tmp_path):
    fails("no plain array", npz(tmp_path, a=np.array([{}, None]), b=np.arange(2)))


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "mine.h5"
    x = RNG.normal(size=(40, 2))
    with h5py.File(path, "w") as file:
        file["deep/x_train"] = x
        file["deep/x_test"] = x[:5]
        file["deep/columns"] = ["a", "b"]
        file["sets/x"] = x
        file["elsewhere"] = h5py.ExternalLink("other.h5", "x")
    got = data.load(config(f"h5:{path}:deep"))
    assert (got.table.names, got.train.num, got.test.num) == (("a", "b"), 40, 5)
    assert data.load(config(f"h5:{path}:sets/x")).train.num == 32
    assert data.load(config(f"h5:{path}:sets")).train.num == 32
    fails("nothing at 'deep/y'", f"h5:{path}:deep/y")
    fails("nothing at 'elsewhere'", f"h5:{path}:elsewhere")
    path.write_bytes(path.read_bytes()[:90])
    fails("cannot be read as HDF5", f"h5:{path}:deep")


def test_a_function_of_ones_own_gives_columns_or_an_array_with_nan(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\n"
        "def columns():\n"
        "    return {'a': np.linspace(0.5, 9.5, 40), 'b': ['x', 'y', None, 'x'] * 10}\n"
        "def array():\n"
        "    x = np.linspace(1, 9, 120).reshape(40, 3)\n"
        "    return {'x': np.where(np.eye(40, 3) > 0, np.nan, x)}\n"
    )
    got = data.load(config(f"{path}:columns"))
    assert got.table.kinds == ("gaussian", "bernoulli")
    assert num_missing(data.load(config(f"{path}:array"))) == 3


# --- splits
# -------------------------------------------------------------------------------------------------


def source(*names, usual=None):
    return Source(names, None, "the data", usual)


def chosen(texts, source):
    return {role: each.text for role, each in splits.choose(texts, source).items()}


AUTO = dict(train="auto", validation="auto", test="auto")


@pytest.mark.parametrize(
    ("texts", "source", "expected"),
    [
        (AUTO, source("all"), dict(train="all[:80%]", validation="all[80%:90%]", test="all[90%:]")),
        (
            AUTO,
            source("train"),
            dict(train="train[:80%]", validation="train[80%:90%]", test="train[90%:]"),
        ),
        (AUTO, source("train", "test"), dict(train="train", test="test")),
        (
            AUTO,
            source("train", "validation", "test"),
            dict(train="train", validation="validation", test="test"),
        ),
        (
            AUTO,
            source("all", usual=("all[:5]", "all[5:7]", "all[7:]")),
            dict(train="all[:5]", validation="all[5:7]", test="all[7:]"),
        ),
        (AUTO | dict(validation=""), source("all"), dict(train="all[:80%]", test="all[90%:]")),
        (
            dict(train="", validation="", test=""),
            source("train", "test"),
            dict(train="train", test="test"),
        ),
        (
            AUTO | dict(test="test[:9]"),
            source("train", "test"),
            dict(train="train", test="test[:9]"),
        ),
    ],
)
def test_splits_that_are_not_given_follow_the_data(texts, source, expected):
    assert chosen(texts, source) == expected


def test_a_source_without_a_test_split_asks_for_one():
    with pytest.raises(data.DataError, match=r"config.data.test='auto' follows the data set"):
        chosen(AUTO, source("train", "extra"))


def test_automatic_splits_of_one_are_shuffled_and_apart(tmp_path):
    x = np.arange(50.0)[:, None] + 0.25 + np.zeros((1, 2))
    got = data.load(config(npz(tmp_path, x_train=x)))
    back = [
        got.table.to_data(part.x["values"])[:, 0] for part in (got.train, got.validation, got.test)
    ]
    assert [len(part) for part in back] == [40, 5, 5]
    np.testing.assert_allclose(np.sort(np.concatenate(back)), x[:, 0], rtol=1e-5)
    assert not np.array_equal(back[0], np.sort(back[0]))


def test_what_is_found_some_rows_at_a_time_is_what_is_found_by_column():
    """Kinds, means and scales are those of the training rows alone; codes and ranges of all."""
    rng = np.random.default_rng(0)
    each = [
        rng.normal(size=5000),
        rng.poisson(20.0, 5000),
        rng.random(5000) < np.linspace(0.1, 0.9, 5000),
        np.arange(5000) // 1700 + 3,
    ]
    rows = np.stack(each, axis=1).astype(np.float64)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    names = ("real", "count", "binary", "grade")
    table = raw.of_rows(rows, names)
    parts = {"train": (table, np.arange(3000)), "test": (table, np.arange(3000, 5000))}
    given = options.Options(kinds=(("grade", "ordinal"),))
    found = filled.by_rows(parts, names, given)
    expected = filled.by_column(parts, names, given)
    assert [column.kind for column in found.columns] == [c.kind for c in expected.columns]
    assert [column.levels for column in found.columns] == [c.levels for c in expected.columns]
    for one, other in zip(found.columns, expected.columns, strict=True):
        numbers = (one.loc, one.scale, one.sd, one.mean)
        np.testing.assert_allclose(numbers, (other.loc, other.scale, other.sd, other.mean))
    binary = rows[:3000, 2]
    assert found.columns[2].mean == pytest.approx(np.nanmean(binary))
    assert (found.ranges, found.missing) == (expected.ranges, expected.missing)
    for role, leaves in expected.x.items():
        for name, leaf in leaves.items():
            np.testing.assert_allclose(found.x[role][name], leaf, atol=1e-6)
