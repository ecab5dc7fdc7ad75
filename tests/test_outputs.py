"""What comes out of a trained run: latents and anomaly scores by row, as arrays and as CSV."""

import csv
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, tree_equal

import vi_jax as vi
from configs import table as table_config
from experiments.cli import UserError
from experiments.data import StoredTable, load, stored_tables
from experiments.data.base import Split
from experiments.data.columns import Column, Covariate, Table
from experiments.data.raw import RawTable
from experiments.evals import encoded, encoding, evidence, filled_in, imputing, tables
from experiments.evals.csv_file import write_csv
from experiments.evals.data_columns import as_columns, context_columns
from experiments.run import memory, record, session
from experiments.run.kinds import require_imputable
from vi_jax.models.table_vae import Column as ModelColumn
from vi_jax.models.table_vae import table_vae

pytest_plugins = ("command_helpers",)


def read_csv(path):
    """{column: its fields} of a file."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return {name: [row[d] for row in rows] for d, name in enumerate(header)}


# --- files


def test_a_csv_file_holds_what_was_written(tmp_path):
    columns = {
        "id": np.array(["a", "b,c", 'said "d"', "e\nf"]),
        "x": np.array([0.1, np.nan, -1e-30, 3.0], np.float32),
        "y": np.array([0.1, 1 / 3, 1e300, -0.0]),
        "n": np.array([1, -2, 2**62, 0]),
    }
    write_csv(tmp_path / "a.csv", columns)
    found = read_csv(tmp_path / "a.csv")
    assert list(found) == list(columns)
    assert found["id"] == columns["id"].tolist()
    assert found["n"] == [str(n) for n in columns["n"]]
    assert found["x"][:2] == ["0.1", ""]
    assert [float(y) for y in found["y"]] == columns["y"].tolist()


def test_a_csv_file_of_many_rows_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.evals.csv_file.ROWS", 7)
    write_csv(tmp_path / "a.csv", {"n": np.arange(30)})
    assert read_csv(tmp_path / "a.csv")["n"] == [str(n) for n in range(30)]


def test_a_csv_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    write_csv(path, {"n": np.arange(3)})
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_csv(path, {"n": np.arange(9)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_columns_of_a_csv_file_are_of_one_length(tmp_path):
    with pytest.raises(ValueError, match="columns of one length"):
        write_csv(tmp_path / "a.csv", {"a": np.ones(2), "b": np.ones(3)})


# --- latents


class Unstated:
    """A guide that states no moments."""

    def __init__(self, q):
        self.sample = q.sample


def test_moments_are_the_guides_own():
    q = dist.Normal(jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])).to_event(1)
    found = encoding.moments_of(jax.random.key(0), q)
    np.testing.assert_array_equal(found.mean["z"], [1.0, -2.0])
    np.testing.assert_allclose(found.sd["z"], [0.5, 3.0], rtol=1e-6)


def test_moments_that_are_not_stated_are_of_samples(monkeypatch):
    monkeypatch.setattr(encoding, "NUM_SAMPLES", 20_000)
    q = dist.Normal(jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])).to_event(1)
    found = encoding.moments_of(jax.random.key(0), Unstated(q))
    z = q.sample(jax.random.key(0), (20_000,))
    assert_mean(z, found.mean["z"])
    np.testing.assert_allclose(found.sd["z"], [0.5, 3.0], rtol=5 / (2 * 20_000) ** 0.5)


def test_each_latent_of_each_site_is_two_columns():
    leaf = np.arange(12.0).reshape(2, 2, 3)
    latents = encoded.Latents({"a": leaf, "b": leaf[:, 0, 0]}, {"a": -leaf, "b": -leaf[:, 0, 0]})
    found = dict(encoded.latent_columns(latents))
    assert len(found) == 14
    assert list(found)[:3] == ["a_0_0_mean", "a_0_0_sd", "a_0_1_mean"]
    np.testing.assert_array_equal(found["a_1_2_mean"], [5.0, 11.0])
    np.testing.assert_array_equal(found["b_sd"], [0.0, -6.0])


DATASET = SimpleNamespace(
    train=Split(np.zeros((3, 2)), np.array([1, 0, 1])),
    validation=None,
    test=Split(np.zeros((2, 2)), np.array([0, 0])),
)


def test_rows_are_those_of_the_splits_in_turn():
    assert encoding.splits_of(DATASET, "all") == ("train", "test")
    rows = encoding.rows_of(DATASET, ("train", "test"))
    assert rows.split.tolist() == ["train"] * 3 + ["test"] * 2
    assert rows.row.tolist() == [0, 1, 2, 0, 1]
    assert rows.label.tolist() == [1, 0, 1, 0, 0]


def test_a_split_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="--split=validation is none of train, test and all"):
        encoding.splits_of(DATASET, "validation")


def test_a_split_beyond_the_memory_is_refused(monkeypatch):
    """48 bytes of float64 numbers, or of pixels that become four times as much."""
    for size, table, fits in ((48, Table(()), True), (47, Table(()), False), (191, None, False)):
        hand = memory.AtHand(size, "the machine")
        monkeypatch.setattr(memory, "at_hand", lambda hand=hand: hand)
        dataset = SimpleNamespace(train=DATASET.train, table=table)
        if fits:
            encoding.require_memory(dataset, ("train",))
            continue
        with pytest.raises(UserError, match="the train split takes"):
            encoding.require_memory(dataset, ("train",))


# --- scores


def test_the_standard_error_is_that_of_the_mean_weight():
    """Over the mean; weights of e^-400 as well, of which float32 has none."""
    w = np.random.default_rng(0).gamma(0.7, size=(6, 50))
    expected = w.std(1, ddof=1) / 50**0.5 / w.mean(1)
    for shift in (0.0, -400.0):
        total = np.log(w.sum(1)) + shift
        squares = np.log((w**2).sum(1)) + 2 * shift
        found = evidence.relative_stderr(total, squares, 50)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert np.isnan(evidence.relative_stderr(total, squares, 1)).all()
    np.testing.assert_array_equal(evidence.relative_stderr(np.log([2.0]), np.log([2.0]), 2), 0.0)


# --- tables in the data's own columns and units


def test_rows_are_shown_in_the_datas_units():
    table = Table(
        (
            Column("height", "gaussian", "", loc=170.0, scale=10.0),
            Column("year", "gaussian", "", loc=1e9, scale=1.0),
            Column("small", "gaussian", "", loc=0.0, scale=1e-12),
            Column("income", "log_normal", "", loc=3.0, scale=0.5),
            Column("visits", "poisson", ""),
            Column("town", "categorical", "", ("Kyiv", "Oslo", "Rome")),
        )
    )
    values = np.array([[0.1, 0.25, -3.0, 2.0, 4.0, 1.0], [-1.0, 0.5, 1 / 3, 0.5, 0.0, 2.0]])
    found = as_columns(table, table.to_data(values.astype(np.float32)))
    assert found["height"].tolist() == [171.0, 160.0]
    assert found["year"].tolist() == [1e9 + 0.25, 1e9 + 0.5]
    np.testing.assert_allclose(found["small"], [-3e-12, 1e-12 / 3], rtol=1e-6)
    np.testing.assert_allclose(found["income"], np.exp(3.0) * np.array([2.0, 0.5]), rtol=1e-6)
    assert found["visits"].dtype == np.int64
    assert found["town"].tolist() == ["Oslo", "Rome"]


def test_what_rows_are_given_is_shown_in_the_datas_units():
    covariates = (Covariate("batch", ("a", "b")), Covariate("dose", (), 5.0, 2.0))
    table = Table((), "total", 40.0, covariates)
    x = {
        "exposure": np.array([0.5, 2.0, 1.0], np.float32),
        "covariates": np.array([[1, 0, 0.5], [0, 1, -1], [0, 0, 0]], np.float32),
    }
    found = context_columns(table, x)
    assert found["batch"].tolist() == ["a", "b", ""]
    assert found["dose"].tolist() == [6.0, 3.0, 5.0]
    assert "total" not in found
    found = context_columns(table._replace(exposure="library"), x)
    assert found["library"].tolist() == [20.0, 80.0, 40.0]


def test_scores_of_a_table_rank_in_standard_deviations():
    """Rows that lack different columns rank alike in metres and in kilometres."""
    log_p = np.array([-1.0, -2.0])
    observed = np.array([[True, False], [True, True]])
    found = []
    for unit in (1.0, 1000.0):
        columns = [Column(name, "gaussian", "", scale=3.0 * unit, sd=3.0 * unit) for name in "ab"]
        table = Table(tuple(columns))
        found.append(encoded.minus_log_p(log_p, table, observed))
    for metres in found:
        np.testing.assert_allclose(metres["minus_log_p"], [1.0, 2.0])
    extra = found[1]["minus_log_p_data_units"] - found[0]["minus_log_p_data_units"]
    np.testing.assert_allclose(extra, np.log(1000.0) * np.array([1.0, 2.0]))


def test_only_columns_that_have_an_order_are_correlated():
    table = Table(
        (
            Column("x", "gaussian", ""),
            Column("town", "categorical", "", ("a", "b", "c")),
            Column("n", "poisson", ""),
            Column("w", "log_normal", ""),
            Column("yes", "bernoulli", "", ("0", "1")),
        )
    )
    data = np.array([[1.0, 2.0, 3.0, np.e, 0.0], [2.0, 0.0, np.nan, 1.0, 1.0]])
    found, names = tables.comparable(table, data)
    assert names == ["x", "log(1 + n)", "log w", "yes"]
    expected = [[1.0, np.log(4.0), 1.0, 0.0], [2.0, np.nan, 0.0, 1.0]]
    np.testing.assert_allclose(found, expected)


# --- imputation


CELLS = """name,height,visits,town,smoker,constant,note,level
ann,170.5,3,Oslo,yes,1,x1,2
bob,,0,Rome,no,1,x2,3
cy,181.25,,Oslo,,1,,1
dee,165.0,2,,yes,1,x4,
"""


def write_cells(path, copies=12):
    """A table of mixed columns with missing entries, CELLS so many times under other names."""
    header, *rows = CELLS.splitlines()
    more = [f"{i}{row}" for i in range(copies) for row in rows]
    path.write_text("\n".join([header, *more]) + "\n")
    return path


def data_of(path, **fields):
    config = table_config.get_config()
    with config.unlocked():
        config.data.update(
            name=f"csv:{path}", id_column="name", kinds="level=ordinal,visits=poisson", **fields
        )
    return config.data


def entries_of(dataset, names):
    """Each missing entry of some splits: 7.25, of classes the second level."""
    observed = np.concatenate([getattr(dataset, name).x["observed"] for name in names])
    row, column = np.nonzero(~observed)
    numbers = {name: np.full(len(row), 7.25) for name in imputing.Entries._fields}
    code = np.ones(len(row), int)
    own = {"row": row, "column": column, "code": code, "draws": np.full((len(row), 3), 7.25)}
    return imputing.Entries(**{**numbers, **own})


def test_a_model_that_cannot_impute_says_what_it_lacks():
    """One of the user's own, whose p(x | z) is a normal distribution over arrays."""
    model = table_vae([ModelColumn("gaussian")], num_latents=1, hidden=(2,))
    x = {"values": np.zeros((2, 1), np.float32), "observed": np.ones((2, 1), bool)}
    require_imputable(model, x)
    own = model._replace(
        densities=model.densities._replace(decode=lambda params, x, z: dist.Normal(z, 1.0))
    )
    with pytest.raises(UserError, match="no probs and no samples that are examples") as caught:
        require_imputable(own, x)
    assert "\n" not in str(caught.value)


