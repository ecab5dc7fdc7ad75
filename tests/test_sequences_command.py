"""Runs on sequences: facts, streams, a bad step, the commands from a csv file to imputations."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import made

import vi_jax as vi
from configs import sequence, table, vae
from experiments import facts
from experiments.cli import UserError
from experiments.evals import sequences, units
from experiments.evals.steps import by_step, observed_of
from experiments.run import diagnosis, estimate, nonfinite, session

pytest_plugins = ["command_helpers"]

SMALL = {
    "model.width": 4,
    "model.num_latents": 2,
    "optim.learning_rate.warmup_steps": 2,
    "train.batch_size": 16,
    "train.num_steps": 8,
    "train.log_every": 2,
    "train.eval_every": 4,
    "train.checkpoint_every": 4,
    "eval.num_samples": 1,
    "eval.num_importance_samples": 4,
    "data.sequence": "who",
    "data.time": "day",
    "data.covariates": "dose",
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A csv of 50 sequences of 2 to 7 steps of three kinds of columns, some entries missing."""
    rng = np.random.default_rng(0)
    rows = ["who,day,dose,height,visits,smokes"]
    for n in range(50):
        level = rng.normal()
        for day in range(2 + n % 6):
            height = "" if rng.random() < 0.2 else f"{170 + 9 * level + rng.normal():.2f}"
            visits = "" if rng.random() < 0.1 else rng.poisson(np.exp(1 + 0.5 * level))
            smokes = "yes" if level + rng.normal() > 0 else "no"
            rows.append(f"p{n},{day},{rng.normal():.3f},{height},{visits},{smokes}")
    path = tmp_path_factory.mktemp("csv") / "steps.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def on(file, **changes):
    fields = {name.replace(".", "__"): value for name, value in SMALL.items()}
    return made(sequence, **fields | {"data__name": f"csv:{file}"} | changes)


def test_a_model_is_told_the_columns_and_the_longest_length(file):
    config = on(file)
    dataset = session.load_data(config)
    known = facts.of_data(config, dataset)
    assert known["max_steps"] == 7
    assert known["x_shape"] == (7, 3)
    assert known["num_covariates"] == 1
    x = dataset.train.x
    counts = x["values"][..., 1][x["observed"][..., 1]]
    (start,) = known["columns"][1].start
    assert abs(start - np.log(counts.mean())) < 0.01


@pytest.mark.parametrize(
    ("module", "fields", "match"),
    [
        (vae, {"data__kind": "auto"}, "set of 40 training sequences.*--config=configs/sequence.py"),
        (table, {"data__kind": "auto"}, "of tables; take --config=configs/sequence.py"),
        (sequence, {"data__sequence": "", "data__kind": "table"}, "--config.data.sequence=COLUMN"),
        (sequence, {"data__name": "digits", "data__kind": "images"}, "--config.data.kind=sequen"),
    ],
)
def test_what_does_not_fit_is_answered_with_what_would_do(file, module, fields, match):
    who = "" if fields.get("data__kind") == "images" else "who"
    config = made(module, **{"data__name": f"csv:{file}", "data__sequence": who} | fields)
    with pytest.raises(UserError, match=match):
        session.build_all(config)


def test_log_p_of_an_entry_is_the_ratio_of_the_sums(file):
    dataset = session.load_data(on(file))
    x = dataset.test.x
    log_p = -np.arange(1.0, 1.0 + dataset.test.num)
    found = units.summarise(log_p, dataset.table, x)
    in_data = log_p - dataset.table.log_jacobian(x["observed"])
    ratio = in_data.sum() / x["observed"].sum()
    assert found[units.PER_ENTRY]["mean"] == pytest.approx(ratio)
    rows = units.rows({"log_evidence": {"mean": log_p.mean(), "stderr": 1.0}, **found})
    assert [row.title.strip() for row in rows] == [
        "in the units of the data",
        "of an observed entry",
    ]
    assert "above" in rows[0].note


def test_steps_are_rows_of_their_sequences(file):
    dataset = session.load_data(on(file))
    known = observed_of(dataset.test)
    assert len(known) == dataset.test.lengths.sum()
    rows = by_step(
        sequences_rows(dataset),
        dataset,
        ("test",),
    )
    assert (rows.step[: dataset.test.lengths[0]] == np.arange(dataset.test.lengths[0])).all()
    assert (rows.id[: dataset.test.lengths[0]] == dataset.test.ids[0]).all()


def sequences_rows(dataset):
    from experiments.evals.encoding import rows_of

    return rows_of(dataset, ("test",))


