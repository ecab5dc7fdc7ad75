"""What comes out of a trained run: latents and anomaly scores by row, as arrays and as CSV."""

import csv
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean

from experiments.cli import UserError
from experiments.data.base import Split
from experiments.evals import encoding, evidence
from experiments.evals.csv_file import write_csv

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
    latents = encoding.Latents({"a": leaf, "b": leaf[:, 0, 0]}, {"a": -leaf, "b": -leaf[:, 0, 0]})
    found = dict(encoding._latent_columns(latents))
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


# --- the command


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