def test_an_imputed_table_is_the_table_as_it_came(tmp_path):
    """Order, ids and columns that no model is of included; only what is missing is filled in."""
    path = write_cells(tmp_path / "cells.csv")
    data = data_of(path)
    dataset = load(data)
    names = ("train", "validation", "test")
    entries = entries_of(dataset, names)
    rows = encoding.rows_of(dataset, names)
    filled_in.write(tmp_path, dataset.table, stored_tables(data), rows, entries)
    before = read_csv(path)
    after = read_csv(tmp_path / "imputed.csv")
    assert list(after) == list(before)
    filled = {"height": "7.25", "visits": "7", "town": "Rome", "smoker": "yes"}
    filled |= {"note": "x2", "level": "2"}
    for name, column in before.items():
        for old, new in zip(column, after[name], strict=True):
            expected = old or filled.get(name, "")
            is_number = name in ("height", "visits", "level", "constant")
            assert (float(new) == float(expected)) if is_number else (new == expected), name
    # a row for each of them, in the order of the table
    intervals = read_csv(tmp_path / "intervals.csv")
    assert list(map(int, intervals["row"])) == sorted(map(int, intervals["row"]))
    missing = [(i, name) for name in filled for i, old in enumerate(before[name]) if not old]
    found = zip(map(int, intervals["row"]), intervals["column"], strict=True)
    assert sorted(found) == sorted(missing)
    for row, name, id_, value in zip(
        *(intervals[key] for key in ("row", "column", "id", "filled")), strict=True
    ):
        assert before["name"][int(row)] == id_
        assert value == filled[name]
    with np.load(tmp_path / "draws.npz") as arrays:
        assert arrays["draws"].shape == (3, len(missing))
        names_of = arrays["names"][arrays["column"]]
        assert sorted(zip(arrays["row"].tolist(), names_of.tolist(), strict=True)) == sorted(
            missing
        )
        assert arrays["levels/town"].tolist() == ["Oslo", "Rome"]