@pytest.mark.slow
def test_a_run_streams_and_keeps_a_bad_step(file, tmp_path):
    """Streamed sequences give the same parameters, and the moment of a step is read again."""
    ends = []
    for limit in (2048, 0):
        config = on(file, data__device_limit_mb=limit)
        built = session.build_all(config)
        run, data = session.make_run(built, vi.shard.ALONE)
        state, info = run(session.start_state(config, built.model), data, 4)
        assert int(info.bad_step) < 0
        ends.append(state.params)
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
    path = nonfinite.record(
        tmp_path, 3, lambda step: state._replace(step=jnp.int32(step)), built=built
    )
    batch = nonfinite.read_batch(path, with_labels=False)
    assert batch.table == built.dataset.table
    assert batch.x_shape == (7, 3)
    moment = nonfinite.read(path, state, batch)
    for name, stored in built.dataset.train.x.items():
        np.testing.assert_array_equal(moment.batch[name], stored[moment.rows])
    assert "sequences of 7 steps x 3 columns" in diagnosis.describe_batch(moment)


@pytest.mark.integration
def test_a_band_holds_what_the_model_draws(file):
    """Sequences drawn from the model lie within bands of the prior as often as they say."""
    config = on(file)
    built = session.build_all(config)
    params = built.model.init(jax.random.key(0))
    decoded = sequences.decode(jax.random.key(1), built, params, num_samples=4)
    steps = decoded.lengths.sum()
    assert np.isfinite(decoded.rebuilt).all(2).sum() == steps
    assert (decoded.low <= decoded.high)[np.isfinite(decoded.low)].all()
    assert len(sequences.as_rows(decoded).data) == steps
    covered = sequences.coverage(decoded, built.dataset.table)
    assert 0.5 < covered <= 1.0


@pytest.mark.integration
def test_what_sequences_take_is_estimated(file):
    dataset = session.load_data(on(file))
    with pytest.raises(UserError, match="takes at least"):
        estimate.require_run(on(file, train__batch_size=2 * 10**9), dataset)


def read_csv(path):
    with open(path, newline="") as lines:
        return list(csv.DictReader(lines))


def test_sequences_are_trained_and_what_comes_out_of_them(commands, file, tmp_path):
    """A run from its training to its samples, latents and imputations."""
    folder = tmp_path / "run"
    flags = [
        "--config=configs/sequence.py",
        *(f"--config.{name}={value}" for name, value in SMALL.items()),
        f"--config.data.name=csv:{file}",
        f"--workdir={folder}",
    ]
    done = commands.ok("train", *flags)
    assert "50 sequences of 2 to 7 steps" in done.stderr
    assert "of an observed entry" in done.stdout
    assert done.stdout.count("in training SDs of the columns") == 1
    for name in ("sequences", "samples", "lengths", "columns", "latent_plane"):
        assert (folder / "figures" / f"{name}.png").exists()
    summary = json.loads((folder / "summary.json").read_text())
    assert np.isfinite(summary["log_evidence_per_entry"]["mean"])
    done = commands.ok("evaluate", f"--workdir={folder}", "--num_samples=4")
    assert "of an observed entry" in done.stdout
    # samples: a row for each step
    commands.ok("sample", f"--workdir={folder}", "--num=6")
    samples = read_csv(folder / "samples" / "samples.csv")
    assert list(samples[0]) == ["sequence", "step", "dose", "height", "visits", "smokes"]
    assert {row["sequence"] for row in samples} == set("012345")
    assert 100 < float(samples[0]["height"]) < 240
    # latents: a row for each sequence
    commands.ok("encode", f"--workdir={folder}", "--split=all", "--scores", "--num_samples=4")
    assert len(read_csv(folder / "latents" / "latents.csv")) == 50
    assert len(read_csv(folder / "latents" / "scores.csv")) == 50
    # imputations: the rows of the csv as they came, filled in
    commands.ok("impute", f"--workdir={folder}", "--num_samples=30", "--num_draws=3")
    stored = read_csv(file)
    filled = read_csv(folder / "imputed" / "imputed.csv")
    assert len(filled) == len(stored)
    for before, after in zip(stored, filled, strict=True):
        assert after["who"] == before["who"]
        assert float(after["day"]) == float(before["day"])
        for name in ("height", "visits"):
            assert after[name]
            if before[name]:
                assert float(after[name]) == pytest.approx(float(before[name]))
    intervals = read_csv(folder / "imputed" / "intervals.csv")
    assert len(intervals) == sum(not row[name] for row in stored for name in ("height", "visits"))
    for row in intervals:
        line = stored[int(row["row"])]
        assert not line[row["column"]]
        assert line["who"] == row["id"]
        assert int(line["day"]) == int(row["step"])