def test_classes_of_long_numbers_keep_their_digits(tmp_path):
    """Article numbers of seven digits, of which one is missing."""
    lines = [f"{i},{1234567 + i % 2},{i % 7}" for i in range(60)]
    lines[3] = "3,,3"
    path = tmp_path / "articles.csv"
    path.write_text("\n".join(["name,article,n", *lines]) + "\n")
    data = table_config.get_config().data
    data.update(name=f"csv:{path}", id_column="name", kinds="article=categorical")
    dataset = load(data)
    names = ("train", "validation", "test")
    rows = encoding.rows_of(dataset, names)
    entries = entries_of(dataset, names)
    filled_in.write(tmp_path, dataset.table, stored_tables(data), rows, entries)
    found = read_csv(tmp_path / "imputed.csv")["article"]
    assert set(found) == {"1234567", "1234568"}
    assert found[3] == "1234568"


def test_rows_of_one_split_are_written_in_the_stored_order(tmp_path):
    path = write_cells(tmp_path / "cells.csv")
    data = data_of(path)
    dataset = load(data)
    stored = {"test": stored_tables(data)["test"]}
    rows = encoding.rows_of(dataset, ("test",))
    filled_in.write(tmp_path, dataset.table, stored, rows, entries_of(dataset, ("test",)))
    every = read_csv(path)["name"]
    mine = read_csv(tmp_path / "imputed.csv")["name"]
    assert 0 < len(mine) < len(every)
    assert mine == [name for name in every if name in mine]


def test_splits_that_are_stored_apart_stay_apart():
    raw = RawTable(("x",), (np.arange(4.0),))
    stored = {
        "train": StoredTable("b", raw, np.array([2, 0])),
        "validation": StoredTable("a", raw, np.array([3, 1])),
        "test": StoredTable("b", raw, np.array([1])),
    }
    assert filled_in.stored_order(stored).tolist() == [1, 4, 0, 3, 2]


def test_booleans_and_numbers_of_classes_stay_numbers():
    column = Column("b", "bernoulli", "", ("0", "1"))
    whole = filled_in.filled(np.array([3.0, np.nan]), column, np.array([1]), np.array([1]))
    assert filled_in.as_whole_numbers(whole).tolist() == [3, 1]
    flags = filled_in.filled(np.array([True, False]), column, np.array([1]), np.array([1]))
    assert flags.tolist() == [1, 1]
    some = filled_in.as_whole_numbers(np.array([3.0, np.nan]))
    assert some.tolist() == ["3", ""]


@pytest.mark.integration
def test_entries_of_a_linear_gaussian_table_are_those_of_the_closed_form():
    """z ~ N(0, 1), x = b + W z + noise: what is missing given what is observed is Gaussian."""
    columns = (ModelColumn("gaussian"),) * 3
    model = table_vae(columns, num_latents=1, hidden=(4,), decoder_hidden=())
    params = model.init(jax.random.key(0))
    data = tuple(Column(name, "gaussian", "", loc=10.0, scale=2.0) for name in "abc")
    values = np.array([[1.0, 0.0, -0.5], [0.0, 0.7, 0.0], [1.0, 1.0, 1.0]], np.float32)
    observed = np.array([[True, False, True], [False, True, False], [True, True, True]])
    x = {"values": jnp.asarray(values * observed), "observed": jnp.asarray(observed)}
    impute = imputing.make_impute(
        model, Table(data), num_samples=20_000, num_draws=500, batch_size=3
    )
    found = impute(jax.random.key(1), params, x)
    assert found.row.tolist() == [0, 1, 1]
    assert found.column.tolist() == [1, 0, 2]
    # the closed form, from p(x | z) at z = 0 and z = 1
    at = [model.densities.decode(params, None, jnp.full(1, z)) for z in (0.0, 1.0)]
    b = np.asarray(at[0].mean, float)
    w = np.asarray(at[1].mean, float) - b
    noise = np.asarray(at[0].variance, float)
    covariance = np.outer(w, w) + np.diag(noise)
    for i, (row, column) in enumerate(zip(found.row, found.column, strict=True)):
        there = observed[row]
        gain = covariance[column, there] @ np.linalg.inv(covariance[np.ix_(there, there)])
        mean = b[column] + gain @ (values[row, there] - b[there])
        sd = (covariance[column, column] - gain @ covariance[there, column]) ** 0.5
        off = abs(found.mean[i] - (10.0 + 2.0 * mean)) / (2.0 * sd)
        assert off < 5 / found.effective_samples[i] ** 0.5
        assert found.sd[i] == pytest.approx(2.0 * sd, rel=0.03)
        assert found.low[i] == pytest.approx(10.0 + 2.0 * (mean - 1.645 * sd), abs=0.15 * sd)
        assert found.high[i] == pytest.approx(10.0 + 2.0 * (mean + 1.645 * sd), abs=0.15 * sd)
        assert_mean(found.draws[i], 10.0 + 2.0 * mean)


# --- the commands


@pytest.fixture(scope="session")
def trained_table(commands, tmp_path_factory):
    """The data and the folder of a run of a table, a few steps long."""
    folder = tmp_path_factory.mktemp("table")
    path = write_cells(folder / "cells.csv", copies=15)
    fields = {
        "data.name": f"csv:{path}",
        "data.id_column": "name",
        "data.kinds": "level=ordinal,visits=poisson",
        "model.hidden": (8,),
        "model.num_latents": 2,
        "train.num_steps": 20,
        "train.log_every": 10,
        "train.eval_every": 20,
        "train.checkpoint_every": 20,
        "eval.num_importance_samples": 25,
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    commands.ok("train", "--config=configs/table.py", *flags, f"--workdir={folder / 'run'}")
    return path, folder / "run"


def test_a_run_of_a_table_ends_with_its_figures(trained_table):
    _, folder = trained_table
    found = {path.stem for path in (folder / "figures").iterdir()}
    expected = {"learning_curves", "columns", "correlations", "counts"}
    assert found == {*expected, "latent_plane"}
    assert json.loads((folder / "config.json").read_text())["name"] == "table-table-cells"


def test_a_table_is_imputed_by_the_command(commands, trained_table, tmp_path):
    path, folder = trained_table
    done = commands.ok("impute", f"--workdir={folder}", f"--out={tmp_path}", "--num_samples=50")
    before = read_csv(path)
    num_missing = sum(not cell for column in before.values() for cell in column)
    assert f"{num_missing} missing entries" in done.stdout
    expected = {"imputed.csv", "intervals.csv", "intervals.json", "draws.npz", "imputed.png"}
    assert {each.name for each in tmp_path.iterdir()} == expected
    assert (
        "90 % intervals are the model's own, not calibrated" in done.stdout
    )  # of 6 validation rows
    after = read_csv(tmp_path / "imputed.csv")
    assert after["name"] == before["name"]
    assert all(cell for column in after.values() for cell in column)
    assert set(after["town"]) == {"Oslo", "Rome"}
    assert set(after["level"]) <= {"1", "2", "3"}
    intervals = read_csv(tmp_path / "intervals.csv")
    assert len(intervals["row"]) == num_missing
    of_height = [i for i, name in enumerate(intervals["column"]) if name == "height"]
    for i in of_height:
        low, mean, high = (float(intervals[name][i]) for name in ("low", "mean", "high"))
        assert low < mean < high
    assert all(1.0 <= float(ess) <= 50.0 for ess in intervals["effective_samples"])


def test_rows_of_a_table_are_encoded_and_scored_by_their_ids(commands, trained_table, tmp_path):
    path, folder = trained_table
    commands.ok(
        "encode",
        *(f"--workdir={folder}", f"--out={tmp_path}"),
        *("--split=all", "--scores", "--num_samples=25"),
    )
    ids = read_csv(path)["name"]
    latents = read_csv(tmp_path / "latents.csv")
    assert sorted(latents["id"]) == sorted(ids)
    assert set(latents["split"]) == {"train", "validation", "test"}
    scores = read_csv(tmp_path / "scores.csv")
    assert sorted(scores["id"]) == sorted(ids)
    names = ["rank", "id", "split", "minus_log_p", "minus_log_p_data_units", "stderr", "k_hat"]
    assert list(scores) == names


def test_samples_of_a_table_are_in_its_own_columns(commands, trained_table, tmp_path):
    _, folder = trained_table
    done = commands.ok("sample", f"--workdir={folder}", f"--out={tmp_path}", "--num=9")
    assert "9 prior samples; 4 figures and samples.csv, samples.npz" in done.stdout
    samples = read_csv(tmp_path / "samples.csv")
    assert list(samples) == ["height", "visits", "town", "smoker", "note", "level"]
    assert {len(column) for column in samples.values()} == {9}
    assert set(samples["town"]) <= {"Oslo", "Rome"}
    assert all(100 < float(height) < 250 for height in samples["height"])
    assert all(visits.isdigit() for visits in samples["visits"])
    with np.load(tmp_path / "samples.npz") as arrays:
        assert arrays["samples"].shape == (9, 6)
        assert arrays["z/z"].shape == (9, 2)


def test_parameters_are_exported_with_the_same_bits(commands, trained, tmp_path):
    folder, _ = trained
    said = commands.ok("export", f"--workdir={folder}", f"--out={tmp_path}").stdout
    config = record.read_config(folder)
    model = session.make_model(config, session.load_data(config))
    params, step = session.trained_params(config, model, folder)
    assert f"step {step:,}" in said
    back = vi.load_safetensors(tmp_path / "params.safetensors", params)
    assert tree_equal(back, params)


def test_encode_writes_a_row_for_each_example(commands, trained, tmp_path):
    """The posterior of each of the 180 validation examples, and their scores, ranked."""
    out = tmp_path / "out"
    done = commands.ok(
        "encode",
        f"--workdir={trained[0]}",
        f"--out={out}",
        "--split=validation",
        *("--scores", "--num_samples=30", "--chunk=10", "--batch_size=50"),
    )
    assert "3 latents of 180 rows" in done.stdout
    assert {path.name for path in out.iterdir()} == {"latents.npz", "latents.csv", "scores.csv"}
    with np.load(out / "latents.npz") as file:
        arrays = dict(file)
    assert set(arrays) == {"split", "row", "label", "mean/z", "sd/z"}
    assert arrays["mean/z"].shape == arrays["sd/z"].shape == (180, 3)
    assert (arrays["sd/z"] > 0).all()
    assert len(np.unique(arrays["mean/z"][:, 0])) > 170
    rows = read_csv(out / "latents.csv")
    assert rows["row"] == [str(n) for n in range(180)]
    assert set(rows["split"]) == {"validation"}
    np.testing.assert_array_equal(np.float32(rows["z_2_mean"]), arrays["mean/z"][:, 2])
    np.testing.assert_array_equal(np.float32(rows["z_0_sd"]), arrays["sd/z"][:, 0])
    scores = read_csv(out / "scores.csv")
    assert list(scores) == ["rank", "row", "split", "label", "minus_log_p", "stderr", "k_hat"]
    assert sorted(map(int, scores["row"])) == list(range(180))
    assert np.all(np.diff(np.float64(scores["minus_log_p"])) <= 0)
    assert np.all(np.float64(scores["stderr"]) > 0)
    for label, row in zip(scores["label"], scores["row"], strict=True):
        assert label == rows["label"][int(row)]
